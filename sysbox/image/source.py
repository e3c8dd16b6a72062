"""Where the bytes of a layer come from, a mapped file or a decompressor, and the digest of what was read.

An uncompressed blob is mapped, so that file contents go from the page cache into write(2) without a copy
here. A compressed one runs through pigz, zstd or xz in a process of its own where they are installed
(measured: half of zlib's time), else through zlib, bz2 or lzma in this one.
"""

from __future__ import annotations

import posix

from sysbox.base import files
from sysbox.base.errors import FormatError, KernelError, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import Popen
    from typing import Any

CHUNK = 1 << 20
_HOLE = 1 << 16
_ZEROS = bytes(_HOLE)
_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
)
# the fastest first; where none is installed, this process decompresses
_PROGRAMS = {
    "gzip": (("pigz", "-dcv"),),  # -v: else the exit status ignores garbage after the stream
    "zstd": (("zstd", "-dcq"),),
    "xz": (("xz", "-dcq"),),
    "bzip2": (("lbzip2", "-dc"), ("bzip2", "-dc")),
}
_DIRECTORIES = ("/usr/bin", "/bin", "/usr/local/bin")


class Source:
    """A stream of bytes, read once from the front; `limit` bounds its bytes, against decompression bombs."""

    def __init__(
        self, read: Callable[[int], bytes], what: str, limit: int, close: Callable[[], None]
    ) -> None:
        from hashlib import sha256

        self.position = 0
        self._what = what
        self._limit = limit
        self._read = read
        self._close = close
        self._hash = sha256()
        self._held = memoryview(b"")
        self._seen = 0

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
        """End the decompressor and release its buffers; may be called twice."""
        self._close()

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
            chunk = self._read(CHUNK)
            if not chunk:
                break
            self._hash.update(chunk)
            self._seen += len(chunk)
            if self._seen > self._limit:
                raise FormatError(f"{self._what}: unpacks to more than {self._limit} bytes")
            pieces.append(memoryview(chunk))
            have += len(chunk)
        self._held = pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))


class MappedSource(Source):
    """An uncompressed file whose digest is already known."""

    def __init__(self, fd: int, size: int, what: str, limit: int, digest: str) -> None:
        import mmap

        super().__init__(lambda _: b"", what, limit, self._unmap)
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

    def skip_to(self, position: int) -> None:
        """As Source.skip_to."""
        if position > self._size:
            raise FormatError(f"{self._what}: the archive is truncated")
        self.position = max(self.position, position)

    def drain(self) -> str:
        """As Source.drain; the digest was given."""
        self.position = self._size
        return self._digest

    def _unmap(self) -> None:
        self._held.release()
        self._all.release()
        if self._map is not None:
            self._map.close()
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


