"""What GNU tar makes of sparse files, and archives that fill the last block of a tape."""

from __future__ import annotations

import gzip
import os
import subprocess
from pathlib import Path

import pytest
from forked import needs_root
from layers import builder

from sysbox.base.errors import FormatError
from sysbox.content.extract import Extractor
from sysbox.image import layer
from sysbox.image.source import MappedSource, Source, open_source, stream_source
from sysbox.image.tar import LayerLimits

FORMATS = (
    ("--format=gnu",),
    ("--format=pax", "--sparse-version=0.0"),
    ("--format=pax", "--sparse-version=0.1"),
    ("--format=pax", "--sparse-version=1.0"),
)
NAMES = ("few", "many", "hole", "begins-with-a-hole" * 10)


@pytest.fixture(autouse=True)
def root() -> None:
    needs_root()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Sparse files: with few parts, with more than one header holds, with none at all."""
    top = tmp_path / "top"
    top.mkdir()
    for name, parts in zip(NAMES, (3, 70, 0, 1), strict=True):
        with (top / name).open("wb") as file:
            for number in range(parts):
                file.seek((number + 1) << 20)
                file.write(b"part %d\n" % number * 1000)
            file.truncate((parts + 3) << 20)
    return top


def pack(top: Path, words: tuple[str, ...]) -> bytes:
    done = subprocess.run(
        ["tar", "-C", top, *words, "-Sc", *NAMES], capture_output=True, check=True
    )
    return done.stdout


def unpacked(data: bytes, copy: Path, *, as_layer: bool) -> None:
    copy.mkdir()
    if as_layer:
        fd, target = os.memfd_create("layer"), os.open(copy, os.O_RDONLY)
        os.write(fd, data)
        source = MappedSource(fd, len(data), "the layer", 1 << 40, "sha256:mapped")
        layer.unpack(source, target, LayerLimits())
        source.close()
        os.close(fd)
    else:
        target = os.open(copy, os.O_PATH)
        Extractor(target, "/").run(stream(data))
    os.close(target)


def stream(data: bytes) -> Source:
    fd = os.memfd_create("stream")
    os.write(fd, data)
    os.lseek(fd, 0, 0)
    return stream_source(fd, "the stream", 1 << 40)


@pytest.mark.parametrize("as_layer", [True, False])
@pytest.mark.parametrize("words", FORMATS)
def test_expanded(tmp_path: Path, tree: Path, words: tuple[str, ...], as_layer: bool) -> None:
    data = pack(tree, words)
    assert len(data) < 2 << 20, "the archive is not sparse"
    unpacked(data, tmp_path / "copy", as_layer=as_layer)
    for name in NAMES:
        one, other = tree / name, tmp_path / "copy" / name
        assert one.read_bytes() == other.read_bytes()
        assert other.stat().st_blocks <= one.stat().st_blocks + 256 * 70
        assert other.stat().st_blocks * 512 < other.stat().st_size or name == "few"


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("kind", ["stream", "file"])
def test_a_compressed_archive_padded_with_zeros(kind: str, members: int) -> None:
    data = builder.archive(builder.entry("file", b"content")) * members
    piece = len(data) // members
    padded = b"".join(
        gzip.compress(data[start : start + piece]) for start in range(0, len(data), piece)
    ) + bytes(9000)
    for blob, good in ((padded, True), (padded + b"x", False)):
        fd = os.memfd_create("blob")
        os.write(fd, blob)
        os.lseek(fd, 0, 0)
        if kind == "stream":
            source = stream_source(fd, "the archive", 1 << 30)
        else:
            source = open_source(fd, "gzip", "the archive", 1 << 30, "sha256:x")
        try:
            if good:
                assert source.take(len(data)) == data
                source.drain()
            else:
                with pytest.raises(FormatError):
                    source.drain()
        finally:
            source.close()
            os.close(fd)


def test_only_zeros_are_no_compressed_stream() -> None:
    with pytest.raises(FormatError):
        stream(b"\x1f\x8b" + bytes(100)).drain()
