"""The standard streams and the terminal of a container's process, as it becomes that process.

Nothing here opens a path of the host: the file system around the process is the container's by now.
"""

from __future__ import annotations

import _stat
import errno
import fcntl
import posix

from sysbox.base.errors import KernelError, StartError
from sysbox.linux import _sys, mount
from sysbox.run.handshake import CONSOLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.run.handshake import Channel

# asm-generic/ioctls.h, ioctl_tty(2); the module termios would be one more file to load at each start
_TIOCSWINSZ = 0x5414
_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441
# linux/magic.h
_DEVPTS_SUPER_MAGIC = 0x1CD1
_PIPEFS_MAGIC = 0x50495045
_NULL = posix.makedev(1, 3)
_FIRST = 3  # SD_LISTEN_FDS_START
_HANDLE = posix.O_PATH | posix.O_NOFOLLOW | posix.O_CLOEXEC


def open_terminal(root: int, channel: Channel, size: bytes) -> int:
    """The slave of a terminal of the container's own devpts, set to the caller's `size` (struct winsize)
    before any process can ask for it; the master goes to the parent (3).

    Raises StartError when /dev/pts is not a devpts.
    """
    try:
        master = mount.open_in_root(
            root, "/dev/pts/ptmx", posix.O_RDWR | posix.O_NOCTTY | posix.O_CLOEXEC
        )
    except KernelError as error:
        if error.errno == errno.EPERM:
            error.hint = "the list of devices of its unit (DevicePolicy=, DeviceAllow=) forbids it"
        raise
    if _sys.fstatfs_type(master) != _DEVPTS_SUPER_MAGIC:
        raise StartError(
            "the container's /dev/pts is not a devpts: it can have no terminal", phase="process"
        )
    if size:
        fcntl.ioctl(master, _TIOCSWINSZ, size)
    slave = open_peer(master)
    channel.send(CONSOLE, fd=master)  # 3
    posix.close(master)
    return slave


def open_peer(master: int) -> int:
    """The slave of a pty by ioctl_tty(2) TIOCGPTPEER: no path is looked up."""
    fcntl.ioctl(master, _TIOCSPTLCK, b"\0\0\0\0")
    slave: int = fcntl.ioctl(master, _TIOCGPTPEER, posix.O_RDWR | posix.O_NOCTTY | posix.O_CLOEXEC)
    return slave


def is_null(fd: int) -> bool:
    """Whether it is the null device (CVE-2025-31133)."""
    found = posix.fstat(fd)
    return _stat.S_ISCHR(found.st_mode) and found.st_rdev == _NULL


def open_null(root: int, procfs: int, spare: int) -> int:
    """The container's /dev/null if it is the null device, verified before that is opened; else `spare`,
    or a new one where that is -1. Raises KernelError.

    Never the host's: a chmod(2) of the descriptor would change the host's inode.
    """
    found = -1
    try:
        found = mount.open_in_root(root, "/dev/null", _HANDLE)
        if is_null(found):
            return mount.reopen(procfs, found, posix.O_RDWR)
    except KernelError:
        pass  # it does not exist, is on a mount with nodev, or the unit's list of devices lacks it
    finally:
        if found >= 0:
            posix.close(found)
    return spare if spare >= 0 else new_null()


def new_null() -> int:
    """A null device for this process alone: a node on a new tmpfs that is mounted nowhere."""
    made = mount.new_filesystem("tmpfs", (("size", "4k"), ("nr_inodes", "2")), 0)
    try:
        posix.mknod("null", _stat.S_IFCHR | 0o666, _NULL, dir_fd=made)
        return posix.open("null", posix.O_RDWR | posix.O_CLOEXEC, dir_fd=made)
    except OSError as error:
        raise KernelError.of("make", "a null device", error) from None
    finally:
        posix.close(made)


def give_streams(
    stdio: tuple[int, int, int], owned: tuple[int, ...], root: tuple[int, int]
) -> None:
    """Give the streams to the container's root (host's uid and gid), who gives them to its user inside."""
    for fd in stdio:
        if fd >= 0 and (fd in owned or is_pipe(fd)):
            posix.fchown(fd, *root)


def is_pipe(fd: int) -> bool:
    """Whether it is a pipe without a name (pipe(7))."""
    return _sys.fstatfs_type(fd) == _PIPEFS_MAGIC


def take_streams(
    stdio: tuple[int, int, int], null: int, owned: tuple[int, ...], uid: int, *, tty: bool
) -> None:
    """Move three fds to 0, 1 and 2, -1 being `null`, and chown them so that the container's user can open
    /dev/stdout and its terminal again.

    No fd overwrites another: each is above 2 or in its place already.
    """
    for target, fd in enumerate(stdio):
        posix.dup2(null if fd < 0 else fd, target, inheritable=True)
    for target, fd in enumerate(stdio):
        try:
            if tty or fd in owned or is_pipe(target):
                posix.fchown(target, uid, -1)
        except PermissionError:
            if tty or fd in owned:
                raise
            # ignoring: a container with other ids, which shares the caller's pipe, has been given it since


def pass_sockets(fds: tuple[int, ...], channel: Channel) -> tuple[int, ...]:
    """Move sockets to 3 and up, in their order, to be inherited (sd_listen_fds(3)); the channel makes way.

    Any other descriptor there is closed. Raises OSError.
    """
    if not fds:
        return ()
    places = tuple(range(_FIRST, _FIRST + len(fds)))
    free = places[-1] + 1
    channel.move_above(free)
    aside = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, free) for fd in fds]
    for place, fd in zip(places, aside, strict=True):
        posix.dup2(fd, place, inheritable=True)
    return places
