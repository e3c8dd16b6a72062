"""Namespaces: the kinds, which kinds this kernel has, and descriptors of a process's namespaces.

namespaces(7). A kind is named as in the OCI runtime specification's `linux.namespaces`.
"""

from __future__ import annotations

import fcntl
import posix

from sysbox.base.errors import KernelError

_NS_GET_USERNS = 0xB701  # ioctl_ns(2)
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
    return {kind: is_there(kind) for kind in KINDS}


def is_there(kind: str) -> bool:
    """Whether this kernel has namespaces of a kind, and their limit is above 0."""
    file = KINDS[kind][1]
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


def identity(path: str) -> tuple[int, int]:
    """(device, inode) of the namespace at `path`, which tell it from all others. Raises KernelError."""
    try:
        status = posix.stat(path)
    except OSError as error:
        raise KernelError.of("look at the namespace", path, error) from None
    return status.st_dev, status.st_ino


def owner(path: str) -> tuple[int, int]:
    """The identity of the user namespace that owns the namespace at `path`. ioctl_ns(2).

    Raises KernelError: EPERM for one that is not below the caller's own.
    """
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
        try:
            above = fcntl.ioctl(fd, _NS_GET_USERNS)
        finally:
            posix.close(fd)
        try:
            status = posix.fstat(above)
        finally:
            posix.close(above)
    except OSError as error:
        raise KernelError.of("look at the namespace", path, error) from None
    return status.st_dev, status.st_ino
