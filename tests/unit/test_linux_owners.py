"""Owners of files, translated between a container's ids and the host's; and what its root may not change."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

import pytest
from forked import in_child, needs_root

from sysbox.base.errors import Conflict, SpecError
from sysbox.fs import place
from sysbox.fs.place import Attributes
from sysbox.linux import _sys, userns
from sysbox.linux.owners import UNMAPPED, Owners, Reader
from sysbox.linux.userns import IdMap

RANGE = (IdMap(inside=0, outside=524288, count=65536),)
OWNERS = Owners(uids=RANGE, gids=RANGE)
# root alone, and a user of the host's between the ranges
SPLIT = (
    IdMap(inside=0, outside=100000, count=1000),
    IdMap(inside=1000, outside=1000, count=1),
    IdMap(inside=1001, outside=101000, count=64535),
)
CAPABLE_2 = bytes.fromhex("0100000200040000000000000000000000000000")
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *one)
    for one in (
        (1, 6, 0xFFFFFFFF),
        (2, 4, 1000),
        (4, 4, 0xFFFFFFFF),
        (8, 6, 50),
        (16, 6, 0xFFFFFFFF),
    )
)


@pytest.mark.parametrize(
    ("maps", "inside", "outside"),
    [
        ((), 7, 7),
        (RANGE, 0, 524288),
        (RANGE, 65535, 589823),
        (SPLIT, 999, 100999),
        (SPLIT, 1000, 1000),
        (SPLIT, 1001, 101000),
        (SPLIT, 65535, 165534),
    ],
)
def test_both_ways(maps: tuple[IdMap, ...], inside: int, outside: int) -> None:
    assert userns.inside(maps, outside) == inside
    assert userns.outside(maps, inside, "it") == outside
    assert userns.is_mapped(maps, outside)


@pytest.mark.parametrize("outside", [0, 524287, 589824, 65534])
def test_an_id_of_the_host_is_the_overflow_id_inside(outside: int) -> None:
    assert OWNERS.inside(outside, outside) == (65534, 65534)
    assert not userns.is_mapped(RANGE, outside)


def test_an_id_outside_of_the_map_names_the_file() -> None:
    with pytest.raises(
        SpecError, match=r"^owner of dir/file: 65536 is outside the container's ids"
    ):
        OWNERS.outside(0, 65536, "dir/file")
    acl = (
        "system.posix_acl_access",
        ACL.replace(struct.pack("<I", 1000), struct.pack("<I", 1 << 20)),
    )
    with pytest.raises(SpecError, match=r"^attributes of dir/file: 1048576 "):
        OWNERS.attributes_outside([acl], "dir/file")


def test_access_control_lists() -> None:
    plain = [("system.posix_acl_access", ACL), ("system.posix_acl_default", ACL), ("user.x", b"1")]
    mapped = OWNERS.attributes_outside(plain, "it")
    entries = list(struct.iter_unpack("<HHI", mapped[0][1][4:]))
    assert [one for one in entries if one[0] in (2, 8)] == [(2, 4, 525288), (8, 6, 524338)]
    assert [one[2] for one in entries if one[0] not in (2, 8)] == [0xFFFFFFFF] * 3
    assert mapped[2] == ("user.x", b"1")
    assert OWNERS.attributes_inside(mapped) == plain
    assert OWNERS.attributes_inside(plain) == plain, "as overlayfs of Linux 6.1 has them"
    assert UNMAPPED.attributes_outside(plain, "it") == UNMAPPED.attributes_inside(plain) == plain


@pytest.mark.parametrize("value", [b"", b"\2", b"\2\0\0\0" + bytes(7)])
def test_a_list_that_is_none_is_left_to_the_kernel(value: bytes) -> None:
    assert OWNERS.attributes_inside([("system.posix_acl_access", value)])[0][1] == value


def test_capabilities_have_a_root() -> None:
    def mapped(root: int) -> list[tuple[str, bytes]]:
        third = b"\1\0\0\3" + CAPABLE_2[4:] + struct.pack("<I", root)
        return [("security.capability", third)]

    plain = [("security.capability", CAPABLE_2)]
    assert OWNERS.attributes_outside(plain, "it") == mapped(524288)
    assert OWNERS.attributes_inside(mapped(524288)) == plain
    assert OWNERS.attributes_inside(plain) == plain
    # of a user namespace inside the container, and of a stranger's
    assert OWNERS.attributes_inside(mapped(525288)) == mapped(1000)
    assert OWNERS.attributes_outside(mapped(1000), "it") == mapped(525288)
    assert OWNERS.attributes_inside(mapped(700000)) == []
    assert OWNERS.attributes_inside(mapped(0)) == []


def given(uid: int) -> Attributes:
    return Attributes(mode=0o4755, uid=uid, gid=uid, mtime=0)


def test_new_files_belong_to_root_of_the_container(tmp_path: Path) -> None:
    needs_root()
    os.chown(tmp_path, 524288, 524288)

    def make() -> None:
        parent = os.open(tmp_path, os.O_RDONLY)
        for fd in (
            place.make_file(parent, "file", "file", OWNERS),
            place.make_directory(parent, "dir", "dir", OWNERS)[0],
        ):
            assert os.fstat(fd).st_uid == os.fstat(fd).st_gid == 524288
            os.close(fd)
        place.make_node(parent, "fifo", stat.S_IFIFO, 0, given(525288), "fifo", OWNERS)
        place.make_symlink(parent, "link", "to", given(525288), "link", OWNERS)
        assert (os.geteuid(), os.getegid()) == (0, 0)
        (tmp_path / "own").touch()

    in_child(make)
    owners = {path.name: path.lstat().st_uid for path in tmp_path.iterdir()}
    assert owners == {"file": 524288, "dir": 524288, "fifo": 525288, "link": 525288, "own": 0}


def test_what_the_host_owns_is_refused(tmp_path: Path) -> None:
    """On a bind mount whose ids are not mapped: the container may lead a copy there by a symbolic link."""
    needs_root()
    hosts, ours = tmp_path / "hosts", tmp_path / "ours"
    for directory in (hosts, ours):
        directory.mkdir()
        (directory / "file").write_text("the host's")
    os.chown(ours, 524288, 524288)
    os.chown(ours / "file", 0, 524288)  # the group alone is not enough
    parent, own = (os.open(one, os.O_RDONLY) for one in (hosts, ours))
    refused = "on the host, which is not in the container's user namespace"

    def all_refused() -> None:
        for at, name in ((parent, "file"), (parent, "new"), (own, "file")):
            with pytest.raises(Conflict, match=refused):
                place.make_file(at, name, name, OWNERS)
            with pytest.raises(Conflict, match=refused):
                place.make_symlink(at, name, "to", given(524288), name, OWNERS)
        with pytest.raises(Conflict, match=refused):
            place.make_directory(parent, "new", "new", OWNERS)
        fd = place.make_directory(parent, ".", ".", OWNERS)[0]
        with pytest.raises(Conflict, match=refused):
            place.set_attributes(fd, given(524288), "hosts", OWNERS)
        with pytest.raises(Conflict, match=refused):
            place.make_hard_link(own, "file", parent, "new", (0, 0), "new", OWNERS)

    in_child(all_refused)
    assert [path.name for path in hosts.iterdir()] == ["file"]
    assert (hosts / "file").read_text() == (ours / "file").read_text() == "the host's"
    # where everybody may write, root of the container may too
    hosts.chmod(0o1777)
    os.close(place.make_file(parent, "new", "new", OWNERS))
    with pytest.raises(Conflict, match=refused):
        place.make_file(parent, "file", "file", OWNERS)
    os.close(parent)
    os.close(own)


def test_what_root_of_the_container_may_not_read(tmp_path: Path) -> None:
    needs_root()
    file = tmp_path / "file"
    file.touch(0o640)
    with pytest.raises(Conflict, match="which is not in the container's user namespace"):
        OWNERS.check_content(file.stat(), "file")
    UNMAPPED.check_content(file.stat(), "file")
    file.chmod(0o644)
    OWNERS.check_content(file.stat(), "file")


def opens(handle: int) -> bool:
    """Whether what an O_PATH descriptor is of can be read: no directory above it is in the way."""
    try:
        os.close(os.open(f"/proc/self/fd/{handle}", os.O_RDONLY))
    except PermissionError:
        return False
    return True


@pytest.mark.parametrize("root", [(524288, 524288), (0, 0)], ids=["mapped", "host"])
def test_a_file_of_the_kernel_is_read_without_capabilities(
    tmp_path: Path, root: tuple[int, int]
) -> None:
    """Nor by a group of this process; and all that it has it has again afterwards."""
    needs_root()
    for name, group, mode in (("private", 7, 0o400), ("grouped", 0, 0o440)):
        (tmp_path / name).touch()
        os.chown(tmp_path / name, 7, group)
        (tmp_path / name).chmod(mode)
    private, grouped = (os.open(tmp_path / name, os.O_PATH) for name in ("private", "grouped"))

    def attempt() -> tuple[object, ...]:
        os.setgroups([0, 4])
        before = os.geteuid(), os.getegid(), os.getgroups(), _sys.capget()
        with Reader(root=root).rights(lambda: True):
            inside = os.geteuid(), os.getegid(), _sys.capget()[0], opens(private), opens(grouped)
        with Reader(root=root).rights(lambda: False), Reader().rights(lambda: True):
            outside = opens(private), opens(grouped)
        after = os.geteuid(), os.getegid(), os.getgroups(), _sys.capget()
        return inside, outside, before == after

    inside, outside, same = in_child(attempt)
    assert inside == (*root, 0, False, root == (0, 0))
    assert outside == (True, True)
    assert same
