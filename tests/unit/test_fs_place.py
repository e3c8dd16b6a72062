"""What is put into a directory that a container may be changing meanwhile."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import needs_root

from sysbox.fs import place
from sysbox.fs.place import Attributes

GIVEN = Attributes(mode=0o640, uid=5, gid=6, mtime=1_500_000_000 * 10**9)


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[int]:
    needs_root()
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def owner_of(path: Path) -> tuple[int, int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


def test_a_node_is_given_away(parent: int, tmp_path: Path) -> None:
    place.make_node(parent, "fifo", stat.S_IFIFO, 0, GIVEN, "fifo")
    place.make_symlink(parent, "link", "/nowhere", GIVEN, "link")
    assert owner_of(tmp_path / "fifo") == (5, 6, 0o640)
    assert owner_of(tmp_path / "link")[:2] == (5, 6)
    assert (tmp_path / "fifo").stat().st_mtime == 1_500_000_000


@pytest.mark.parametrize("what", ["link", "kind", "gone"])
def test_what_was_put_in_its_place_keeps_its_owner(parent: int, tmp_path: Path, what: str) -> None:
    """The container has made a hard link to another's file there, or a file, before it was given away."""
    other = tmp_path / "other"
    os.mkfifo(other, 0o600)
    if what == "link":
        os.link(other, tmp_path / "fifo")
    elif what == "kind":
        (tmp_path / "fifo").touch(0o600)
    place._set_attributes_at(parent, "fifo", stat.S_IFIFO, GIVEN)
    assert owner_of(other) == (0, 0, 0o600)
    if what == "kind":
        assert owner_of(tmp_path / "fifo") == (0, 0, 0o600)
