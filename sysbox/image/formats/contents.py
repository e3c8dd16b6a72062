"""The files of an archive or a directory that holds images, by their names, each read once.

An archive is a stream: its large files become blobs in the store's temporary directory as they pass, with
their digest, and its small ones are kept in memory. Links are names for other files of the archive, as docker
writes them for a layer of two images, and lead nowhere else.
"""

from __future__ import annotations

import _stat
import errno
import posix

from sysbox.base.errors import FormatError, KernelError
from sysbox.base.files import read_file
from sysbox.image import tar
from sysbox.image.reference import is_hex
from sysbox.image.source import CHUNK, stream_source
from sysbox.image.tar import LayerLimits, shown
from sysbox.linux import mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.image.ingest import Blob, Ingest
    from sysbox.image.source import Source
    from sysbox.image.tar import Header

    Tell = Callable[[int], object]

BLOBS = "blobs/sha256/"
_LIMITS = LayerLimits(bytes=256 << 30, entries=100_000)
_RATIO = 100  # a compressed archive may unpack to this many times its size, plus _FLOOR
_FLOOR = 4 << 30  # bytes
_SMALL = 1 << 16  # bytes: a file of at most so many is kept in memory
_MOST_HELD = 64 << 20  # bytes of names, links and small files in memory
_MOST_LINKS = 16  # from a name to its file


class Contents:
    """What a set of files has; `what` names it in messages."""

    what: str
    is_directory = False

    def read(self, name: str, limit: int) -> bytes | None:
        """A small file, None if there is none. Raises FormatError beyond `limit` bytes, KernelError."""
        raise NotImplementedError

    def blob(self, name: str) -> Blob | None:
        """A file as a blob in the store's temporary directory, or in the store; None if there is none.

        Raises FormatError, KernelError.
        """
        raise NotImplementedError

    def missing(self, name: str) -> FormatError:
        """The error for a file that another one names."""
        return FormatError(
            f"{self.what}: has no file {shown(name.encode('utf-8', 'surrogateescape'))}"
        )


class ArchiveContents(Contents):
    """A tar archive, plain or compressed, read to its end from a descriptor."""

    def __init__(self, work: Ingest, fd: int, what: str, tell: Tell) -> None:
        """Raises FormatError for a malformed or hostile archive, Unsupported, KernelError."""
        self.what = what
        self._work = work
        self._tell = tell
        self._small: dict[str, bytes] = {}
        self._blobs: dict[str, Blob] = {}
        self._links: dict[str, str] = {}
        self._held = 0
        source = stream_source(fd, what, _limit_of(fd))
        try:
            for header in tar.headers(source, _LIMITS):
                self._take(source, header)
            source.drain()  # a failure of the decompressor shows at its end
        except OSError as error:
            raise KernelError.of("read", what, error) from None
        except FormatError as error:
            text = error.message
            raise FormatError(
                text if text.startswith(what) else f"{what}: {text}", hint=error.hint
            ) from None
        finally:
            source.close()

    def read(self, name: str, limit: int) -> bytes | None:
        name = self._follow(name)
        data = self._small.get(name)
        if data is None and name in self._blobs:
            blob = self._blobs[name]
            if blob.size > limit:
                raise _too_large(self.what, name, limit)
            data = read_file(blob.path, limit)
        if data is not None and len(data) > limit:
            raise _too_large(self.what, name, limit)
        return data

    def blob(self, name: str) -> Blob | None:
        name = self._follow(name)
        if name in self._small:
            data = self._small.pop(name)
            self._blobs[name] = self._work.pack(lambda write: _all(write, data), self.what)
        return self._blobs.get(name)

    def _follow(self, name: str) -> str:
        for _ in range(_MOST_LINKS):
            if name not in self._links:
                return name
            name = self._links[name]
        raise FormatError(
            f"{self.what}: {shown(name.encode('utf-8', 'surrogateescape'))}: links that lead in a circle"
        )

    def _take(self, source: Source, header: Header) -> None:
        """Keep one entry of the archive."""
        if header.kind == tar.DIRECTORY:
            return
        name = _inner(header.name, b"")
        if name in self._small or name in self._blobs or name in self._links:
            raise FormatError(f"{shown(header.name)}: is twice in the archive")
        self._hold(len(header.name))
        if header.kind in (tar.SYMLINK, tar.HARD_LINK):
            above = header.name.rpartition(b"/")[0] if header.kind == tar.SYMLINK else b""
            self._hold(len(header.link))
            self._links[name] = _inner(header.link, above)
            return
        if header.kind != tar.REGULAR:
            raise FormatError(f"{shown(header.name)}: neither a file, a directory nor a link")
        if header.segments is not None:
            raise FormatError(
                f"{shown(header.name)}: a sparse file", hint="make the archive without --sparse"
            )
        self._keep(source, name, header.size)

    def _keep(self, source: Source, name: str, size: int) -> None:
        if size <= _SMALL:
            self._hold(size)
            self._small[name] = source.take(size) if size else b""
            return

        def fill(write: Callable[[bytes], object]) -> None:
            left = size
            while left:
                piece = source.take(min(left, CHUNK))
                if not piece:
                    raise FormatError(f"{self.what}: the archive is truncated")
                write(piece)
                self._tell(len(piece))
                left -= len(piece)

        self._blobs[name] = self._work.pack(fill, f"{self.what}: {name}", size)

    def _hold(self, count: int) -> None:
        self._held += count
        if self._held > _MOST_HELD:
            raise FormatError(f"has more than {_MOST_HELD} bytes of names and small files")


