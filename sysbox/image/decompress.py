"""Decompress a stream in this process: gzip, zstd, xz and bzip2, one member or frame after the other.

A program in a process of its own is not worth it: measured on the layers of Debian, isal is twice as fast as
`pigz -dc`, zlib as fast, and a thread (`source.Ahead`) uses a second core as well as a process does.
"""

from __future__ import annotations

from sysbox.base.errors import FormatError, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

HEAD = 8  # bytes that `compression` needs
_INPUT = 1 << 17  # bytes read at a time
_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
)


def compression(head: bytes) -> str:
    """The compression of a stream by its first bytes: "", gzip, zstd, xz or bzip2."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    # a skippable frame (RFC 8878, 3.1.2), with which some writers of zstd begin
    return "zstd" if head[1:4] == b"\x2a\x4d\x18" and head[0] >> 4 == 5 else ""


def members(read: Callable[[int], bytes], kind: str, what: str, head: bytes = b"") -> Members:
    """A decompressor of `kind` over `read`; `head` was read already.

    Raises Unsupported for zstd where no module can decompress it.
    """
    if kind == "gzip":
        return Members(read, what, *_gzip(), head)
    if kind == "zstd":
        return Members(read, what, *_zstd(what), head)
    if kind == "xz":
        import lzma

        return Members(read, what, lzma.LZMADecompressor, lzma.LZMAError, head)
    import bz2

    return Members(read, what, bz2.BZ2Decompressor, OSError, head)


def _gzip() -> tuple[Callable[[], Any], type[Exception]]:
    try:
        from isal import isal_zlib
    except ImportError:
        import zlib

        return lambda: zlib.decompressobj(31), zlib.error
    failed: Any = isal_zlib.error  # its stub says that this is an instance
    return lambda: isal_zlib.decompressobj(31), failed


def _zstd(what: str) -> tuple[Callable[[], Any], type[Exception]]:
    """A frame may ask for a window of at most 128 MiB, the library's default limit."""
    import sys

    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        raise Unsupported(
            f"{what}: is compressed with zstd, which Python before 3.14 cannot read by itself",
            hint="install the package backports.zstd, or decompress it first: zstd -dc FILE | ...",
        ) from None
    return zstd.ZstdDecompressor, zstd.ZstdError


class Members:
    """Decompresses one member after the other, at most as many bytes at a time as the caller reads."""

    def __init__(
        self,
        read: Callable[[int], bytes],
        what: str,
        new: Callable[[], Any],
        error: type[Exception],
        head: bytes,
    ) -> None:
        self._read = read
        self._what = what
        self._new = new
        self._error = error
        self._engine: Any = None
        self._input = head
        self._begun = False

    def read(self, count: int) -> bytes:
        """At most `count` bytes of output, b"" at the end; raises FormatError, and as `read` does."""
        while True:
            ended = False
            if not self._input and getattr(self._engine, "needs_input", True):
                self._input = self._read(_INPUT)
                ended = not self._input
            if self._engine is None and ended:
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
            if ended and self._engine is not None:
                raise FormatError(f"{self._what}: the compressed stream is truncated")

    def _padding(self) -> None:
        """Skip zeros after the stream, which fill the last block of a tape or disk; refuse anything else."""
        while self._input:
            if self._input.count(0) != len(self._input):
                raise FormatError(f"{self._what}: there is something behind the compressed stream")
            self._input = self._read(_INPUT)

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
            # zlib returns the input that it did not need; the others keep it and clear `needs_input`
            self._input = getattr(engine, "unconsumed_tail", b"")
        return output
