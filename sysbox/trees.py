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

from sysbox.errors import FormatError, KernelError
from sysbox.visible import printable as printable

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
        """A descriptor to read the file or directory from. Raises OSError."""
        flags = _PLAIN | (posix.O_DIRECTORY if self.is_directory else 0)
        return posix.open(self.path, flags)

    @property
    def path(self) -> str:
        """A path that leads to this very inode, whatever becomes of its name."""
        return f"/proc/self/fd/{self.fd}"

    def link_text(self) -> str:
        """Where a symbolic link leads. Raises OSError."""
        return posix.readlink("", dir_fd=self.fd)

    def close(self) -> None:
        posix.close(self.fd)


def look(directory: int, name: str) -> Found | None:
    """An entry of an open directory, itself and not where it leads; None if it is gone. Raises OSError."""
    try:
        return Found(name, posix.open(name, _HANDLE, dir_fd=directory))
    except FileNotFoundError:
        return None


def entries(directory: int, where: str = "") -> Iterator[Found]:
    """What is in an open directory, sorted by name; each is closed when the next is asked for.

    `where` names the directory in messages. Raises OSError, KernelError for a file system with impossible
    names.
    """
    for name in sorted(posix.listdir(directory)):
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

    One descriptor goes down and, by "..", up again. Raises OSError: ESTALE when somebody has moved a
    directory meanwhile.
    """
    fd = posix.open(".", DIRECTORY, dir_fd=directory)
    above: list[tuple[tuple[int, int], list[str]]] = []  # identity, names to do
    try:
        waiting = posix.listdir(fd)
        while waiting or above:
            if waiting:
                found = look(fd, waiting.pop())
                if found is None:
                    continue  # removed since
                try:
                    yield found
                    if not found.is_directory:
                        continue
                    inner = found.open()
                finally:
                    found.close()
                above.append((identity(fd), waiting))
                waiting = posix.listdir(inner)
            else:
                inner = posix.open("..", DIRECTORY, dir_fd=fd)
                known, waiting = above.pop()
                if identity(inner) != known:
                    posix.close(inner)
                    raise OSError(errno.ESTALE, posix.strerror(errno.ESTALE))
            posix.close(fd)
            fd = inner
    finally:
        posix.close(fd)


def identity(fd: int) -> tuple[int, int]:
    """(device, inode) of an open file."""
    status = posix.fstat(fd)
    return status.st_dev, status.st_ino


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