class DirectoryContents(Contents):
    """A directory, whose files are read when they are asked for; links in it lead nowhere else."""

    is_directory = True

    def __init__(self, work: Ingest, fd: int, what: str, tell: Tell) -> None:
        self.what = what
        self._work = work
        self._fd = fd
        self._tell = tell
        self._blobs: dict[str, Blob] = {}

    def read(self, name: str, limit: int) -> bytes | None:
        fd = self._open(name)
        if fd < 0:
            return None
        try:
            if posix.fstat(fd).st_size > limit:
                raise _too_large(self.what, name, limit)
            data = b""
            while len(data) <= limit and (piece := posix.read(fd, limit + 1 - len(data))):
                data += piece
        except OSError as error:
            raise KernelError.of("read", f"{self.what}/{name}", error) from None
        finally:
            posix.close(fd)
        if len(data) > limit:
            raise _too_large(self.what, name, limit)
        return data

    def blob(self, name: str) -> Blob | None:
        if name not in self._blobs:
            fd = self._open(name)
            if fd < 0:
                return None
            try:
                self._blobs[name] = self._work.spool(fd, f"{self.what}/{name}", tell=self._tell)
            finally:
                posix.close(fd)
        return self._blobs[name]

    def _open(self, name: str) -> int:
        """The descriptor of a regular file, -1 if there is none. Raises FormatError, KernelError."""
        try:
            fd = mount.open_in_root(self._fd, name, posix.O_RDONLY | posix.O_NONBLOCK)
        except KernelError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return -1
            raise
        if not _stat.S_ISREG(posix.fstat(fd).st_mode):
            posix.close(fd)
            raise FormatError(f"{self.what}/{name}: is not a regular file")
        return fd


def open_contents(work: Ingest, fd: int, what: str, tell: Tell) -> Contents:
    """The contents of a directory or of an archive, which is read to its end. Raises as the classes."""
    if _stat.S_ISDIR(posix.fstat(fd).st_mode):
        return DirectoryContents(work, fd, what, tell)
    return ArchiveContents(work, fd, what, tell)


def path_of(digest: str) -> str:
    """Where an OCI layout has a blob; `digest` was checked (OCI image-layout.md)."""
    assert is_hex(digest[7:], 64)
    return BLOBS + digest[7:]


def _limit_of(fd: int) -> int:
    """The bytes that an archive may unpack to; of a pipe the compressed size is not known."""
    status = posix.fstat(fd)
    if not _stat.S_ISREG(status.st_mode):
        return _LIMITS.bytes
    return min(_LIMITS.bytes, _FLOOR + status.st_size * _RATIO)


def _inner(name: bytes, above: bytes) -> str:
    """A name in the archive, seen from the directory `above`, as a relative path without "." and "..".

    Raises FormatError for one that leads out of the archive (CVE-2019-14271 and similar ones).
    """
    if len(name) > _LIMITS.path or b"\0" in name or not name:
        raise FormatError(f"{shown(name)}: an impossible name")
    parts: list[bytes] = []
    whole = name if name.startswith(b"/") or not above else above + b"/" + name
    for part in whole.split(b"/"):
        if part in (b"", b"."):
            continue
        if part != b"..":
            parts.append(part)
        elif parts:
            parts.pop()
        else:
            raise FormatError(f"{shown(name)}: leads out of the archive")
    return b"/".join(parts).decode("utf-8", "surrogateescape")


def _all(write: Callable[[bytes], object], data: bytes) -> None:
    write(data)


def _too_large(what: str, name: str, limit: int) -> FormatError:
    return FormatError(f"{what}: {name}: larger than {limit} bytes")
