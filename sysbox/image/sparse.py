"""Sparse entries of GNU tar: read which parts of a file an archive holds, and write them.

Three formats are in use (GNU tar manual, "Storing Sparse Files"): the old GNU header and further blocks after
it; pax records 0.0 and 0.1; and 1.0, which has the map before the content. The rest of the file is holes.
"""

from __future__ import annotations

import posix

from sysbox.base.errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.image.source import Source
    from sysbox.image.tar import Header

    Segments = tuple[tuple[int, int], ...]

MOST = 1 << 17  # segments of one file
_BLOCK = 512
_DIGITS = 19
_PREFIX = b"GNU.sparse."
REPEATED = (_PREFIX + b"offset", _PREFIX + b"numbytes")  # keys that format 0.0 repeats


def read_gnu_map(
    source: Source, block: bytes, number: Callable[[bytes, str], int]
) -> tuple[int, Segments]:
    """(bytes of the file, its segments) by an old GNU header and the blocks after it. Raises FormatError."""
    size = number(block[483:495], "size")
    segments = _pairs(block[386:482], number)
    more = block[482]
    while more:
        block = source.take(_BLOCK)
        found = _pairs(block[:504], number)
        if not found or len(segments) > MOST:
            raise FormatError("a sparse file's map is truncated, or too long")
        segments += found
        more = block[504]
    return size, tuple(segments)


def _pairs(field: bytes, number: Callable[[bytes, str], int]) -> list[tuple[int, int]]:
    found = []
    for start in range(0, len(field), 24):
        offset, length = field[start : start + 12], field[start + 12 : start + 24]
        if not length.strip(b"\0 "):
            break
        found.append((number(offset, "sparse map"), number(length, "sparse map")))
    return found


def is_pax(extra: dict[bytes, bytes]) -> bool:
    """Whether pax records describe a sparse file."""
    return any(key.startswith(_PREFIX) for key in extra)


def real_name(extra: dict[bytes, bytes], name: bytes) -> bytes:
    """The file's name: the one in the header is a placeholder."""
    return extra.get(_PREFIX + b"name", name)


def keep_map(extra: dict[bytes, bytes], values: list[bytes]) -> None:
    """Keep the records of format 0.0, which repeats two keys, as the map of 0.1."""
    known = extra.get(_PREFIX + b"map")
    extra[_PREFIX + b"map"] = b",".join(values if known is None else (known, *values))


def read_pax_map(source: Source, extra: dict[bytes, bytes]) -> tuple[int, Segments]:
    """(bytes of the file, its segments) by pax records; the map of 1.0 is read from the content."""
    size = extra.get(_PREFIX + b"realsize", extra.get(_PREFIX + b"size", b""))
    if extra.get(_PREFIX + b"major") == b"1":
        numbers = _read_map(source)
    else:
        text = extra.get(_PREFIX + b"map", b"")
        numbers = [_decimal(one) for one in text.split(b",")] if text else []
    if len(numbers) % 2 or len(numbers) > 2 * MOST:
        raise FormatError("a sparse file's map is malformed, or too long")
    return _decimal(size), tuple(zip(numbers[::2], numbers[1::2], strict=True))


def _read_map(source: Source) -> list[int]:
    """The offset and length of each segment: lines of one number, the first their count; in whole blocks."""
    rest = b""
    numbers: list[int] = []
    wanted = 1
    while len(numbers) < wanted:
        block = source.take(_BLOCK)
        if not block:
            raise FormatError("the archive is truncated in a sparse file's map")
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            if len(numbers) < wanted:
                numbers.append(_decimal(line))
                wanted = 1 + 2 * numbers[0]
        if wanted > 1 + 2 * MOST or len(rest) > _BLOCK:
            raise FormatError("a sparse file's map is malformed, or too long")
    return numbers[1:]


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > _DIGITS:
        raise FormatError("a sparse file's map has something else than numbers in it")
    return int(text)


def check(size: int, segments: Segments, stored: int) -> None:
    """Raise FormatError unless the segments are in order, within `size`, and `stored` bytes in all."""
    position = 0
    for offset, length in segments:
        if offset < position or length < 0:
            raise FormatError("a sparse file's map is out of order")
        position = offset + length
    if position > size or sum(length for _, length in segments) != stored:
        raise FormatError("a sparse file's map does not fit its size")


def write(source: Source, fd: int, header: Header) -> None:
    """Write the content of an entry to a new file. Raises FormatError, OSError."""
    if header.segments is None:
        if header.size:
            source.copy(fd, header.size)
        return
    for offset, length in header.segments:
        posix.lseek(fd, offset, 0)
        source.copy(fd, length)
    posix.ftruncate(fd, header.whole)
