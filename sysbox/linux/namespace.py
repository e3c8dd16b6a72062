"""Namespaces: the kinds, which kinds this kernel has, and descriptors of a process's namespaces.

namespaces(7). A kind is named as in the OCI runtime specification's `linux.namespaces`.
"""

from __future__ import annotations

import posix

from sysbox.base.errors import KernelError

CLONE_PARENT = 0x00008000
CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# kind -> (flag of clone(2), unshare(2) and setns(2); file in /proc/PID/ns). In the order of joining: the
# user namespace owns the others and is first; the mount namespace changes what paths mean and is last.
KINDS: dict[str, tuple[int, str]] = {
    "user": (CLONE_NEWUSER, "user"),
    "time": (CLONE_NEWTIME, "time"),
    "ipc": (CLONE_NEWIPC, "ipc"),
    "uts": (CLONE_NEWUTS, "uts"),
    "network": (CLONE_NEWNET, "net"),
    "pid": (CLONE_NEWPID, "pid"),
    "cgroup": (CLONE_NEWCGROUP, "cgroup"),
    "mount": (CLONE_NEWNS, "mnt"),
}


def probe() -> dict[str, bool]:
    """For each kind, whether this kernel has it and the limit in user.max_*_namespaces is above 0."""
    return {kind: _allowed(file) for kind, (_, file) in KINDS.items()}


def _allowed(file: str) -> bool:
    try:
        posix.stat(f"/proc/self/ns/{file}")
    except OSError:
        return False
    try:
        fd = posix.open(f"/proc/sys/user/max_{file}_namespaces", posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return True  # the limit cannot be read: unshare(2) will report it
    try:
        return posix.read(fd, 32).strip() != b"0"
    finally:
        posix.close(fd)


def open_ns(pid: int, kind: str) -> int:
    """A descriptor of the namespace of `kind` that process `pid` is in, for setns(2).

    Raises KernelError; ENOENT means that the process has ended.
    """
    path = f"/proc/{pid}/ns/{KINDS[kind][1]}"
    try:
        return posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError as error:
        raise KernelError.of("open the namespace", path, error) from None
