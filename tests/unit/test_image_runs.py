"""What src/_layer.c makes of a layer is what layer.py alone makes of it, and it takes nothing that is odd."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forked import in_child, needs_root
from layers import corpus, fixtures
from layers.builder import BLOCK, GNU, archive, binary, directory, entry, hard_link, pax, symlink
from test_image_fuzz import damaged
from test_image_layer import sample

from sysbox.base.errors import FormatError, KernelError, SysboxError
from sysbox.image import layer
from sysbox.image.source import MappedSource, Source
from sysbox.image.tar import LayerLimits
from sysbox.linux import _layer, _sys
from sysbox.linux.namespace import CLONE_NEWNS

LIMITS = LayerLimits(bytes=corpus.BYTES, entries=corpus.ENTRIES)
ROUNDS = int(os.environ.get("SYSBOX_FUZZ_ROUNDS", "400"))
BASE = Path("/dev/shm" if os.path.isdir("/dev/shm") else "/tmp", f"sbxr{os.getpid()}")
MANY = 1 << 40
RECENT = 1_750_000_000 * 1_000_000_000  # times that depend on when a test ran
# some are megabytes long, and take a third of a second together
REFUSED = dict(corpus.refused("/nowhere/decoy"))
CONFINED = dict(corpus.confined("/nowhere/decoy"))


class Counted:
    """The function in C, and how many entries it made; or none, if it is off."""

    def __init__(self, *, on: bool = True) -> None:
        self.on = on
        self.made = 0

    def files(self, *arguments: object) -> tuple[int, int, int]:
        if not self.on:
            return 0, 0, 0
        result = _layer.files(*arguments)
        self.made += result[1]
        return result


@pytest.fixture
def base() -> Iterator[Path]:
    needs_root()
    BASE.mkdir(mode=0o700)
    yield BASE
    shutil.rmtree(BASE)


def outcome(
    data: bytes, base: Path, monkeypatch: pytest.MonkeyPatch, *, on: bool, step: int = 0
) -> tuple[object, int]:
    """What a layer becomes, or its error, without what depends on the clock; and how many C made."""
    counted = Counted(on=on)
    monkeypatch.setattr(layer, "_layer", counted)
    out = base / "out"
    out.mkdir()
    fd, root = os.memfd_create("x"), os.open(out, os.O_RDONLY)
    os.write(fd, data)
    if step:
        chunks = [data[at : at + step] for at in range(0, len(data), step)]
        source = Source(lambda _: chunks.pop(0) if chunks else b"", "x", MANY)
    else:
        source = MappedSource(fd, len(data), "x", LIMITS.bytes, "sha256:x")
    try:
        result: object = layer.unpack(source, root, LIMITS)[1]
    except (FormatError, KernelError) as error:
        result = error.message
    finally:
        source.close()
        os.close(fd)
        os.close(root)
    found = {
        path: (values[:3], "now" if values[3] > RECENT else values[3], values[4:])
        for path, values in fixtures.tree(out).items()
    }
    shutil.rmtree(out)
    return (result, found), counted.made


def same(data: bytes, base: Path, monkeypatch: pytest.MonkeyPatch, step: int = 0) -> int:
    expected, none = outcome(data, base, monkeypatch, on=False, step=step)
    found, made = outcome(data, base, monkeypatch, on=True, step=step)
    assert not none
    assert found == expected
    return made


@pytest.mark.parametrize("form", ["gnu", "pax", "ustar", "v7"])
@pytest.mark.parametrize("step", [0, 1000, 100_000])
def test_a_tree(tmp_path: Path, base: Path, monkeypatch: Any, form: str, step: int) -> None:
    tree = sample(tmp_path)
    deep = (
        tree
        / "a-rather-long-name-of-a-directory"
        / "and-another-one-in-it-just-as-long"
        / ("d" * 60)
    )
    deep.mkdir(parents=True)
    for place in (deep, tree / "usr"):
        for index in range(30):
            (place / f"file-{index}").write_bytes(bytes([index]) * index * 77)
            (place / f"link-{index}").symlink_to("x" * (index + 1))
    (deep / "holes").write_bytes(b"x" * 70_000 + bytes(200_000) + b"y" + bytes(65_536 * 2))
    (deep / "all-holes").write_bytes(bytes(65_536 * 3))
    packed = subprocess.run(
        ["tar", "-C", tree, f"--format={form}", "--numeric-owner", "-c", "."],
        capture_output=True, check=False,
    ).stdout  # fmt: skip
    made = same(packed, base, monkeypatch, step)
    # GNU has no prefix for long names, and this tar writes all times of a pax archive as records
    assert made >= (0 if step == 1000 else {"ustar": 120, "gnu": 60, "v7": 60, "pax": 0}[form])


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, base: Path, monkeypatch: Any) -> None:
    """Each alone, and behind entries that C takes."""
    data = REFUSED[name]
    same(data, base, monkeypatch, 1 << 20)
    same(
        entry("first") + directory("d") + entry("d/x", b"x" * 600) + data,
        base,
        monkeypatch,
        1 << 20,
    )


@pytest.mark.parametrize("name", CONFINED)
def test_confined(name: str, base: Path, monkeypatch: Any) -> None:
    same(entry("first") + CONFINED[name], base, monkeypatch)


def test_damaged(base: Path, monkeypatch: Any) -> None:
    good = archive(
        directory("d", 0o2755), *(entry(f"d/f{index}", b"x" * 400 * index) for index in range(8)),
        symlink("d/l", "f1"), entry("d/s", b"y", mode=0o4755, uid=5), hard_link("d/h", "d/f1"),
        entry("d/.wh.gone"), entry("top"), symlink("link", "d"), entry("link/through"), entry("link/more"),
        pax(("mtime", "1.5")), entry("p"), entry("q", uid=7, gid=8), entry("d/f1", b"again"), entry("d/z"),
    )  # fmt: skip
    for number in range(ROUNDS):
        same(damaged(good, random.Random(number)), base, monkeypatch)


ODD = {
    "directory": directory("d/x"),
    "hard link": hard_link("d/x", "d/y"),
    "device": entry("d/x", kind=b"3", device=(1, 3)),
    "contiguous": entry("d/x", kind=b"7"),
    "sparse": entry("d/x", kind=b"S", magic=GNU),
    "extended": pax(("path", "d/x")),
    "whiteout": entry("d/.wh.x"),
    "opaque": entry("d/.wh..wh..opq"),
    "elsewhere": entry("e/x"),
    "above": entry("x"),
    "below": entry("d/x/y"),
    "a directory by its slash": entry("d/x/"),
    "doubled slash": entry("d//x"),
    "the directory": entry("d/"),
    "dot": entry("d/."),
    "dot dot": entry("d/.."),
    "no name": entry(""),
    "checksum": entry("d/x", checksum=b"000000\0 "),
    "no checksum": entry("d/x", checksum=b"\0" * 8),
    "binary uid": entry("d/x", uid=binary(5, 8)),
    "negative mtime": entry("d/x", mtime=binary(-5, 12)),
    "late mtime": entry("d/x", mtime=b"777777777777"),
    "not octal": entry("d/x", mode=b"0000648\0"),
    "two numbers": entry("d/x", gid=b"1 1\0\0\0\0\0"),
    "no number": entry("d/x", size=b" " * 12),
    "link to nothing": symlink("d/x", ""),
    "taken": entry("d/taken"),
    "taken link": symlink("d/taken", "x"),
    "half of its content": entry("d/x", b"x" * 2000)[: 3 * BLOCK],
    "half a header": entry("d/x")[:300],
    "too large": entry("d/x", b"x" * 2000),
    "end": bytes(1024),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_is_left_to_python(name: str, tmp_path: Path) -> None:
    """And what stands before it is made."""
    needs_root()
    (tmp_path / "taken").write_text("kept")
    fd = os.open(tmp_path, os.O_RDONLY)
    before = entry("d/good", b"good") + symlink("d/link", "good")
    try:
        used = _layer.files(before + ODD[name] + entry("d/last"), fd, b"d/", 10, 1000)
    finally:
        os.close(fd)
    assert used == (len(before), 2, 4)
    assert sorted(os.listdir(tmp_path)) == ["good", "link", "taken"]
    assert (tmp_path / "taken").read_text() == "kept"


def test_no_more_than_asked_for(tmp_path: Path) -> None:
    needs_root()
    fd = os.open(tmp_path, os.O_RDONLY)
    data = b"".join(entry(f"f{index}", b"x" * 600) for index in range(5))
    try:
        assert _layer.files(data, fd, b"", 2, MANY) == (6 * BLOCK, 2, 1200)
        assert _layer.files(data[6 * BLOCK :], fd, b"", 9, 700) == (3 * BLOCK, 1, 600)
        assert _layer.files(b"", fd, b"", 9, MANY) == (0, 0, 0)
        with pytest.raises(TypeError):
            _layer.files("text", fd, b"", 9, MANY)
    finally:
        os.close(fd)
    assert sorted(os.listdir(tmp_path)) == ["f0", "f1", "f2"]


def test_a_full_disk(tmp_path: Path) -> None:
    """Of the entry for which there is no room there is nothing, and Python says so."""
    needs_root()

    def attempt() -> tuple[tuple[int, int, int], list[str], str]:
        _sys.mount("none", str(tmp_path), "tmpfs", 0, "size=64k")
        (tmp_path / "out").mkdir()
        root = os.open(tmp_path / "out", os.O_RDONLY)
        data = archive(*(entry(f"f{index}", b"x" * 20_000) for index in range(9)))
        taken = _layer.files(data, root, b"", 99, MANY)
        names = sorted(os.listdir(root))
        shutil.rmtree(tmp_path / "out")
        (tmp_path / "out").mkdir()
        root = os.open(tmp_path / "out", os.O_RDONLY)
        fd = os.memfd_create("x")
        os.write(fd, data)
        try:
            layer.unpack(MappedSource(fd, len(data), "x", MANY, "x"), root, LayerLimits())
        except SysboxError as error:
            return taken, names, error.message
        return taken, names, ""

    taken, names, message = in_child(attempt, CLONE_NEWNS)
    assert taken[1] == len(names) > 1
    assert message == f"unpack 'f{len(names)}': No space left on device"
