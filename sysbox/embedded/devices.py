"""The embedded host's own /dev: the machine's nodes made again, so that a chmod does not reach the machine's.

Without the machine's consoles, kernel log and memory, which no process of the host needs.
"""

from __future__ import annotations

import os
import stat

from sysbox.base import errors
from sysbox.linux import _sys
from sysbox.linux.mount import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_STRICTATIME

# character devices by major and minor (None: any): terminals, console, vcs, kmsg, mem, kmem, port
HIDDEN = frozenset(((4, None), (5, 1), (7, None), (1, 11), (1, 1), (1, 2), (1, 4)))
OWN = ("pts", "shm", "mqueue", "hugepages")
LOOP_DEVICES = 64  # made in advance: in a tmpfs the kernel adds no nodes, as it does in a devtmpfs


def mount(
    source: str, target: str, fstype: str | None, flags: int, data: str | None = None
) -> None:
    """mount(2); raises KernelError."""
    try:
        _sys.mount(source, target, fstype, flags, data)
    except OSError as error:
        raise errors.KernelError.of("mount", target, error) from None


def mount_all(target: str) -> None:
    """Mount the host's /dev at `target` and fill it. Raises KernelError."""
    mount("dev", target, "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=4m")
    _copy_nodes("/dev", target)
    for number in range(LOOP_DEVICES):
        _make_node(f"{target}/loop{number}", stat.S_IFBLK | 0o660, os.makedev(7, number))
    for directory in OWN:
        os.makedirs(f"{target}/{directory}", 0o755, exist_ok=True)
    mount(
        "devpts",
        f"{target}/pts",
        "devpts",
        MS_NOSUID | MS_NOEXEC,
        "newinstance,ptmxmode=0666,mode=620,gid=5",
    )
    mount("shm", f"{target}/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    if os.path.lexists(f"{target}/ptmx"):
        os.unlink(f"{target}/ptmx")
    os.symlink("pts/ptmx", f"{target}/ptmx")
    for link, to in (
        ("fd", "/proc/self/fd"),
        ("stdin", "fd/0"),
        ("stdout", "fd/1"),
        ("stderr", "fd/2"),
    ):
        if not os.path.lexists(f"{target}/{link}"):
            os.symlink(to, f"{target}/{link}")


def _copy_nodes(source: str, target: str) -> None:
    with os.scandir(source) as entries:
        for entry in entries:
            try:
                _copy_node(entry, f"{target}/{entry.name}")
            except FileNotFoundError:
                pass  # ignoring: the device has just gone, or udev replaces the name


def _copy_node(entry: os.DirEntry[str], path: str) -> None:
    status = entry.stat(follow_symlinks=False)
    if entry.is_symlink():
        os.symlink(os.readlink(entry.path), path)
    elif entry.is_dir(follow_symlinks=False):
        if entry.name not in OWN:
            os.mkdir(path, 0o755)
            _copy_nodes(entry.path, path)
    elif stat.S_ISBLK(status.st_mode) or _wanted(status):
        _make_node(path, status.st_mode, status.st_rdev)
        os.chown(path, status.st_uid, status.st_gid)


def _wanted(status: os.stat_result) -> bool:
    major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
    return stat.S_ISCHR(status.st_mode) and not HIDDEN.intersection(((major, None), (major, minor)))


def _make_node(path: str, mode: int, device: int) -> None:
    if not os.path.lexists(path):
        os.mknod(path, mode, device)
        os.chmod(path, stat.S_IMODE(mode))
