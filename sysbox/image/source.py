"""Where the bytes of a layer come from, a mapped file or a stream, and the digest of what was read.

An uncompressed blob is mapped, so that file contents go from the page cache into write(2) without a copy
here. A stream, such as a socket or a compressed blob, is read and decompressed in this process, if asked for
by a thread, while the caller works on what was read before.
"""

from __future__ import annotations

import posix

from sysbox.base import files
from sysbox.base.errors import FormatError, KernelError
from sysbox.image.decompress import HEAD, compression, members

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK = 1 << 20
_HOLE = 1 << 16
_ZEROS = bytes(_HOLE)
_AHEAD = 2  # chunks


class Source:
    """A stream of bytes, read once from the front; `limit` bounds its bytes, against decompression bombs.

    With `ahead` a thread reads: `read` must then be able to run beside the caller.
    """

    def __init__(
        self, read: Callable[[int], bytes], what: str, limit: int, *, ahead: bool = False
    ) -> None:
        from hashlib import sha256

        self.position = 0
        self.compression = ""
        self._what = what
        self._limit = limit
        self._read = read
        self._hash = sha256()
        self._held = memoryview(b"")
        self._seen = 0
        self._ahead = Ahead(self._load) if ahead else None
        self._more = self._ahead.next if self._ahead else self._load

    def take(self, count: int) -> bytes:
        """Exactly `count` bytes, or none at the end of the stream; raises FormatError if fewer are left."""
        if len(self._held) < count:
            self._fill(count)
            if not len(self._held):
                return b""
            if len(self._held) < count:
                raise FormatError(f"{self._what}: the archive is truncated")
        data = bytes(self._held[:count])
        self._held = self._held[count:]
        self.position += count
        return data

    def copy(self, fd: int, count: int) -> None:
        """Write the next `count` bytes to a file; raises FormatError if there are fewer, OSError.

        Long runs of zeros become holes.
        """
        hole = False
        while count:
            piece = self._next(count)
            hole = write_sparse(fd, piece)
            count -= len(piece)
        if hole:
            posix.ftruncate(fd, posix.lseek(fd, 0, 1))

    def view(self) -> memoryview:
        """The next bytes, as many as are here already; until the next call of another method."""
        return self._held[:]

    def skip_to(self, position: int) -> None:
        """Skip the bytes before `position`; raises FormatError if the stream ends before it."""
        while self.position < position:
            self._next(position - self.position)

    def save(self, fd: int) -> str:
        """Write the rest to a file; returns the digest of everything read. Raises FormatError, OSError."""
        while True:
            if not len(self._held):
                self._fill(1)
                if not len(self._held):
                    return self.drain()
            files.write_all(fd, self._next(CHUNK))

    def drain(self) -> str:
        """Read to the end; returns the sha256 digest of everything read. Raises FormatError."""
        while True:
            self.position += len(self._held)
            self._held = memoryview(b"")
            self._fill(1)
            if not len(self._held):
                break
        return f"sha256:{self._hash.hexdigest()}"

    def close(self) -> None:
        """End the thread and release the buffers; may be called twice."""
        if self._ahead:
            self._ahead.close()

    def _next(self, count: int) -> memoryview:
        if not len(self._held):
            self._fill(1)
            if not len(self._held):
                raise FormatError(f"{self._what}: the archive is truncated")
        piece = self._held[:count]
        self._held = self._held[len(piece) :]
        self.position += len(piece)
        return piece

    def _fill(self, count: int) -> None:
        pieces = [self._held] if len(self._held) else []
        have = len(self._held)
        while have < count:
            chunk = self._more()
            if not chunk:
                break
            pieces.append(memoryview(chunk))
            have += len(chunk)
        self._held = pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))

    def _load(self) -> bytes:
        chunk = self._read(CHUNK)
        self._hash.update(chunk)
        self._seen += len(chunk)
        if self._seen > self._limit:
            raise FormatError(f"{self._what}: unpacks to more than {self._limit} bytes")
        return chunk


class Ahead:
    """A thread that calls `read` again and again, a few results ahead of the caller, until it returns b"".

    Reading, hashing and decompression leave the interpreter to the caller meanwhile.
    """

    def __init__(self, read: Callable[[], bytes]) -> None:
        from queue import Queue
        from threading import Thread

        self._read = read
        self._results: Queue[bytes | BaseException] = Queue(_AHEAD)
        self._last: bytes | BaseException = b"none yet"
        self._closed = False
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def next(self) -> bytes:
        """The next result, b"" at the end; raises what `read` raised."""
        if isinstance(self._last, bytes) and self._last:
            self._last = self._results.get()
        if isinstance(self._last, BaseException):
            raise self._last
        return self._last

    def close(self) -> None:
        """End the thread, after the read that it is at."""
        self._closed = True
        while self._thread.is_alive():
            while not self._results.empty():
                self._results.get()  # the thread may wait for room
            self._thread.join(0.01)

    def _run(self) -> None:
        more = True
        while more and not self._closed:
            try:
                result = self._read()
            except BaseException as error:  # noqa: BLE001 (the caller gets it)
                self._results.put(error)
                return
            self._results.put(result)
            more = bool(result)


