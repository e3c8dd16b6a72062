"""Leases of ranges of ids."""

from __future__ import annotations

import posix
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from sysbox.base import paths
from sysbox.base.errors import Conflict
from sysbox.container import id_ranges, lease_files
from sysbox.linux.userns import IdMap
from sysbox.security import subids
from sysbox.security.idmap import Wish

A, B, C = ("a" * 64, "b" * 64, "c" * 64)
USUAL = Wish(size=65536)
FIRST = subids.FIRST


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Leases of this test's own, on a host without entries and far users."""
    monkeypatch.setattr(id_ranges, "DIRECTORY", str(tmp_path / "ids"))
    monkeypatch.setattr(paths, "CONTAINERS", str(tmp_path / "containers"))
    monkeypatch.setattr(subids, "FILES", (str(tmp_path / "subuid"), str(tmp_path / "subgid")))
    monkeypatch.setattr(subids, "DATABASES", (str(tmp_path / "passwd"), str(tmp_path / "group")))
    monkeypatch.setattr(subids, "NSPAWN", str(tmp_path / "nspawn"))
    return tmp_path / "ids"


def first(container_id: str, wish: Wish = USUAL) -> int:
    uids, gids = id_ranges.acquire(container_id, wish)
    assert uids == gids
    return uids[0].outside


def test_ranges_are_disjoint_and_stay() -> None:
    assert [first(one) for one in (A, B, C)] == [FIRST, FIRST + 65536, FIRST + 2 * 65536]
    assert first(B) == FIRST + 65536
    id_ranges.release(B)
    id_ranges.release(B)
    assert first("d" * 64) == FIRST + 65536
    assert {one[3] for one in id_ranges.leases()} == {A, C, "d" * 64}


def test_a_lease_is_an_empty_file_for_root_alone(directory: Path) -> None:
    first(A)
    (file,) = directory.glob(f"*{A}")
    assert file.name == f"{FIRST}-{FIRST}-65536-{A}"
    assert (file.stat().st_size, file.stat().st_mode & 0o777) == (0, 0o600)
    assert directory.stat().st_mode & 0o777 == 0o700


def test_other_files_are_no_leases(directory: Path) -> None:
    directory.mkdir()
    for name in ("x", "1-2-3-4", f"x-1-1-{A}", f"1-1-1-{A}0", f"{'1' * 99}-1-1-{A}"):
        (directory / name).touch()
    (directory / f"v-1-1-{A}").touch()
    assert id_ranges.leases() == id_ranges.given() == []
    assert first(A) == FIRST


def test_maps_that_are_given_take_no_range(directory: Path) -> None:
    given = (IdMap(inside=0, outside=7, count=2),)
    assert id_ranges.acquire(A, Wish(uids=given, gids=given)) == (given, given)
    assert id_ranges.leases() == []
    assert {one.name for one in directory.glob("?-*")} == {f"u-7-2-{A}", f"g-7-2-{A}"}


def test_no_range_has_ids_that_another_was_given(directory: Path) -> None:
    """Of either side, and of containers that were given the same."""
    users = Wish(uids=(IdMap(inside=0, outside=FIRST + 70000, count=1000),))
    groups = Wish(gids=(IdMap(inside=0, outside=FIRST + 65535, count=1),))
    for one, wish in ((A, users), (B, users), (C, groups)):
        id_ranges.acquire(one, wish)
    assert id_ranges.preview("d" * 64, USUAL)[0][0].outside == FIRST + 2 * 65536
    assert first("d" * 64) == FIRST + 2 * 65536
    id_ranges.release(C)
    assert first("e" * 64) == FIRST
    id_ranges.release(A)
    assert first("f" * 64) == FIRST + 3 * 65536, "one has them still"
    id_ranges.release(B)
    assert first("1" * 64) == FIRST + 65536
    assert id_ranges.given() == []


def test_ranges_side_by_side_are_one(directory: Path) -> None:
    rows = (IdMap(inside=5, outside=900, count=10), IdMap(inside=0, outside=895, count=5))
    id_ranges.acquire(A, Wish(uids=(*rows, IdMap(inside=50, outside=1000, count=1))))
    assert sorted(id_ranges.given()) == [(0, 895, 15, A), (0, 1000, 1, A)]


