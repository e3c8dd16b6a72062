"""cp: docker's rules for paths, what a copy keeps, and that nothing swapped meanwhile leads out of a root."""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from forked import needs_root
from sampletree import described, everything

from sysbox.base.errors import Conflict, FormatError, NotFound, SpecError, SysboxError
from sysbox.base.tree import DEPTH
from sysbox.content import copy as copying
from sysbox.content.copy import Side
from sysbox.fs.treecopy import Rules

ROOTS = ("host", "container")


@pytest.fixture(autouse=True)
def root() -> None:
    needs_root()


@pytest.fixture
def roots() -> Iterator[list[int]]:
    """Descriptors that are closed at the end."""
    opened: list[int] = []
    yield opened
    for fd in opened:
        os.close(fd)


def side(kind: str, base: Path, path: str, roots: list[int]) -> Side:
    """`path` below `base`: as a path of this machine's, or with `base` as a container's root."""
    if kind == "host":
        return Side(path=f"{base}/{path}")
    roots.append(os.open(base, os.O_PATH | os.O_DIRECTORY))
    return Side(path=f"/{path}", root=roots[-1], container="box")


def tree(base: Path) -> dict[str, str]:
    """Every entry below a directory: its kind and content."""
    found = {}
    for path in sorted(base.rglob("*")):
        name = str(path.relative_to(base))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        else:
            found[name] = "/" if path.is_dir() else path.read_text()
    return found


@pytest.fixture
def ends(tmp_path: Path) -> tuple[Path, Path]:
    """A source with a file, a directory and links, and a destination with a file, a directory and links."""
    source, target = tmp_path / "from", tmp_path / "to"
    (source / "dir" / "inner").mkdir(parents=True)
    (source / "file").write_text("new")
    (source / "dir" / "a").write_text("A")
    (source / "link").symlink_to("file")
    (source / "dirlink").symlink_to("dir")
    (target / "have").mkdir(parents=True)
    (target / "old").write_text("old")
    (target / "tohave").symlink_to("have")
    (target / "toold").symlink_to("old")
    (target / "tonew").symlink_to("have/new")
    return source, target


DIR = {"dir": "/", "dir/a": "A", "dir/inner": "/"}
RULES = [
    # source, destination, what is new or different at the destination
    ("file", "name", {"name": "new"}),
    ("file", "have", {"have/file": "new"}),
    ("file", "have/", {"have/file": "new"}),
    ("file", "have/.", {"have/file": "new"}),
    ("file", "old", {"old": "new"}),
    ("file", "tohave", {"have/file": "new"}),
    ("file", "toold", {"old": "new"}),
    ("file", "tonew", {"have/new": "new"}),
    ("file", "", {"file": "new"}),
    ("link", "name", {"name": "-> file"}),
    ("link", "have", {"have/link": "-> file"}),
    ("dirlink", "have", {"have/dirlink": "-> dir"}),
    ("dirlink/", "have", {"have/dirlink": "/", "have/dirlink/a": "A", "have/dirlink/inner": "/"}),
    ("dirlink/.", "have", {"have/a": "A", "have/inner": "/"}),
    ("dir", "name", {"name": "/", "name/a": "A", "name/inner": "/"}),
    ("dir", "name/", {"name": "/", "name/a": "A", "name/inner": "/"}),
    ("dir/.", "name", {"name": "/", "name/a": "A", "name/inner": "/"}),
    ("dir", "have", {f"have/{name}": what for name, what in DIR.items()}),
    ("dir/", "have/", {f"have/{name}": what for name, what in DIR.items()}),
    ("dir/.", "have", {"have/a": "A", "have/inner": "/"}),
    ("dir/inner/..", "have", {f"have/{name}": what for name, what in DIR.items()}),
]
REFUSED = [
    ("file", "none/", NotFound, "no such directory"),
    ("file", "none/name", NotFound, "there is no"),
    ("dir", "none/name", NotFound, "there is no"),
    ("file", "old/", SpecError, "not a directory"),
    ("file", "old/name", Conflict, "is not a directory"),
    ("dir", "old", SpecError, "a directory cannot be copied onto a file"),
    ("dir", "toold", SpecError, "a directory cannot be copied onto a file"),
    ("none", "name", NotFound, "no such file or directory"),
    ("file/", "name", NotFound, "not a directory"),
    ("file/.", "name", NotFound, "not a directory"),
]


@pytest.mark.parametrize("to", ROOTS)
@pytest.mark.parametrize("of", ROOTS)
@pytest.mark.parametrize(("source", "destination", "expected"), RULES)
def test_where_a_copy_goes(
    ends: tuple[Path, Path],
    roots: list[int],
    of: str,
    to: str,
    source: str,
    destination: str,
    expected: dict[str, str],
) -> None:
    before = tree(ends[1])
    here, there = side(of, ends[0], source, roots), side(to, ends[1], destination, roots)
    copying.copy(here, there, Rules())
    assert tree(ends[1]) == before | expected