class MappedSource(Source):
    """An uncompressed file whose digest is already known."""

    def __init__(self, fd: int, size: int, what: str, limit: int, digest: str) -> None:
        import mmap

        super().__init__(lambda _: b"", what, limit)
        if size > limit:
            raise FormatError(f"{what}: is larger than {limit} bytes")
        self._digest = digest
        self._size = size
        self._map = mmap.mmap(fd, size, mmap.MAP_PRIVATE, mmap.PROT_READ) if size else None
        if self._map is not None:
            self._map.madvise(mmap.MADV_SEQUENTIAL)
            self._held = memoryview(self._map)
        self._all = self._held

    def take(self, count: int) -> bytes:
        """As Source.take, straight from the map."""
        start = self.position
        if start + count > self._size:
            if start == self._size:
                return b""
            raise FormatError(f"{self._what}: the archive is truncated")
        self.position = start + count
        return self._map[start : self.position]  # type: ignore[index]

    def copy(self, fd: int, count: int) -> None:
        """As Source.copy, straight from the map."""
        end = self.position + count
        if end > self._size:
            raise FormatError(f"{self._what}: the archive is truncated")
        if count and write_sparse(fd, self._all[self.position : end]):
            posix.ftruncate(fd, posix.lseek(fd, 0, 1))
        self.position = end

    def view(self) -> memoryview:
        """As Source.view."""
        return self._all[self.position :]

    def skip_to(self, position: int) -> None:
        """As Source.skip_to."""
        if position > self._size:
            raise FormatError(f"{self._what}: the archive is truncated")
        self.position = max(self.position, position)

    def drain(self) -> str:
        """As Source.drain; the digest was given."""
        self.position = self._size
        return self._digest

    def close(self) -> None:
        """As Source.close."""
        self._held.release()
        self._all.release()
        if self._map is not None:
            try:
                self._map.close()
            except BufferError:
                pass  # ignoring: an error on its way holds a piece of the map; both go together
            self._map = None
            self._size = self.position = 0


def write_sparse(fd: int, data: memoryview) -> bool:
    """Write to a new file, with holes for blocks of 64 KiB of zeros; whether it ends with a hole."""
    if len(data) < _HOLE:
        files.write_all(fd, data)
        return False
    start = position = 0  # of the data not written yet; of the block that is looked at
    while position + _HOLE <= len(data):
        block = data[position : position + _HOLE]
        if not block[0] and not block[-1] and block == _ZEROS:
            if start < position:
                files.write_all(fd, data[start:position])
            posix.lseek(fd, _HOLE, 1)
            start = position + _HOLE
        position += _HOLE
    if start < len(data):
        files.write_all(fd, data[start:])
    return start == len(data)


def open_source(fd: int, kind: str, what: str, limit: int, digest: str) -> Source:
    """A source over a whole regular file of compression `kind`; the caller closes the descriptor.

    `digest` is that of the file itself. Raises Unsupported if it cannot be decompressed here.
    """
    if not kind:
        return MappedSource(fd, posix.fstat(fd).st_size, what, limit, digest)
    posix.lseek(fd, 0, 0)
    engine = members(_reader(fd, what), kind, what)
    source = Source(engine.read, what, limit, ahead=True)
    source.compression = kind
    return source


def open_stream(
    read: Callable[[int], bytes], what: str, limit: Callable[[str], int], *, ahead: bool = False
) -> Source:
    """A source over `read`, which returns at most as many bytes as it is asked for, and b"" at the end.

    Its first bytes tell whether it is compressed; `limit` returns the most bytes that a stream of a
    compression may unpack to. `ahead` is as for Source. Raises Unsupported, and as `read` does.
    """
    head = b""
    while len(head) < HEAD and (piece := read(HEAD - len(head))):
        head += piece
    kind = compression(head)
    if kind:
        source = Source(members(read, kind, what, head).read, what, limit(kind), ahead=ahead)
        source.compression = kind
        return source
    waiting = [head]
    return Source(
        lambda count: waiting.pop() if waiting else read(count), what, limit(kind), ahead=ahead
    )


def stream_source(fd: int, what: str, limit: int) -> Source:
    """A source over a pipe, a socket or a file that is read once, plain or compressed.

    Raises Unsupported if it cannot be decompressed here, KernelError.
    """
    return open_stream(_reader(fd, what), what, lambda _: limit)


def _reader(fd: int, what: str) -> Callable[[int], bytes]:
    def read(count: int) -> bytes:
        try:
            return posix.read(fd, count)
        except OSError as error:
            raise KernelError.of("read", what, error) from None

    return read
