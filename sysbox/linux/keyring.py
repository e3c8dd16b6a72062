"""Session keyrings, which belong to no namespace. keyctl(2), session-keyring(7)."""

from __future__ import annotations

import errno as _errno

from sysbox.base.errors import KernelError
from sysbox.linux import _sys


def join_session(name: str | None) -> int:
    """Replace the caller's session keyring, so that the container does not get its keys.

    None makes an anonymous keyring; a name joins the keyring of that name. Returns its serial number, 0 on a
    kernel without keyrings, and where a seccomp filter refuses keyctl(2), as in a container: what is started
    inherits the filter, and so cannot reach a keyring either. Raises KernelError (EDQUOT: this user has
    kernel.keys.maxkeys keys).
    """
    try:
        return _sys.keyctl_join_session(name)
    except OSError as error:
        # the kernel has no EPERM for an anonymous keyring (keyctl_join_session_keyring(3))
        if error.errno == _errno.ENOSYS or (error.errno == _errno.EPERM and name is None):
            return 0
        raise KernelError.of("join the session keyring", name or "", error) from None
