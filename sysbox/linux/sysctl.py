"""Settings below /proc/sys, which are those of the namespaces of the process that opens the file. proc(5)."""

from __future__ import annotations

import errno
import posix

from sysbox.base.errors import KernelError
from sysbox.linux import _sys, mount

_RESOLVE = mount.RESOLVE_BENEATH | mount.RESOLVE_NO_SYMLINKS | mount.RESOLVE_NO_XDEV


def write(procfs: int, path: str, value: str) -> None:
    """Write `value` to sys/`path` of the host's `procfs`, which no mount of a container can take the place of
    (CVE-2025-52881).

    Where that is covered, as it is inside a container, a procfs of our own is used. Raises KernelError.
    """
    try:
        _write(procfs, path, value)
    except KernelError as error:
        if error.errno not in (errno.EXDEV, errno.EROFS):
            raise
        write_anew(path, value)


def new_procfs() -> int:
    """A procfs for the settings of new namespaces: its root, a descriptor. Raises KernelError.

    In a procfs that many network namespaces use, the kernel finds a setting's file by comparing it with those
    of all others that were opened there: with a thousand containers that takes a millisecond for each name
    (fs/proc/proc_sysctl.c, proc_sys_compare). A new one has no others.
    """
    return mount.new_filesystem("proc", (), 0)


def write_anew(path: str, value: str) -> None:
    """Write `value` to sys/`path` of a new procfs, on which nothing is mounted. Raises KernelError."""
    own = new_procfs()
    try:
        _write(own, path, value)
    finally:
        posix.close(own)


def _write(procfs: int, path: str, value: str) -> None:
    try:
        fd = _sys.openat2(procfs, f"sys/{path}", posix.O_WRONLY | posix.O_CLOEXEC, 0, _RESOLVE)
        try:
            posix.write(fd, value.encode("utf-8", "surrogateescape"))
        finally:
            posix.close(fd)
    except OSError as error:
        raise KernelError.of("write", f"/proc/sys/{path}", error) from None