def test_ids_that_are_the_hosts_own_are_not_given(directory: Path) -> None:
    """keep-id of root, and --uidmap 0:0:4294967295: everybody's ids are there, of each range too."""
    everybody = (IdMap(inside=0, outside=0, count=(1 << 32) - 1),)
    assert id_ranges.acquire(A, Wish(uids=everybody, gids=everybody)) == (everybody, everybody)
    assert not directory.exists()
    assert first(B) == FIRST


def test_who_joins_one_with_given_ids_has_them_too() -> None:
    given = (IdMap(inside=1000, outside=FIRST + 65536, count=1),)
    maps = id_ranges.acquire(A, Wish(size=65536, uids=given))
    joins = Wish(uids=maps[0], gids=maps[1], share=A)
    assert id_ranges.acquire(B, joins) == maps
    id_ranges.release(A)
    assert [one[3] for one in id_ranges.given()] == [B]
    assert [one[3] for one in id_ranges.leases()] == [B]
    assert first(C) != FIRST + 65536


def test_given_ids_that_were_lost() -> None:
    wish = Wish(uids=(IdMap(inside=0, outside=7, count=2),))
    id_ranges.acquire(A, wish)
    assert not id_ranges.restore_given(A, wish)
    id_ranges.release(A)
    assert id_ranges.restore_given(A, wish)
    assert id_ranges.given() == [(0, 7, 2, A)]
    assert id_ranges.reclaim() == [A]
    assert not id_ranges.restore_given(A, USUAL)


def test_given_ids_within_a_range(directory: Path) -> None:
    """They stay, and the range is around them; it has none of them a second time."""
    given = (IdMap(inside=1000, outside=FIRST + 3, count=1),)
    uids, gids = id_ranges.acquire(A, Wish(size=65536, uids=given))
    start = FIRST + 65536
    assert gids == (IdMap(inside=0, outside=start, count=65536),)
    assert uids == (
        IdMap(inside=0, outside=start, count=1000),
        *given,
        IdMap(inside=1001, outside=start + 1001, count=64535),
    )


def test_a_shared_user_namespace() -> None:
    """Its ids are not free before the last of its containers is removed."""
    maps = id_ranges.acquire(A, USUAL)
    assert id_ranges.acquire(B, Wish(uids=maps[0], gids=maps[1], share=A)) == maps
    id_ranges.release(A)
    assert first(C) == FIRST + 65536
    id_ranges.release(B)
    assert first("d" * 64) == FIRST
    # one without a lease, such as that of --uidmap
    assert id_ranges.acquire("e" * 64, Wish(uids=maps[0], gids=maps[1], share="f" * 64)) == maps


def entry(line: str) -> None:
    """Another user's, in both files."""
    for file in subids.FILES:
        Path(file).write_text(line)


def test_a_range_that_another_user_has_by_now(directory: Path) -> None:
    wish = Wish(size=65536, uids=(IdMap(inside=7, outside=7000, count=1),))
    maps = id_ranges.acquire(A, wish)
    assert first(B) == FIRST + 65536
    assert id_ranges.move(A, maps) == (maps, "")
    entry(f"alice:{FIRST + 65535}:1")
    moved, old = id_ranges.move(A, maps)
    assert old == f"{directory}/{FIRST}-{FIRST}-65536-{A}"
    shift = 2 * 65536
    assert moved[1] == (IdMap(inside=0, outside=FIRST + shift, count=65536),)
    assert [(one.inside, one.outside, one.count) for one in moved[0]] == [
        (0, FIRST + shift, 7), (7, 7000, 1), (8, FIRST + shift + 8, 65528),
    ]  # fmt: skip
    assert (directory / f"{FIRST + shift}-{FIRST + shift}-65536-{A}").exists()
    # an interrupted move is no reason for a third
    assert id_ranges.move(A, moved) == (moved, "")
    assert id_ranges.move(B, (USUAL_B, USUAL_B)) == ((USUAL_B, USUAL_B), "")