@pytest.mark.parametrize("to", ROOTS)
@pytest.mark.parametrize(("source", "destination", "error", "words"), REFUSED)
def test_what_is_refused(
    ends: tuple[Path, Path],
    roots: list[int],
    to: str,
    source: str,
    destination: str,
    error: type[SysboxError],
    words: str,
) -> None:
    before = tree(ends[1])
    here, there = side(to, ends[0], source, roots), side(to, ends[1], destination, roots)
    with pytest.raises(error, match=words):
        copying.copy(here, there, Rules())
    assert tree(ends[1]) == before


def test_follow_link_copies_what_it_leads_to_under_its_own_name(
    ends: tuple[Path, Path], roots: list[int]
) -> None:
    here, there = (side("container", end, "link", roots) for end in ends)
    copying.copy(here, there, Rules(), follow=True)
    assert (ends[1] / "link").read_text() == "new"
    assert not (ends[1] / "link").is_symlink()


@pytest.mark.parametrize("text", ["/etc", "../../../../../../etc", "/proc/self/root/etc"])
def test_a_link_in_the_destination_stays_in_the_root(
    tmp_path: Path, roots: list[int], text: str
) -> None:
    (tmp_path / "file").write_text("mine")
    inside = tmp_path / "box"
    (inside / "etc").mkdir(parents=True)
    (inside / "out").symlink_to(text)
    there = side("container", inside, "out/canary", roots)
    here = Side(path=str(tmp_path / "file"))
    if "proc" in text:  # the box has no /proc, and a magic link would be refused
        with pytest.raises(NotFound):
            copying.copy(here, there, Rules())
    else:
        copying.copy(here, there, Rules())
        assert (inside / "etc" / "canary").read_text() == "mine"
    assert not Path("/etc/canary").exists()


def test_a_directory_and_what_is_none_do_not_replace_each_other(tmp_path: Path) -> None:
    source, target = tmp_path / "from", tmp_path / "to"
    (source / "x").mkdir(parents=True)
    target.mkdir()
    # a link that an earlier copy may have left: never followed
    (target / "x").symlink_to("/etc")
    with pytest.raises(Conflict, match="cannot replace a file with a directory"):
        copying.copy(Side(path=f"{source}/."), Side(path=str(target)), Rules())
    (source / "x").rmdir()
    (source / "x").write_text("file")
    (target / "x").unlink()
    (target / "x").mkdir()
    with pytest.raises(Conflict, match="cannot replace a directory with a file"):
        copying.copy(Side(path=f"{source}/."), Side(path=str(target)), Rules())


def test_an_archive_copy_keeps_everything(tmp_path: Path) -> None:
    top = everything(tmp_path)
    copying.copy(Side(path=str(top)), Side(path=str(tmp_path / "copy")), Rules())
    assert described(tmp_path / "copy") == described(top)
    sparse = (tmp_path / "copy" / "sparse").stat()
    assert sparse.st_blocks * 512 < 1 << 20
    with (tmp_path / "copy" / "sparse").open("rb") as file:
        file.seek(1 << 30)
        assert file.read(4) == b"end\0"


def test_without_it_owners_are_given_and_privileges_are_not(tmp_path: Path) -> None:
    top = everything(tmp_path)
    out: list[tuple[str, str]] = []
    rules = Rules(owner=(11, 12), privileged=False, devices=False)
    source, target = Side(path=str(top)), Side(path=str(tmp_path / "copy"))
    copying.copy(source, target, rules, left_out=lambda *words: out.append(words))
    copy = tmp_path / "copy"
    status = (copy / "su").stat()
    assert (status.st_uid, status.st_gid, oct(status.st_mode)) == (11, 12, "0o100751")
    assert os.listxattr(copy / "su") == ["user.note"]
    assert (copy / "link").lstat().st_uid == 11
    assert (copy / "sticky").stat().st_mode & 0o7777 == 0o1777
    assert out == [("copy/null", "it is a device")]
    assert not (copy / "null").exists()


def test_sockets_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    os.mknod(tmp_path / "from" / "socket", stat.S_IFSOCK | 0o600)
    out: list[tuple[str, str]] = []
    source, target = Side(path=str(tmp_path / "from")), Side(path=str(tmp_path / "to"))
    copying.copy(source, target, Rules(), left_out=lambda *words: out.append(words))
    assert out == [("to/socket", "it is a socket")]


