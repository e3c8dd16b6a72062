"""The image that `make bench-pull` pulls: the same bytes each time, with files as a Debian system has them.

Six layers, the largest at the bottom; 59 000 files, half of them below 4 KiB and a few of many megabytes.
Their content compresses to a third, as that of a system does.
"""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Iterator

FILES = (28_500, 13_500, 8_000, 5_000, 3_000, 1_000)  # of each layer, lowest first
_POOL = 1 << 23  # bytes
_MEDIAN = 8.3  # of the logarithm of a file's size
_SPREAD = 1.85
_LARGEST = 30 << 20
_PER_DIRECTORY = 12


def pool(seed: int) -> bytes:
    """Bytes that compress about as well as a mixture of programs and text."""
    chance = random.Random(seed)  # noqa: S311
    words = [chance.randbytes(chance.randint(3, 16)) for _ in range(800)]
    pieces = []
    size = 0
    while size < _POOL:
        word = chance.choice(words) if chance.random() < 0.97 else chance.randbytes(8)
        pieces.append(word)
        size += len(word)
    return b"".join(pieces)[:_POOL]


def layer(number: int, files: int, source: bytes) -> bytes:
    """A tar archive."""
    chance = random.Random(number)  # noqa: S311
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for index in range(files):
            place = f"usr/share/part-{number}/{index // 400}/{index // _PER_DIRECTORY}"
            if index % _PER_DIRECTORY == 0:
                archive.addfile(_member(place, tarfile.DIRTYPE, 0o755))
            if chance.random() < 0.07:
                link = _member(f"{place}/link-{index}", tarfile.SYMTYPE, 0o777)
                link.linkname = f"file-{index}"
                archive.addfile(link)
                continue
            size = min(int(chance.lognormvariate(_MEDIAN, _SPREAD)), _LARGEST)
            file = _member(f"{place}/file-{index}", tarfile.REGTYPE, 0o644)
            file.size = size
            archive.addfile(file, _content(chance, source, size))
    return buffer.getvalue()


def _member(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.mode = mode
    member.mtime = 1_700_000_000
    return member


def _content(chance: random.Random, source: bytes, size: int) -> io.BytesIO:
    """Pieces of the source, so that no two files are alike."""
    pieces = []
    while size > 0:
        start = chance.randrange(len(source))
        piece = source[start : start + min(size, 1 << 16)]
        pieces.append(piece)
        size -= len(piece)
    return io.BytesIO(b"".join(pieces))


def archives() -> Iterator[bytes]:
    """The layers, lowest first."""
    source = pool(0)
    for number, files in enumerate(FILES):
        yield layer(number, files, source)


def changed() -> bytes:
    """Another topmost layer, for the second version of the image."""
    return layer(100, FILES[-1], pool(0))