def compression(head: bytes) -> str:
    """The compression of a file by its first bytes: "", gzip, zstd, xz or bzip2."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    return ""


def open_source(fd: int, kind: str, what: str, limit: int, digest: str) -> Source:
    """A source over a whole regular file of compression `kind`; the caller closes the descriptor.

    `digest` is that of the file itself. Raises Unsupported if no installed program can decompress it.
    """
    if not kind:
        return MappedSource(fd, posix.fstat(fd).st_size, what, limit, digest)
    posix.lseek(fd, 0, 0)
    for program, *options in _PROGRAMS[kind]:
        path = find_program(program)
        if path:
            return _through_process([path, *options], fd, what, limit)
    return Source(_in_process(fd, kind, what).read, what, limit, lambda: None)


def find_program(name: str) -> str:
    """The path of an installed program, "" if there is none; PATH is not searched."""
    for directory in _DIRECTORIES:
        path = f"{directory}/{name}"
        if posix.access(path, posix.X_OK):
            return path
    return ""


def _through_process(argv: list[str], fd: int, what: str, limit: int) -> Source:
    import fcntl
    import subprocess

    process = subprocess.Popen(
        argv, stdin=fd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={}, close_fds=True
    )
    assert process.stdout is not None
    out = process.stdout.fileno()
    try:
        fcntl.fcntl(out, fcntl.F_SETPIPE_SZ, CHUNK)
    except OSError:
        pass  # ignoring: the user's pipe quota is used up, and a small pipe is only slower

    def read(count: int) -> bytes:
        chunk = posix.read(out, count)
        if not chunk:
            _reap(process, argv[0], what, lambda: _is_padded(fd, what))
        return chunk

    return Source(read, what, limit, lambda: _end(process))


def _reap(process: Popen[bytes], program: str, what: str, is_padded: Callable[[], bool]) -> None:
    """Wait for a decompressor whose output has ended: only its exit status tells of garbage after the stream
    or of a bad checksum. Raises FormatError.
    """
    assert process.stderr is not None
    reason = process.stderr.read(4096).decode("utf-8", "replace").strip().rpartition("\n")[2]
    if process.wait() != 0 and not ("trailing" in reason and is_padded()):
        name = program.rpartition("/")[2]
        raise FormatError(f"{what}: cannot be decompressed: {reason or name}")


def _is_padded(fd: int, what: str) -> bool:
    """Whether the junk that pigz reports is zeros. Decompresses again: pigz does not say where it begins."""
    posix.lseek(fd, 0, 0)
    try:
        members = _in_process(fd, "gzip", what)
        while members.read(CHUNK):
            pass
    except FormatError:
        return False
    return True


def _end(process: Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _in_process(fd: int, kind: str, what: str, head: bytes = b"") -> _Members:
    if kind == "gzip":
        import zlib

        return _Members(fd, what, lambda: zlib.decompressobj(31), zlib.error, head)
    if kind == "bzip2":
        import bz2

        return _Members(fd, what, bz2.BZ2Decompressor, OSError, head)
    if kind == "xz":
        import lzma

        return _Members(fd, what, lzma.LZMADecompressor, lzma.LZMAError, head)
    raise Unsupported(
        f"{what}: is compressed with {kind}, which needs the program {kind}",
        hint="install it: apt-get install zstd",
    )


class _Members:
    """Decompresses one member after the other, at most as many bytes at a time as the caller reads."""

    def __init__(
        self, fd: int, what: str, new: Callable[[], Any], error: type[Exception], head: bytes
    ) -> None:
        self._fd = fd
        self._what = what
        self._new = new
        self._error = error
        self._engine: Any = None
        self._input = head  # the bytes that were read from `fd` already
        self._begun = False

    def read(self, count: int) -> bytes:
        """At most `count` bytes of output, b"" at the end; raises FormatError."""
        while True:
            if not self._input and getattr(self._engine, "needs_input", True):
                self._input = self._load()
                if not self._input:
                    if self._engine is not None:
                        raise FormatError(f"{self._what}: the compressed stream is truncated")
                    return b""
            if self._engine is None and self._begun and self._input[0] == 0:
                self._padding()
                return b""
            if self._engine is None:
                self._begun = True
                self._engine = self._new()
            output = self._step(self._engine, count)
            if output:
                return output

    def _padding(self) -> None:
        """Skip zeros after the stream, which fill the last block of a tape or disk; refuse anything else."""
        while self._input:
            if self._input.count(0) != len(self._input):
                raise FormatError(f"{self._what}: there is something behind the compressed stream")
            self._input = self._load()

    def _load(self) -> bytes:
        try:
            return posix.read(self._fd, 1 << 17)
        except OSError as error:
            raise KernelError.of("read", self._what, error) from None

    def _step(self, engine: Any, count: int) -> bytes:
        data, self._input = self._input, b""
        try:
            output: bytes = engine.decompress(data, count)
        except (self._error, EOFError) as error:
            raise FormatError(f"{self._what}: cannot be decompressed: {error}") from None
        if engine.eof:
            self._input = engine.unused_data
            self._engine = None
        else:
            # zlib returns the input that it did not need; bz2 and lzma keep it and clear `needs_input`
            self._input = getattr(engine, "unconsumed_tail", b"")
        return output


def stream_source(fd: int, what: str, limit: int) -> Source:
    """A source over a pipe, a socket or a file that is read once, plain or compressed with gzip, bzip2 or xz.

    This process decompresses it, never a program. Raises Unsupported for zstd, OSError.
    """
    head = b""
    while len(head) < 8 and (piece := posix.read(fd, 8 - len(head))):
        head += piece
    kind = compression(head)
    if kind == "zstd":
        raise Unsupported(
            f"{what}: is compressed with zstd", hint="decompress it first: zstd -dc FILE | ..."
        )
    if kind:
        return Source(_in_process(fd, kind, what, head).read, what, limit, lambda: None)
    waiting = [head]
    return Source(
        lambda count: waiting.pop() if waiting else posix.read(fd, count), what, limit, lambda: None
    )
