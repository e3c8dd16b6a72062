"""Session keyrings, which are not namespaced. keyctl(2), session-keyring(7)."""

from __future__ import annotations

import errno as _errno

from sysbox.base.errors import KernelError
from sysbox.linux import _sys


def join_session(name: str | None) -> int:
    """Leave the caller's session keyring for a new one, so that a container does not hold its keys.

    None makes an anonymous one; a name joins the one that has it. Returns its serial number, 0 on a kernel
    that has no keyrings. Raises KernelError (EDQUOT: kernel.keys.maxkeys of this user is reached).
    """
    try:
        return _sys.keyctl_join_session(name)
    except OSError as error:
        if error.errno == _errno.ENOSYS:
            return 0
        raise KernelError.of("join the session keyring", name or "", error) from None
