"""Digests of what is copied: where zeros are, what changed meanwhile, how many files there may be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import needs_root

from sysbox.base import paths
from sysbox.base.errors import FormatError, SpecError
from sysbox.build import content, content_sources, digests, ignore
from sysbox.build.content import Copied, Target
from sysbox.build.content_sources import Origin, Rule
from sysbox.build.digests import Digest, Meter

FLAGS = os.O_RDONLY | os.O_DIRECTORY
BLOCK = 1 << 20


def quiet() -> Meter:
    return Meter("read", lambda _what, _files, _size: None)


def of(path: Path) -> tuple[bytes, int, int]:
    """The digest of a file's content, its size, and how many bytes were read for it."""
    read: list[int] = []
    fd = os.open(path, os.O_RDONLY)
    try:
        digest, size = digests.of_content(fd, read.append)
    finally:
        os.close(fd)
    return digest, size, sum(read)


def test_holes_are_not_read(tmp_path: Path) -> None:
    """A terabyte of them takes no time, and zeros on the disk have the same digest as a hole."""
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(1 << 40)
        file.seek((1 << 39) + 5)
        file.write(b"in the middle")
    _, size, read = of(huge)
    assert size == 1 << 40
    assert read <= BLOCK
    hole, zeros = tmp_path / "hole", tmp_path / "zeros"
    data = b"a" * BLOCK + bytes(2 * BLOCK) + b"z" + bytes(100)
    zeros.write_bytes(data)
    with hole.open("wb") as file:
        file.write(b"a" * BLOCK)
        file.seek(3 * BLOCK)
        file.write(b"z")
        file.truncate(len(data))
    assert hole.stat().st_blocks < zeros.stat().st_blocks
    assert of(hole)[:2] == of(zeros)[:2]


def test_zeros_count_by_their_place(tmp_path: Path) -> None:
    """Also where the content spells out what stands for a place."""
    x, last = b"x" * (BLOCK - 20), b"l" * BLOCK
    mark = b"%d:%d:" % (BLOCK, BLOCK)
    first, second = (mark + x).ljust(BLOCK, b"."), (x + mark).ljust(BLOCK, b".")
    contents = (
        b"", bytes(1), bytes(BLOCK), bytes(BLOCK + 1), b"a" + bytes(BLOCK), bytes(BLOCK) + b"a",
        last + bytes(BLOCK) + last, bytes(BLOCK) + last + last, last + last + bytes(BLOCK),
        first + bytes(BLOCK) + last, bytes(BLOCK) + second + last,
    )  # fmt: skip
    found = set()
    for number, one in enumerate(contents):
        path = tmp_path / str(number)
        path.write_bytes(one)
        found.add(of(path)[:2])
    assert len(found) == len(contents)


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[Origin]:
    """A context with an entry of every kind that is copied."""
    needs_root()
    top = tmp_path / "context"
    (top / "d/deep").mkdir(parents=True)
    for name in ("a", "b", "d/one", "d/deep/two", "ignored"):
        (top / name).write_text(name)
    os.setxattr(top / "a", "user.note", b"kept")
    os.chown(top / "b", 1000, 1000)
    os.link(top / "a", top / "d/other")
    os.mkfifo(top / "fifo")
    os.mknod(top / "device", 0o20644, os.makedev(1, 3))
    (top / "link").symlink_to("/nowhere")
    fd = os.open(top, FLAGS)
    rule = Rule(ignore.parse(b"ignored\n", ".containerignore"))
    yield Origin(fd, "the build context", confined=True, rules=(rule,))
    os.close(fd)


def digest_of(origin: Origin, path: str) -> str:
    found = Digest(owners=False)
    found.add(origin, path)
    return found.text()


def copied(origin: Origin, path: str, to: Path) -> str:
    """The digest of a copy."""
    to.mkdir()
    stage = os.open(to, FLAGS)
    digest = Digest(owners=False)
    target = Target(path="/x/", is_directory=True, owner=(0, 0))
    content.copy(stage, origin, path, target, Copied(meter=quiet(), digest=digest))
    os.close(stage)
    return digest.text()