def test_names_are_shown_without_control_sequences(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    os.mknod(tmp_path / "from" / "\x1b[2Jx\n", stat.S_IFSOCK | 0o600)
    os.mknod(os.fsencode(tmp_path / "from") + b"/\xff", stat.S_IFSOCK | 0o600)
    out: list[str] = []
    source, target = Side(path=str(tmp_path / "from")), Side(path=str(tmp_path / "to"))
    copying.copy(source, target, Rules(), left_out=lambda name, _: out.append(name))
    assert out == ["to/\\x1b[2Jx\\n", "to/\\xff"]


def test_a_copy_into_itself_ends(tmp_path: Path) -> None:
    (tmp_path / "top" / "into").mkdir(parents=True)
    (tmp_path / "top" / "file").write_text("x")
    copying.copy(Side(path=str(tmp_path / "top")), Side(path=str(tmp_path / "top/into")), Rules())
    assert tree(tmp_path / "top") == {
        "file": "x", "into": "/", "into/top": "/", "into/top/file": "x", "into/top/into": "/"
    }  # fmt: skip


def test_existing_directories_keep_what_they_are_without_archive(tmp_path: Path) -> None:
    for name, mode in (("from", 0o700), ("to", 0o1777)):
        (tmp_path / name / "x").mkdir(parents=True)
        (tmp_path / name / "x").chmod(mode)
        (tmp_path / name).chmod(mode)
    given = Rules(owner=(0, 0), privileged=False)
    copying.copy(Side(path=f"{tmp_path}/from/."), Side(path=f"{tmp_path}/to"), given)
    assert (tmp_path / "to" / "x").stat().st_mode & 0o7777 == 0o1777
    copying.copy(Side(path=f"{tmp_path}/from/."), Side(path=f"{tmp_path}/to"), Rules())
    assert (tmp_path / "to" / "x").stat().st_mode & 0o7777 == 0o700
    assert (tmp_path / "to").stat().st_mode & 0o7777 == 0o1777, "the destination itself stays"


def test_a_tree_that_is_too_deep_is_refused(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(DEPTH + 5):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    with pytest.raises(FormatError, match="directories deep"):
        copying.copy(Side(path=f"{tmp_path}/d"), Side(path=f"{tmp_path}/copy"), Rules())
    subprocess.run(["rm", "-rf", tmp_path / "d", tmp_path / "copy"], check=True)


SWAP = """
import ctypes, sys
libc = ctypes.CDLL(None)
one, other = sys.argv[1].encode(), sys.argv[2].encode()
print("swapping", flush=True)
while libc.renameat2(-100, one, -100, other, 2) == 0:
    pass
"""


@contextmanager
def swapping(one: Path, other: Path) -> Iterator[None]:
    """Exchange two names as fast as possible meanwhile."""
    assert hasattr(ctypes.CDLL(None), "renameat2")
    words = [sys.executable, "-c", SWAP, str(one), str(other)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            process.stdout.readline()
            yield
            assert process.poll() is None, "it stopped swapping"
        finally:
            process.kill()


def test_nothing_outside_is_reached_while_names_are_swapped(
    tmp_path: Path, roots: list[int]
) -> None:
    """CVE-2018-15664: a directory that turns into a symbolic link to / and back."""
    outside, box = tmp_path / "outside", tmp_path / "box"
    for top, text in ((outside, "secret"), (box / "dir", "inside")):
        (top / "sub").mkdir(parents=True)
        (top / "sub" / "file").write_text(text)
    (box / "link").symlink_to(outside)
    (tmp_path / "new").write_text("new")
    roots.append(os.open(box, os.O_PATH | os.O_DIRECTORY))
    into = Side(path="/dir/sub/made", root=roots[0], container="box")
    out_file = Side(path="/dir/sub/file", root=roots[0], container="box")
    whole = Side(path="/", root=roots[0], container="box")
    seen = set()
    with swapping(box / "dir", box / "link"):
        for turn in range(120):
            for source, target in (
                (Side(path=str(tmp_path / "new")), into),
                (out_file, Side(path=str(tmp_path / "got"))),
                (whole, Side(path=str(tmp_path / f"all{turn}"))),
            ):
                try:
                    copying.copy(source, target, Rules())
                    seen.add("copied")
                except SysboxError as error:
                    # a name that is a link out of the box is nowhere, or was another kind a moment ago
                    seen.add(type(error).__name__)
            got = tmp_path / "got"
            assert not got.exists() or got.read_text() == "inside"
            for path in (tmp_path / f"all{turn}").rglob("*"):
                assert path.is_symlink() or path.is_dir() or path.read_text() != "secret"
            subprocess.run(["rm", "-rf", tmp_path / f"all{turn}"], check=True)
    assert "copied" in seen
    assert len(seen) > 1, "the race was never met"
    assert tree(outside) == {"sub": "/", "sub/file": "secret"}
