"""`cp -`: an archive goes into a directory of a root that somebody else may be changing."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from forked import needs_root
from layers import corpus, fixtures
from layers.builder import archive, directory, entry, hard_link, long_name, pax, symlink

from sysbox.base.errors import Conflict, FormatError, SysboxError, Unsupported
from sysbox.content.extract import Extractor
from sysbox.image.source import stream_source


@pytest.fixture(autouse=True)
def root() -> None:
    needs_root()


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """A root with a directory to unpack into, beside something to be left alone."""
    (tmp_path / "outside").write_text("outside")
    top = tmp_path / "box"
    (top / "into").mkdir(parents=True)
    (top / "run").mkdir()
    return top


def extract(data: bytes, box: Path, path: str = "/into", limit: int = 1 << 40) -> None:
    """Unpack an archive that comes through a pipe."""
    reader, writer = os.pipe()
    root = os.open(box, os.O_PATH | os.O_DIRECTORY)
    sender = threading.Thread(target=_send, args=(writer, data))
    sender.start()
    try:
        source = stream_source(reader, "the archive", limit)
        Extractor(root, path).run(source)
    finally:
        os.close(reader)
        os.close(root)
        sender.join()


def _send(writer: int, data: bytes) -> None:
    with os.fdopen(writer, "wb") as pipe, suppress(BrokenPipeError):
        pipe.write(data)
        pipe.flush()


SIMPLE = archive(entry("a/file", b"text", mode=0o640, uid=5, gid=6, mtime=1_500_000_000))


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress, zstd])
def test_plain_and_compressed(box: Path, compress: object) -> None:
    extract(compress(SIMPLE), box)  # type: ignore[operator]
    made = box / "into" / "a" / "file"
    status = made.stat()
    assert made.read_bytes() == b"text"
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (5, 6, 0o640)
    assert status.st_mtime == 1_500_000_000
    assert stat.S_IMODE((box / "into" / "a").stat().st_mode) == 0o755


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        (pax((b"SCHILY.xattr.user.a\0b", "x")), "a NUL in its name"),
        (long_name(b"a\0" + b"b" * 200, kind=b"K"), "a NUL in it"),
        (b"".join(pax((f"comment{one}", "x" * 500_000)) for one in range(5)), "extended headers"),
    ],
)
def test_refused_in_one_line(box: Path, before: bytes, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        extract(archive(before, symlink("x", "y")), box)


def test_names_that_are_not_utf_8(box: Path) -> None:
    extract(
        archive(
            pax((b"SCHILY.xattr.user.\xff", "kept"), (b"SCHILY.xattr.\xff", "not")),
            entry(b"\xfe", b"text"),
            symlink(b"link", b"\xfe\xff"),
        ),
        box,
    )
    into = bytes(box / "into")
    assert os.getxattr(into + b"/\xfe", b"user.\xff") == b"kept"
    assert os.readlink(into + b"/link") == b"\xfe\xff"


def test_a_file_that_is_named_twice(box: Path) -> None:
    """GNU tar makes a hard link to itself of `tar -c a ./a`."""
    extract(archive(entry("a", b"text"), hard_link("./a", "a")), box)
    assert (box / "into" / "a").read_bytes() == b"text"


def test_zstd_without_its_package_is_refused_with_a_way_out(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        sys.modules, "compression" if sys.version_info >= (3, 14) else "backports", None
    )
    with pytest.raises(Unsupported, match="zstd") as caught:
        extract(zstd(SIMPLE), box)
    assert "backports.zstd" in caught.value.hint


def test_a_link_among_the_parents_is_followed_inside(box: Path) -> None:
    (box / "into" / "link").symlink_to("/run")
    extract(archive(entry("link/pid", b"1")), box)
    assert (box / "run" / "pid").read_bytes() == b"1"
    assert (box / "into" / "link").is_symlink()


@pytest.mark.parametrize("text", ["/../..", "../../.."])
def test_a_link_that_leads_out_leads_to_the_root(box: Path, text: str) -> None:
    extract(archive(symlink("l", text), entry("l/outside", b"changed")), box)
    assert (box / "outside").read_bytes() == b"changed"
    assert (box.parent / "outside").read_text() == "outside"


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/../x"])
def test_names_that_lead_out_are_refused(box: Path, name: str) -> None:
    with pytest.raises(FormatError, match="leads out"):
        extract(archive(entry(name, b"x")), box)


def test_a_hard_link_whose_name_is_no_utf_8(box: Path) -> None:
    for target in (b"gone\xff", b"."):
        with pytest.raises((FormatError, SysboxError), match="link"):
            extract(archive(hard_link(b"name\xff", target)), box)
    extract(archive(entry(b"a\xff", b"text"), hard_link(b"b\xfe", b"a\xff")), box)
    assert (box / "into" / os.fsdecode(b"b\xfe")).read_text() == "text"


def test_a_hard_link_stays_inside(box: Path) -> None:
    extract(archive(entry("a", b"x"), hard_link("b", "a")), box)
    assert (box / "into" / "a").stat().st_ino == (box / "into" / "b").stat().st_ino
    (box / "into" / "up").symlink_to("../../")
    with pytest.raises(SysboxError):
        extract(archive(hard_link("c", "up/../outside")), box)
    with pytest.raises(SysboxError):
        extract(archive(hard_link("c", "up/outside")), box)
    assert not (box / "into" / "c").exists()


def test_what_is_there_is_replaced(box: Path) -> None:
    (box / "into" / "file").symlink_to("/run/precious")
    (box / "run" / "precious").write_text("kept")
    extract(archive(entry("file", b"new")), box)
    assert (box / "into" / "file").read_bytes() == b"new"
    assert not (box / "into" / "file").is_symlink()
    assert (box / "run" / "precious").read_text() == "kept"


def test_a_directory_is_not(box: Path) -> None:
    (box / "into" / "d").mkdir()
    with pytest.raises(Conflict, match="cannot replace a directory with a file"):
        extract(archive(entry("d", b"x")), box)
    (box / "into" / "l").symlink_to("/run")
    with pytest.raises(Conflict, match="replace a file with a directory"):
        extract(archive(directory("l")), box)


def test_the_destination_keeps_what_it_is(box: Path) -> None:
    (box / "into").chmod(0o1777)
    extract(archive(directory("./", mode=0o700), directory("new", mode=0o711)), box)
    assert stat.S_IMODE((box / "into").stat().st_mode) == 0o1777
    assert stat.S_IMODE((box / "into" / "new").stat().st_mode) == 0o711


def test_extended_attributes(box: Path) -> None:
    records = (("SCHILY.xattr.user.a", "b"), ("SCHILY.xattr.trusted.overlay.opaque", "y"))
    extract(archive(pax(*records), entry("file", b"")), box)
    assert os.listxattr(box / "into" / "file") == ["user.a"]


def test_a_truncated_archive_is_told(box: Path) -> None:
    data = archive(entry("a", b"x" * 5000))
    for end in (600, 512, len(data) - 1024):
        with pytest.raises(FormatError, match="truncated"):
            extract(data[:end], box)


def test_not_an_archive(box: Path) -> None:
    with pytest.raises(FormatError):
        extract(b"just some text" * 100, box)


# one short path for all, since a ustar link has a hundred bytes
BASE = Path("/dev/shm" if os.path.isdir("/dev/shm") else "/tmp", f"sbe{os.getpid()}")
HOSTILE = dict(corpus.refused(str(BASE / "decoy"))) | dict(corpus.confined(str(BASE / "decoy")))


@pytest.fixture
def hostile() -> Iterator[Path]:
    """A directory with a decoy outside of a box."""
    (BASE / "box" / "into").mkdir(mode=0o700, parents=True)
    fixtures.make_decoy(BASE / "decoy")
    yield BASE
    shutil.rmtree(BASE)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_stay_inside(hostile: Path, name: str) -> None:
    """Those that are refused as layers, and those that are confined in one."""
    before, root = fixtures.tree(hostile / "decoy"), os.listdir("/")
    with suppress(SysboxError):
        extract(HOSTILE[name], hostile / "box", limit=1 << 24)
    assert fixtures.tree(hostile / "decoy") == before
    assert sorted(os.listdir(hostile)) == ["box", "decoy"]
    assert os.listdir("/") == root
    for path in (hostile / "box").rglob("*"):
        if not path.is_symlink():
            assert not [one for one in os.listxattr(path) if one.startswith("trusted.")]


def test_a_link_that_replaced_a_directory_keeps_what_it_leads_to(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Directories get their mode last, and by name: the container may have put something else there."""
    other, finish = box / "into/other", Extractor._finish
    other.mkdir(mode=0o700)

    def replaced_before(self: Extractor) -> None:
        (box / "into/d").rmdir()
        (box / "into/d").symlink_to("other")
        finish(self)

    monkeypatch.setattr(Extractor, "_finish", replaced_before)
    extract(archive(directory("d", 0o777), directory("e", 0o711)), box)
    assert stat.S_IMODE(other.stat().st_mode) == 0o700
    assert stat.S_IMODE((box / "into/e").stat().st_mode) == 0o711


def test_attributes_of_overlayfs_are_left_out(box: Path) -> None:
    data = archive(
        pax(("SCHILY.xattr.user.overlay.opaque", "y"), ("SCHILY.xattr.user.note", "n")),
        entry("file", b"x"),
    )
    extract(data, box)
    assert os.listxattr(box / "into/file") == ["user.note"]
