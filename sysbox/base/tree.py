"""Read directory trees that another process may be changing, by descriptor.

No link is followed, and nothing is opened before its type is known: a name that was a file a moment ago
may now be a symbolic link to the host's /etc/shadow, or a device that acts on open(2) (CVE-2018-15664,
CVE-2023-0778). So each entry is opened with O_PATH, checked, and only then reopened through that descriptor.
"""

from __future__ import annotations

import _stat
import errno
import posix

from sysbox.base.errors import FormatError, KernelError
from sysbox.base.files import DEPTH as DEPTH
from sysbox.base.files import TreeWalk
from sysbox.base.files import identity as identity
from sysbox.base.visible import printable as printable
from sysbox.linux import _sys, mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK = 1 << 20
_SEEK_DATA, _SEEK_HOLE = 3, 4  # lseek(2)
_HANDLE = posix.O_PATH | posix.O_NOFOLLOW | posix.O_CLOEXEC
DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC
# does not block on a fifo, and does not acquire a controlling terminal
_PLAIN = posix.O_RDONLY | posix.O_NONBLOCK | posix.O_NOCTTY | posix.O_CLOEXEC
_FUSE = 0x65735546


class Gone(FileNotFoundError):
    """An entry disappeared after it was found: its process ended, or the file was removed."""


class TreeEntry:
    """A directory entry, pinned by an O_PATH descriptor."""

    __slots__ = ("fd", "name", "status")

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd
        self.status = posix.fstat(fd)

    @property
    def kind(self) -> int:
        """The file type: S_IFREG, S_IFDIR, ..."""
        return _stat.S_IFMT(self.status.st_mode)

    @property
    def is_directory(self) -> bool:
        return _stat.S_ISDIR(self.status.st_mode)

    @property
    def identity(self) -> tuple[int, int]:
        """(device, inode): the same for all hard links of one file."""
        return self.status.st_dev, self.status.st_ino

    def open(self) -> int:
        """A descriptor to read the file or directory from. Raises Gone, OSError."""
        flags = _PLAIN | (posix.O_DIRECTORY if self.is_directory else 0)
        try:
            return posix.open(self.path, flags)
        except OSError as error:
            raise _gone(error) from None

    @property
    def path(self) -> str:
        """A path that leads to this inode even if the entry was renamed or replaced."""
        return f"/proc/self/fd/{self.fd}"

    def link_text(self) -> str:
        """The target of a symbolic link. Raises Gone, OSError."""
        try:
            return posix.readlink("", dir_fd=self.fd)
        except OSError as error:
            raise _gone(error) from None

    def close(self) -> None:
        posix.close(self.fd)


def _gone(error: OSError) -> OSError:
    """Gone for ENOENT, and for ESRCH, which procfs returns for a process that has ended; else `error`."""
    if error.errno in (errno.ENOENT, errno.ESRCH):
        return Gone(error.errno, error.strerror)
    return error


def is_pseudo_mount(found: TreeEntry, above: int) -> bool:
    """Whether a pseudo file system is mounted on a directory; `above` is the device of its parent."""
    if not found.is_directory or found.status.st_dev == above:
        return False
    return is_pseudo(found)


def is_pseudo(found: TreeEntry) -> bool:
    """Whether an entry is in a pseudo file system."""
    return is_kernels(found.fd)


def is_kernels(fd: int) -> bool:
    """Whether an open file is in a pseudo file system."""
    return _sys.fstatfs_type(fd) in mount.KERNELS_MAGIC


def is_unsized(fd: int) -> bool:
    """Whether an open file may have content though its size is 0, as files of procfs have."""
    return posix.fstat(fd).st_size == 0 and _sys.fstatfs_type(fd) in (*mount.KERNELS_MAGIC, _FUSE)


def open_entry(directory: int, name: str | bytes) -> TreeEntry | None:
    """An entry of an open directory; a link is not followed. None if it is gone. Raises OSError."""
    try:
        shown = name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")
        return TreeEntry(shown, posix.open(name, _HANDLE, dir_fd=directory))
    except OSError as error:
        if isinstance(_gone(error), Gone):
            return None
        raise


