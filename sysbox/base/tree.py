"""Trees that somebody else may be changing meanwhile, read by descriptor.

Nothing is followed, and nothing is opened before it is known what it is: a name that was a file a moment ago
may be a symbolic link to the host's /etc/shadow by now, or a device whose mere opening does something
(CVE-2018-15664, CVE-2023-0778). So each entry is taken with O_PATH first, looked at, and only then opened
anew through its descriptor.
"""

from __future__ import annotations

import _stat
import errno
import posix

from sysbox.base.errors import FormatError, KernelError
from sysbox.base.files import Way
from sysbox.base.files import identity as identity
from sysbox.base.visible import printable as printable
from sysbox.linux import _sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

DEPTH = (
    200  # directories inside each other: each costs a descriptor; what an image layer may have too
)
CHUNK = 1 << 20
_SEEK_DATA, _SEEK_HOLE = 3, 4  # lseek(2)
_HANDLE = posix.O_PATH | posix.O_NOFOLLOW | posix.O_CLOEXEC
DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC
# never blocks on a fifo, never gets a terminal
_PLAIN = posix.O_RDONLY | posix.O_NONBLOCK | posix.O_NOCTTY | posix.O_CLOEXEC


# file systems that are the kernel's own words, or devices: linux/magic.h, and statfs(2)
_KERNELS = frozenset(
    (
        0x9FA0, 0x62656572, 0x27E0EB, 0x63677270, 0x1CD1, 0x19800202, 0x64626720, 0x74726163, 0x73636673,
        0xF97CFF8C, 0xCAFE4A11, 0x6165676C, 0xDE5E81E4, 0x62656570, 0x65735543, 0x42494E4D, 0x6E736673,
        0x67596969,
    )
)  # fmt: skip
_FUSE = 0x65735546


class Gone(FileNotFoundError):
    """What was found a moment ago is not there any more: a process has ended, a file was removed."""


class Found:
    """One entry, held by an O_PATH descriptor, so that it stays what it is."""

    __slots__ = ("fd", "name", "status")

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd
        self.status = posix.fstat(fd)

    @property
    def kind(self) -> int:
        """S_IFREG and so on."""
        return _stat.S_IFMT(self.status.st_mode)

    @property
    def is_directory(self) -> bool:
        return _stat.S_ISDIR(self.status.st_mode)

    @property
    def identity(self) -> tuple[int, int]:
        """(device, inode): what hard links of one file have in common."""
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
        """A path that leads to this very inode, whatever becomes of its name."""
        return f"/proc/self/fd/{self.fd}"

    def link_text(self) -> str:
        """Where a symbolic link leads. Raises Gone, OSError."""
        try:
            return posix.readlink("", dir_fd=self.fd)
        except OSError as error:
            raise _gone(error) from None

    def close(self) -> None:
        posix.close(self.fd)


def _gone(error: OSError) -> OSError:
    """Of a process that has ended procfs says ESRCH."""
    if error.errno in (errno.ENOENT, errno.ESRCH):
        return Gone(error.errno, error.strerror)
    return error


def is_kernels(found: Found, above: int) -> bool:
    """Whether a file system of the kernel's own is mounted on a directory; `above` is the device it is in."""
    if not found.is_directory or found.status.st_dev == above:
        return False
    return is_of_kernel(found)


def is_of_kernel(found: Found) -> bool:
    """Whether an entry is in a file system of the kernel's own."""
    return _sys.fstatfs_type(found.fd) in _KERNELS


def is_unsized(fd: int) -> bool:
    """Whether an open file has content that its size does not tell, as those of procfs have."""
    return posix.fstat(fd).st_size == 0 and _sys.fstatfs_type(fd) in (*_KERNELS, _FUSE)


def look(directory: int, name: str | bytes) -> Found | None:
    """An entry of an open directory, itself and not where it leads; None if it is gone. Raises OSError."""
    try:
        shown = name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")
        return Found(shown, posix.open(name, _HANDLE, dir_fd=directory))
    except OSError as error:
        if isinstance(_gone(error), Gone):
            return None
        raise


def entries(directory: int, where: str = "") -> Iterator[Found]:
    """What is in an open directory, sorted by name; each is closed when the next is asked for.

    `where` names the directory in messages. Raises OSError, KernelError for a file system with impossible
    names.
    """
    try:
        names = sorted(posix.listdir(directory))
    except OSError as error:
        raise _gone(error) from None
    for name in names:
        if "/" in name or name in ("", ".", ".."):
            raise KernelError("read", where, errno.EIO, hint="its file system lies about its names")
        found = look(directory, name)
        if found is None:
            continue  # removed since
        try:
            yield found
        finally:
            found.close()


def below(directory: int) -> Iterator[Found]:
    """Every entry below an open directory, however deep; each is closed when the next is asked for.

    Raises OSError: ESTALE when somebody has moved a directory far below meanwhile.
    """
    way = Way(posix.open(".", DIRECTORY, dir_fd=directory))
    above: list[list[str]] = []  # names to do
    try:
        waiting = posix.listdir(way.fd)
        while waiting or above:
            if not waiting:
                way.up()
                waiting = above.pop()
                continue
            found = look(way.fd, waiting.pop())
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
    """Which mount an open file was reached through (proc_pid_fdinfo(5)). Raises OSError."""
    info = posix.open(f"/proc/self/fdinfo/{fd}", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        lines = posix.read(info, 4096).split(b"\n")
    finally:
        posix.close(info)
    return next(int(line[7:]) for line in lines if line.startswith(b"mnt_id:"))


def check_depth(depth: int, where: str) -> None:
    """Raises FormatError for a tree that is deeper than anybody needs."""
    if depth > DEPTH:
        raise FormatError(f"{printable(where[:200])}...: more than {DEPTH} directories deep")


def attributes(path: str | int) -> list[tuple[str, bytes]]:
    """The extended attributes of a file or directory, by descriptor or `Found.path`, without overlayfs'."""
    try:
        names = posix.listxattr(path)
    except OSError:
        return []  # the file system has none
    found = []
    for name in names:
        if name.startswith(("trusted.", "user.overlay.")):
            continue
        try:
            found.append((name, posix.getxattr(path, name)))
        except OSError:
            continue  # removed since
    return found


def segments(fd: int, size: int) -> Iterator[tuple[bool, int, int]]:
    """The first `size` bytes of an open file as (whether it is data, position, length), holes included."""
    position = 0
    while position < size:
        try:
            data = min(posix.lseek(fd, position, _SEEK_DATA), size)
            end = min(posix.lseek(fd, data, _SEEK_HOLE), size) if data < size else size
        except OSError as error:
            # ENXIO: nothing but a hole is left; EINVAL: this file system does not tell
            hole = error.errno == errno.ENXIO
            yield not hole, position, size - position
            return
        if data > position:
            yield False, position, data - position
        if end > data:
            yield True, data, end - data
        position = max(end, position + 1)
