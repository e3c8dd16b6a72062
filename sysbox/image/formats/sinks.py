"""Where images are written: a tar archive, which may be a pipe, or a directory.

Archives of the same images are the same byte for byte: owner 0, times 0, entries in a fixed order.
"""

from __future__ import annotations

import errno
import posix

from sysbox.base import files
from sysbox.base.errors import FormatError
from sysbox.image.tarwriter import END, padding, plain_header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Tell = Callable[[int], object]
    Write = Callable[[int, bytes], object]

_PIECE = 1 << 20


class Sink:
    """Takes the files of one or several images."""

    def add(self, name: str, data: bytes) -> None:
        """Write a file from memory. Raises OSError."""
        raise NotImplementedError

    def copy(self, name: str, path: str, size: int) -> None:
        """Write a file of `size` bytes as a copy of another. Raises FormatError if it is shorter, OSError."""
        raise NotImplementedError

    def directory(self, name: str) -> None:
        """Make a directory. Raises OSError."""
        raise NotImplementedError

    def finish(self) -> None:
        """Write what comes after all files. Raises OSError."""
        raise NotImplementedError


class ArchiveSink(Sink):
    """A tar archive on an open file, pipe or socket; `write` writes everything to it, or raises."""

    def __init__(self, fd: int, tell: Tell, write: Write = files.write_all) -> None:
        self._fd = fd
        self._tell = tell
        self._write = write

    def add(self, name: str, data: bytes) -> None:
        header = plain_header(name, len(data))
        self._write(self._fd, header + data + padding(len(data)))

    def copy(self, name: str, path: str, size: int) -> None:
        self._write(self._fd, plain_header(name, size))
        _copy(path, self._fd, size, self._tell, self._write)
        self._write(self._fd, padding(size))

    def directory(self, name: str) -> None:
        self._write(self._fd, plain_header(name, 0, directory=True))

    def finish(self) -> None:
        self._write(self._fd, END)


class DirectorySink(Sink):
    """An empty directory, open as a descriptor."""

    def __init__(self, fd: int, tell: Tell) -> None:
        self._fd = fd
        self._tell = tell

    def add(self, name: str, data: bytes) -> None:
        fd = self._create(name)
        try:
            files.write_all(fd, data)
            posix.fsync(fd)
        finally:
            posix.close(fd)

    def copy(self, name: str, path: str, size: int) -> None:
        fd = self._create(name)
        try:
            _copy(path, fd, size, self._tell, files.write_all)
            posix.fsync(fd)
        finally:
            posix.close(fd)

    def directory(self, name: str) -> None:
        posix.mkdir(name, 0o755, dir_fd=self._fd)

    def finish(self) -> None:
        posix.fsync(self._fd)

    def _create(self, name: str) -> int:
        flags = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC
        return posix.open(name, flags, 0o644, dir_fd=self._fd)


def _copy(path: str, out: int, size: int, tell: Tell, write: Write) -> None:
    """Copy a file to a descriptor. Raises OSError, FormatError if it is shorter than `size` bytes."""
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        position = 0
        while position < size:
            sent = _send(out, fd, position, min(_PIECE, size - position), write)
            if not sent:
                raise FormatError(f"{path}: became shorter while it was read")
            position += sent
            tell(sent)
    finally:
        posix.close(fd)


def _send(out: int, fd: int, position: int, count: int, write: Write) -> int:
    """Copy at most `count` bytes, where possible in the kernel (sendfile(2)). Raises OSError."""
    try:
        return posix.sendfile(out, fd, position, count)
    except OSError as error:
        # EINVAL: a file that is open for appending, or a device; EAGAIN: a pipe that does not block
        if error.errno not in (errno.EINVAL, errno.EAGAIN):
            raise
    data = posix.pread(fd, count, position)
    write(out, data)
    return len(data)