USUAL_B = (IdMap(inside=0, outside=FIRST + 65536, count=65536),)


def test_a_range_that_stays(directory: Path) -> None:
    """It is shared, or given, or an entry of sysbox itself; or no other is free."""
    maps = id_ranges.acquire(A, USUAL)
    shared = Wish(uids=maps[0], gids=maps[1], share=A)
    assert id_ranges.acquire(B, shared) == maps
    entry(f"alice:{FIRST}:1")
    assert id_ranges.move(A, maps) == (maps, "")
    id_ranges.release(B)
    entry(f"containers:{FIRST}:65536")
    assert id_ranges.move(A, maps) == (maps, "")
    given = (IdMap(inside=0, outside=5000, count=10),)
    id_ranges.acquire(C, Wish(uids=given, gids=given))
    entry("alice:5000:10")
    assert id_ranges.move(C, (given, given)) == ((given, given), "")
    entry(f"sysbox:{FIRST}:65536\nalice:{FIRST}:1")
    with pytest.raises(Conflict, match="overlap"):
        id_ranges.move(A, maps)


def test_a_look_leases_nothing(directory: Path) -> None:
    assert id_ranges.preview(A, USUAL) == id_ranges.preview(B, USUAL)
    assert not directory.exists()
    assert id_ranges.preview(A, USUAL) == id_ranges.acquire(B, USUAL)


def test_leases_of_containers_that_are_gone(directory: Path) -> None:
    assert id_ranges.reclaim() == []
    assert not directory.exists()
    for one in (A, B):
        first(one)
    Path(paths.CONTAINERS, A).mkdir(parents=True)
    with id_ranges.hold():  # a container is being made, perhaps this one
        assert id_ranges.reclaim() == []
    assert id_ranges.reclaim() == [B]
    assert [one[3] for one in id_ranges.leases()] == [A]


def test_a_lease_that_is_given_back_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at the leases and that at its container: gc said that it had released it."""
    first(A)
    exists = lease_files._exists

    def removed_now(owner: str) -> bool:
        id_ranges.release(owner)
        return exists(owner)

    monkeypatch.setattr(lease_files, "_exists", removed_now)
    assert id_ranges.reclaim() == []


def test_a_lease_that_was_lost() -> None:
    given = (IdMap(inside=0, outside=7, count=1),)
    wish = Wish(size=65536, uids=given, gids=given)
    maps = id_ranges.acquire(A, wish)
    assert not id_ranges.restore(A, wish, maps)
    before = id_ranges.leases()
    id_ranges.release(A)
    assert id_ranges.restore(A, wish, maps)
    assert id_ranges.leases() == before
    id_ranges.release(A)
    first(B)
    with pytest.raises(Conflict, match="have the same ids"):
        id_ranges.restore(A, wish, maps)
    assert not id_ranges.restore(C, Wish(uids=given, gids=given), (given, given))


def test_a_lost_lease_of_which_another_has_a_copy() -> None:
    """Containers in one user namespace: that of the first may be lost, and that of the second not."""
    maps = id_ranges.acquire(A, USUAL)
    id_ranges.acquire(B, Wish(uids=maps[0], gids=maps[1], share=A))
    id_ranges.release(A)
    with pytest.raises(Conflict, match="have the same ids"):
        id_ranges.restore(A, USUAL, maps, {C})
    assert id_ranges.restore(A, USUAL, maps, {B})
    assert {one[3] for one in id_ranges.leases()} == {A, B}


def _many(start: int) -> list[int]:
    return [first(f"{start + step:064x}") for step in range(8)]


def test_several_at_once() -> None:
    with ProcessPoolExecutor(4) as pool:
        found = [one for part in pool.map(_many, (0, 100, 200, 300)) for one in part]
    assert len(set(found)) == len(found) == 32
    assert len(id_ranges.leases()) == 32


def test_hundreds_of_them(directory: Path) -> None:
    directory.mkdir()
    for number in range(1000):
        start = FIRST + 65536 * number
        posix.close(posix.open(directory / f"{start}-{start}-65536-{number:064x}", posix.O_CREAT))
    assert first(A) == FIRST + 65536 * 1000
