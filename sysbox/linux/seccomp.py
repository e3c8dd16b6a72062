"""Load a compiled seccomp filter. seccomp(2)."""

from __future__ import annotations

import errno

from sysbox.base.errors import KernelError
from sysbox.linux import _sys

# SECCOMP_FILTER_FLAG_*
NEW_LISTENER = 1 << 3
_WAIT_KILLABLE_RECV = 1 << 5


def load(program: bytes, flags: int = 0) -> int:
    """Filter the system calls of this process and its descendants; this cannot be undone.

    `program` is an array of struct sock_filter. Needs no_new_privs or CAP_SYS_ADMIN (else EACCES). Returns
    with NEW_LISTENER the descriptor that answers the calls for which the program returns
    SECCOMP_RET_USER_NOTIF (seccomp_unotify(2)), else 0. Raises KernelError.
    """
    try:
        return _sys.seccomp_load(flags, program)
    except OSError as error:
        raise KernelError.of("load the seccomp filter", "", error) from None


def listen(program: bytes) -> int:
    """`load` with a listener. No signal interrupts a call once it is being answered, where the kernel can."""
    try:
        return load(program, NEW_LISTENER | _WAIT_KILLABLE_RECV)
    except KernelError as error:
        if error.errno != errno.EINVAL:
            raise
    return load(program, NEW_LISTENER)  # Linux before 5.19