def _open_on_mount(directory: int, name: str) -> TreeEntry | None:
    """As `open_entry`; None too where something is mounted on the entry. Raises OSError."""
    resolve = mount.RESOLVE_NO_XDEV | mount.RESOLVE_BENEATH
    try:
        return TreeEntry(name, mount.openat2(directory, name, _HANDLE, 0, resolve))
    except OSError as error:
        if error.errno == errno.EXDEV or isinstance(_gone(error), Gone):
            return None
        raise


def entries(directory: int, where: str = "", most: int = 0) -> Iterator[TreeEntry]:
    """The entries of an open directory, sorted by name; each is closed when the next is requested.

    `where` names the directory in messages; it may have `most` entries, 0 is no bound. Raises OSError,
    FormatError for more, and KernelError where the file system returns an invalid name.
    """
    try:
        names = sorted(_bounded(directory, where, most) if most else posix.listdir(directory))
    except OSError as error:
        raise _gone(error) from None
    for name in names:
        if "/" in name or name in ("", ".", ".."):
            raise KernelError("read", where, errno.EIO, hint="its file system has invalid names")
        found = open_entry(directory, name)
        if found is None:
            continue  # removed since
        try:
            yield found
        finally:
            found.close()


def _bounded(directory: int, where: str, most: int) -> list[str]:
    """The names in an open directory, of which the memory never holds more than `most`."""
    names = []
    with posix.scandir(directory) as found:
        for one in found:
            names.append(one.name)
            if len(names) > most:
                raise FormatError(
                    f"{printable(where) or '.'}: more than {most} files in one directory"
                )
    return names


def walk(directory: int, *, mounts: bool = True) -> Iterator[TreeEntry]:
    """Every entry below an open directory, at any depth; each is closed when the next is requested.

    A directory comes before what is in it. Without `mounts` what is mounted in the tree is left out. Raises
    OSError: ESTALE where another process has moved a directory far below.
    """
    open_one = open_entry if mounts else _open_on_mount
    way = TreeWalk(posix.open(".", DIRECTORY, dir_fd=directory))
    above: list[list[str]] = []  # names to do
    try:
        waiting = posix.listdir(way.fd)
        while waiting or above:
            if not waiting:
                way.up()
                waiting = above.pop()
                continue
            found = open_one(way.fd, waiting.pop())
            if found is None:
                continue  # removed since
            try:
                yield found
                if not found.is_directory:
                    continue
                way.enter(found.open())
            except Gone:
                continue  # removed since
            finally:
                found.close()
            above.append(waiting)
            waiting = posix.listdir(way.fd)
    finally:
        way.close()


def mount_id(fd: int) -> int:
    """The id of the mount that an open file was reached through (proc_pid_fdinfo(5)). Raises OSError."""
    info = posix.open(f"/proc/self/fdinfo/{fd}", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        lines = posix.read(info, 4096).split(b"\n")
    finally:
        posix.close(info)
    return next(int(line[7:]) for line in lines if line.startswith(b"mnt_id:"))


def check_depth(depth: int, where: str) -> None:
    """Raises FormatError for more than DEPTH nested directories."""
    if depth > DEPTH:
        raise FormatError(f"{printable(where[:200])}...: more than {DEPTH} directories deep")


def attributes(path: str | int) -> list[tuple[str, bytes]]:
    """The extended attributes of a file or directory; `path` may be `TreeEntry.path`.

    Without overlayfs's, and without SELinux's label, which is up to the place where a file is.
    """
    try:
        names = posix.listxattr(path)
    except OSError:
        return []  # the file system has none
    found = []
    for name in names:
        if name.startswith(("trusted.", "user.overlay.")) or name == "security.selinux":
            continue
        try:
            found.append((name, posix.getxattr(path, name)))
        except OSError:
            continue  # removed since
    return found


def segments(fd: int, size: int) -> Iterator[tuple[bool, int, int]]:
    """The first `size` bytes of an open file as (is data, position, length); the others are holes."""
    position = 0
    while position < size:
        try:
            data = min(posix.lseek(fd, position, _SEEK_DATA), size)
            end = min(posix.lseek(fd, data, _SEEK_HOLE), size) if data < size else size
        except OSError as error:
            # ENXIO: the rest is a hole; EINVAL: this file system does not report holes
            hole = error.errno == errno.ENXIO
            yield not hole, position, size - position
            return
        if data > position:
            yield False, position, data - position
        if end > data:
            yield True, data, end - data
        position = max(end, position + 1)
