"""COPY and ADD without a container: sources, destinations, modes, what leaves the tree, digests."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sysbox.base.errors import FormatError, NotFound, SpecError
from sysbox.build import content, content_sources, ignore, modes, root
from sysbox.build.content import Copied, Target
from sysbox.build.content_sources import Origin, Rule
from sysbox.build.digests import Digest, Meter

FLAGS = os.O_RDONLY | os.O_DIRECTORY


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[Origin]:
    """A context with a link that leads out, and one that does not."""
    top = tmp_path / "context"
    (top / "d/deep").mkdir(parents=True)
    for name in ("a", "b.txt", "c.txt", "d/one", "d/two.txt", "d/deep/three"):
        (top / name).write_text(name)
    (tmp_path / "outside").write_text("of the host")
    (top / "out").symlink_to("../outside")
    (top / "absolute").symlink_to(tmp_path / "outside")
    (top / "within").symlink_to("d/one")
    fd = os.open(top, FLAGS)
    yield Origin(fd, "the build context", confined=True)
    os.close(fd)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[int]:
    """The root of a stage, with a link in it that would lead to the host."""
    top = tmp_path / "stage"
    (top / "usr/lib").mkdir(parents=True)
    (top / "lib").symlink_to("usr/lib")
    (top / "escape").symlink_to("/../../../usr")
    fd = os.open(top, FLAGS)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("a", ["a"]), ("./d//one", ["d/one"]), ("/a", ["a"]), ("", [""]), (".", [""]), ("d/../a", ["a"]),
        ("*.txt", ["b.txt", "c.txt"]), ("d/*", ["d/deep", "d/one", "d/two.txt"]), ("?", ["a", "d"]),
        ("[a-b]*", ["a", "absolute", "b.txt"]), ("*/deep/th*", ["d/deep/three"]), ("within", ["within"]),
    ],
)  # fmt: skip
def test_sources(origin: Origin, pattern: str, wanted: list[str]) -> None:
    assert content_sources.expand(origin, pattern) == wanted


@pytest.mark.parametrize(
    ("pattern", "error"),
    [
        ("../outside", "leads out of the build context"), ("d/../../outside", "leads out"),
        ("out", "leads out of the build context"), ("absolute", "leads out of the build context"),
        ("none", "not in the build context"), ("*.c", "nothing in the build context matches"),
        ("[", "malformed"), ("a/b", "not in the build context"),
    ],
)  # fmt: skip
def test_bad_sources(origin: Origin, pattern: str, error: str) -> None:
    with pytest.raises((SpecError, NotFound), match=error):
        content_sources.expand(origin, pattern)


def test_what_is_left_out(origin: Origin) -> None:
    less = origin.without(Rule(ignore.parse(b"d\n!d/two.txt\n*.txt\n!d/two.txt\n", "ignore")))
    top = less.entry("")
    try:
        found = [name for name, _ in content_sources.walk(less, top, "")]
    finally:
        top.close()
    assert found == ["", "a", "absolute", "d", "d/two.txt", "out", "within"]
    with pytest.raises(NotFound, match="leaves it out"):
        content_sources.expand(less, "b.txt")


def digest(origin: Origin, path: str = "", *, owners: bool = False) -> str:
    found = Digest(owners=owners)
    found.add(origin, path)
    return found.text()


def test_times_do_not_count(origin: Origin, tmp_path: Path) -> None:
    before = digest(origin)
    os.utime(tmp_path / "context/a", (1, 1))
    assert digest(origin) == before
    (tmp_path / "context/a").chmod(0o600)
    changed = digest(origin)
    assert changed != before
    (tmp_path / "context/d/one").write_text("other")
    assert digest(origin) != changed
    assert digest(origin, "a") != digest(origin, "b.txt")


def test_files_are_not_confused(tmp_path: Path) -> None:
    """Content that moves from one file to the next, or into a name, is another tree."""
    digests = set()
    for number, files in enumerate(
        ({"a": "xy", "b": ""}, {"a": "x", "b": "y"}, {"ax": "y", "b": ""})
    ):
        top = tmp_path / str(number)
        top.mkdir()
        for name, text in files.items():
            (top / name).write_text(text)
        fd = os.open(top, FLAGS)
        digests.add(digest(Origin(fd, "the tree", confined=True)))
        os.close(fd)
    assert len(digests) == 3


def put(stage: int, origin: Origin, source: str, path: str, *, directory: bool = False) -> None:
    owner = (os.getuid(), os.getgid())
    target = Target(path=path, is_directory=directory, owner=owner)
    meter = Meter("copied", lambda _what, _files, _size: None)
    content.copy(stage, origin, source, target, Copied(meter=meter))


def test_destinations(origin: Origin, stage: int, tmp_path: Path) -> None:
    put(stage, origin, "a", "/new/name")
    put(stage, origin, "a", "/made", directory=True)
    put(stage, origin, "a", "/lib/through")
    put(stage, origin, "d", "/copied")
    put(stage, origin, "d", "/lib")
    put(stage, origin, "within", "/followed")
    top = tmp_path / "stage"
    found = sorted(str(one.relative_to(top)) for one in top.rglob("*") if one.is_file())
    assert found == sorted(
        "new/name made/a usr/lib/through copied/one copied/two.txt copied/deep/three usr/lib/one "
        "usr/lib/two.txt usr/lib/deep/three followed".split()
    )
    assert (top / "followed").read_text() == "d/one"


def test_links_of_the_stage_lead_within_it(origin: Origin, stage: int, tmp_path: Path) -> None:
    put(stage, origin, "a", "/escape/file")
    assert (tmp_path / "stage/usr/file").read_text() == "a"
    (tmp_path / "stage/final").symlink_to("/usr/target")
    put(stage, origin, "a", "/final")
    assert (tmp_path / "stage/usr/target").read_text() == "a"
    (tmp_path / "stage/loop").symlink_to("loop")
    with pytest.raises(SpecError):
        put(stage, origin, "a", "/loop")


@pytest.mark.parametrize(
    ("text", "before", "directory", "wanted"),
    [
        ("644", 0o755, False, 0o644), ("4755", 0, False, 0o4755), ("u=rwX,go=rX", 0o600, False, 0o644),
        ("u=rwX,go=rX", 0o700, False, 0o755), ("u=rwX,go=rX", 0o600, True, 0o755),
        ("a+x", 0o644, False, 0o755),
        ("go-rwx", 0o755, False, 0o700), ("+t", 0o755, True, 0o1755), ("u+s", 0o755, False, 0o4755),
        ("g=u", 0o640, False, 0o660), ("u+rw-x", 0o100, False, 0o600), ("o=g,g=", 0o750, False, 0o705),
    ],
)  # fmt: skip
def test_modes(text: str, before: int, directory: bool, wanted: int) -> None:
    assert modes.parse(text)(before, directory) == wanted


@pytest.mark.parametrize("text", ["888", "u", "u=q", "x+r", "10000000", "", "u=r;", "u=gr", "+r,"])
def test_bad_modes(text: str) -> None:
    with pytest.raises(SpecError, match=r"^--chmod="):
        modes.parse(text)


def test_what_is_an_archive(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("plain " * 200)
    for name, mode in (("tar", "w"), ("tgz", "w:gz"), ("txz", "w:xz")):
        with tarfile.open(tmp_path / name, mode) as made:  # type: ignore[call-overload]
            made.add(tmp_path / "text", "text")
    found = {}
    for name in ("text", "tar", "tgz", "txz"):
        fd = os.open(tmp_path / name, os.O_RDONLY)
        found[name] = content.is_archive(fd)
        os.close(fd)
    assert found == {"text": False, "tar": True, "tgz": True, "txz": True}


def test_an_archive_that_unpacks_to_too_much(
    stage: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred times its size is the most, so that a few kilobytes cannot fill the disk."""
    monkeypatch.setattr(content, "_FLOOR", 1 << 20)
    for size, fits in ((1 << 20, True), (1 << 24, False)):
        path = tmp_path / f"{size}.tar.gz"
        with tarfile.open(path, "w:gz") as made:
            entry = tarfile.TarInfo("zeros")
            entry.size, entry.uid, entry.gid = size, os.getuid(), os.getgid()
            made.addfile(entry, io.BytesIO(bytes(size)))
        fd = os.open(path, os.O_RDONLY)
        target = Target(path="/x", is_directory=True, owner=(os.getuid(), os.getgid()))
        if fits:
            content.unpack(stage, fd, path.name, target)
            continue
        with pytest.raises(FormatError, match=f"{path.name}: .* more than"):
            content.unpack(stage, fd, path.name, target)


def test_directories_are_made_with_their_owner(stage: int, tmp_path: Path) -> None:
    fd, made = root.make_directory(stage, "/x/y/z", (os.getuid(), os.getgid()))
    os.close(fd)
    assert made
    assert stat.S_IMODE((tmp_path / "stage/x/y").stat().st_mode) == 0o755
    fd, made = root.make_directory(stage, "/x/y")
    os.close(fd)
    assert not made
    (tmp_path / "stage/file").write_text("")
    with pytest.raises(SpecError, match="not a directory"):
        root.make_directory(stage, "/file/below")