@pytest.mark.parametrize("path", ["", "d", "a", "d/deep"])
def test_a_copy_has_the_digest_of_its_source(origin: Origin, tmp_path: Path, path: str) -> None:
    assert copied(origin, path, tmp_path / "one") == digest_of(origin, path)


def test_what_changes_between_both(origin: Origin, tmp_path: Path) -> None:
    """Content with the same size and time, a mode, an attribute, a link, a name, an entry less."""
    top = tmp_path / "context"
    when = (top / "d/one").stat()

    def content_alone() -> None:
        (top / "d/one").write_text("eno")
        os.utime(top / "d/one", ns=(when.st_atime_ns, when.st_mtime_ns))

    def another_link() -> None:
        (top / "link").unlink()
        (top / "link").symlink_to("/elsewhere")

    changes = (
        content_alone, another_link, (top / "b").unlink, (top / "new").touch,
        lambda: (top / "d").chmod(0o700), lambda: os.setxattr(top / "a", "user.note", b"other"),
        lambda: (top / "d/deep").rename(top / "d/deeper"),
    )  # fmt: skip
    for number, change in enumerate(changes):
        before = digest_of(origin, "")
        change()
        assert copied(origin, "", tmp_path / str(number)) != before, number


def test_the_bound(origin: Origin) -> None:
    """Of all instructions' files; what is left out does not count."""
    told: list[tuple[str, int, int]] = []
    for most, fits in ((11, True), (10, False), (0, True)):
        meter = Meter("read", lambda *one: told.append(one), most)
        found = Digest(owners=False, meter=meter)
        if fits:
            found.add(origin, "")
            continue
        with pytest.raises(FormatError, match="more than 10 files are to be copied") as caught:
            found.add(origin, "")
        assert "ContextFiles=" in caught.value.hint
    assert told == []


def test_a_directory_without_end(tmp_path: Path) -> None:
    """The memory never has more names than may be copied."""
    (tmp_path / "d").mkdir()
    for number in range(30):
        (tmp_path / "d" / str(number)).touch()
    fd = os.open(tmp_path, FLAGS)
    assert digest_of(Origin(fd, "the context", confined=True, most=30), "")
    for origin in (
        Origin(fd, "the context", confined=True, most=29),
        Origin(fd, "the context", confined=True, most=29).without(),
    ):
        with pytest.raises(FormatError, match="d/: more than 29 files in one directory"):
            digest_of(origin, "")
    os.close(fd)


def test_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for what takes a moment, then twice a second."""
    now = [100.0]
    monkeypatch.setattr(digests.time, "monotonic", lambda: now[0])
    told: list[tuple[str, int, int]] = []
    meter = Meter("read", lambda *one: told.append(one))
    for moment in (100.5, 101.0, 101.2, 101.4, 101.5):
        now[0] = moment
        meter.entry()
        meter.data(10)
    assert told == [("read", 2, 10), ("read", 5, 40)]


def test_what_is_in_no_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """sysbox's own directories, which would be copied into themselves, and the kernel's files."""
    own = tmp_path / "top/var/own"
    own.mkdir(parents=True)
    (own / "inner").touch()
    (tmp_path / "top/var/other").touch()
    monkeypatch.setattr(content_sources, "_OWN", (str(own), "/nowhere", paths.IMAGES))
    fd = os.open(tmp_path / "top", FLAGS)
    origin = Origin(fd, "the context", confined=True, own=content_sources.own_directories())
    top = origin.entry("")
    assert [name for name, _ in content_sources.walk(origin, top, "")] == ["", "var", "var/other"]
    top.close()
    with pytest.raises(SpecError, match="var/own: it is a directory of sysbox's"):
        content_sources.expand(origin, "var/own")
    copied(origin, "", tmp_path / "copy")
    assert sorted(path.name for path in (tmp_path / "copy").rglob("*")) == ["other", "var", "x"]
    os.close(fd)
    proc = os.open("/proc", FLAGS)
    with pytest.raises(SpecError, match="self/environ: it is in a file system of the kernel's"):
        content_sources.expand(Origin(proc, "the context", confined=True), "self/environ")
    os.close(proc)
