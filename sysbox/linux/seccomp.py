"""Load a compiled seccomp filter. seccomp(2)."""

from __future__ import annotations

from sysbox.base.errors import KernelError
from sysbox.linux import _sys


def load(program: bytes, flags: int = 0) -> None:
    """Filter the system calls of this process and its descendants; this cannot be undone.

    `program` is an array of struct sock_filter. Needs no_new_privs or CAP_SYS_ADMIN (else EACCES).
    Raises KernelError.
    """
    try:
        _sys.seccomp_load(flags, program)
    except OSError as error:
        raise KernelError.of("load the seccomp filter", "", error) from None
