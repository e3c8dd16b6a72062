"""Archives that we write: read back by our own reader, by tarfile and by GNU tar."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
from forked import needs_root
from sampletree import described, everything

from sysbox.base.tree import TreeEntry
from sysbox.image import layer
from sysbox.image.source import MappedSource
from sysbox.image.tar import LayerLimits
from sysbox.image.tarwriter import Archive
from sysbox.linux.owners import UNMAPPED, Owners
from sysbox.linux.userns import IdMap


@pytest.fixture(autouse=True)
def root() -> None:
    needs_root()


def handle(path: Path) -> TreeEntry:
    """As a walk finds it."""
    return TreeEntry(path.name, os.open(path, os.O_PATH | os.O_NOFOLLOW))


def packed(path: Path, name: str = ".") -> bytes:
    """The archive of a tree."""
    out = io.BytesIO()
    found = handle(path)
    archive = Archive(out.write)
    archive.tree(found, name)
    archive.finish()
    found.close()
    return out.getvalue()


def small(base: Path) -> Path:
    """The sample without its large hole, which would be written out."""
    top = everything(base)
    with (top / "sparse").open("r+b") as file:
        file.truncate(3 << 20)
        file.seek((2 << 20) + 5)
        file.write(b"data in the middle")
    os.utime(top / "sparse", ns=(1, 1_600_000_000_123_456_789))
    os.utime(top, ns=(1, 1_600_000_000_000_000_000))
    return top


def test_a_layer_of_it_is_the_same_tree(tmp_path: Path) -> None:
    top = small(tmp_path)
    data = packed(top)
    copy = tmp_path / "copy"
    copy.mkdir()
    fd, target = os.memfd_create("layer"), os.open(copy, os.O_RDONLY)
    os.write(fd, data)
    source = MappedSource(fd, len(data), "the layer", 1 << 40, "sha256:mapped")
    layer.unpack(source, target, LayerLimits())
    source.close()
    os.close(fd)
    os.close(target)
    assert described(copy) == described(top)


def test_gnu_tar_makes_the_same_tree(tmp_path: Path) -> None:
    top = small(tmp_path)
    copy = tmp_path / "copy"
    copy.mkdir()
    words = ["tar", "-C", copy, "--xattrs", "--xattrs-include=*", "-xp"]
    subprocess.run(words, input=packed(top), check=True)
    assert described(copy) == described(top)


def test_tarfile_reads_it(tmp_path: Path) -> None:
    top = small(tmp_path)
    with tarfile.open(fileobj=io.BytesIO(packed(top, "top"))) as archive:
        members = {one.name: one for one in archive}
        extracted = archive.extractfile("top/" + "long" * 60)
        assert extracted
        assert extracted.read() == b"long"
    assert members["top/su"].mode == 0o4751
    assert members["top/su"].uid == 1234
    # sorted: deep comes first, and the others are links to it
    assert (members["top/su"].type, members["top/su"].linkname) == (tarfile.LNKTYPE, "top/deep/su3")
    assert members["top/null"].ischr()
    assert members["top/deep"].pax_headers["SCHILY.xattr.user.note"] == "on a directory\0\n"
    assert "top/\udcff\udcfe" in members


@pytest.mark.parametrize("seconds", [-5, 0, 8**11 - 1, 8**11 + 7])
def test_times_of_any_size(tmp_path: Path, seconds: int) -> None:
    path = tmp_path / "file"
    path.touch()
    try:
        os.utime(path, ns=(0, seconds * 10**9))
    except OSError:
        pytest.fail("the file system of the tests cannot hold this time")
    kept = path.stat().st_mtime_ns
    with tarfile.open(fileobj=io.BytesIO(packed(path, "file"))) as archive:
        assert int(float(archive.getmember("file").mtime)) == kept // 10**9


def test_large_owners_and_sizes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    os.chown(path, 4_000_000_000, 3_000_000)
    os.truncate(path, 9 << 30)
    written = 0
    head = b""

    def write(data: bytes) -> None:
        nonlocal written, head
        head = (head + data)[:4096] if len(head) < 4096 else head
        written += len(data)

    found = handle(path)
    archive = Archive(write)
    archive.entry(found, "file")
    found.close()
    with tarfile.open(fileobj=io.BytesIO(head)) as read:
        member = read.next()
    assert member
    assert (member.uid, member.gid, member.size) == (4_000_000_000, 3_000_000, 9 << 30)
    assert written % 512 == 0
    assert written > 9 << 30


def test_a_file_that_shrinks_is_filled_up(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 3_000_000)
    out = io.BytesIO()
    told = []

    def write(data: bytes) -> None:
        if out.tell() == 512:  # its header is out
            os.truncate(path, 1_500_000)
        out.write(data)

    os.utime(path, (0, 0))
    found = handle(path)
    archive = Archive(write, told.append)
    archive.tree(found, "file")
    archive.finish()
    found.close()
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as read:
        extracted = read.extractfile("file")
        assert extracted
        content = extracted.read()
    assert len(content) == 3_000_000
    assert content[-1:] == b"\0"
    assert told == ["file"]


def test_sockets_are_left_out(tmp_path: Path) -> None:
    os.mknod(tmp_path / "socket", stat.S_IFSOCK | 0o600)
    with tarfile.open(fileobj=io.BytesIO(packed(tmp_path))) as archive:
        assert archive.getnames() == ["."]


def test_owners_of_a_container_and_of_a_graft(tmp_path: Path) -> None:
    """A container of the image `host`: its root shows mapped ids, /usr perhaps the host's."""
    for name, uid in (("root/own", 1005), ("root/usr/hidden", 1000), ("graft/file", 3)):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.chown(path, uid, uid)
    maps = (IdMap(inside=0, outside=1000, count=10),)
    out = io.BytesIO()
    archive = Archive(out.write, owners=Owners(uids=maps, gids=maps))
    root, usr = handle(tmp_path / "root"), handle(tmp_path / "graft")
    archive.tree(root, ".", {"usr": (usr, UNMAPPED)})
    archive.finish()
    root.close()
    usr.close()
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as read:
        found = {member.name: (member.uid, member.gid) for member in read}
    assert found == {
        ".": (65534, 65534),
        "own": (5, 5),
        "usr": (0, 0),
        "usr/file": (3, 3),
    }
