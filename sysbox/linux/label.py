"""The security label of the next program: /proc/PID/attr/exec, for SELinux and AppArmor."""

from __future__ import annotations

import posix

from sysbox.base.errors import KernelError
from sysbox.linux import mount


def set_exec_label(text: str, *, proc_fd: int = -1) -> None:
    """Have the next execve enter the domain `text`.

    The label is written through a verified procfs (`proc_fd`, else /proc), on that mount alone: a label
    written to a fake file would silently leave the container unconfined (CVE-2019-16884, CVE-2025-52881).
    Raises KernelError; EINVAL means that no security module accepted it.
    """
    procfs = mount.open_procfs() if proc_fd < 0 else proc_fd
    try:
        fd = mount.open_beneath(procfs, "self/attr/exec", posix.O_WRONLY)
    finally:
        if proc_fd < 0:
            posix.close(procfs)
    try:
        posix.write(fd, text.encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise KernelError.of("set the label of the next program", text, error) from None
    finally:
        posix.close(fd)
