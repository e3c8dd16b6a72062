"""Leases of pairs of SELinux's categories."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from sysbox.base import paths
from sysbox.base.errors import Conflict
from sysbox.container import levels

A, B, C = ("a" * 64, "b" * 64, "c" * 64)


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Leases of this test's own."""
    monkeypatch.setattr(levels, "DIRECTORY", str(tmp_path / "levels"))
    monkeypatch.setattr(paths, "CONTAINERS", str(tmp_path / "containers"))
    monkeypatch.setattr(paths, "PODS", str(tmp_path / "pods"))
    return tmp_path / "levels"


def test_a_pair_is_its_containers_alone_and_stays() -> None:
    pairs = {one: levels.acquire(one) for one in (A, B, C)}
    assert len(set(pairs.values())) == 3
    assert all(0 <= first < second < 1024 for first, second in pairs.values())
    assert levels.acquire(B) == pairs[B]
    assert levels.leases() == pairs
    levels.release(B)
    levels.release(B)
    assert levels.leases() == {A: pairs[A], C: pairs[C]}


def test_shared_and_given() -> None:
    assert levels.acquire(B, share=A) == levels.acquire(A)
    assert set(levels.leases()) == {A, B}
    assert levels.acquire(C, given=(7, 9)) == (7, 9)
    levels.release(A)
    assert levels.acquire(B) == levels.leases()[B]


def test_a_preview_leases_nothing(directory: Path) -> None:
    levels.preview(A)
    assert not directory.exists()
    pair = levels.acquire(A)
    assert levels.preview(A) == pair
    assert levels.preview(B, share=A) == pair


def _lease(number: int) -> tuple[int, int]:
    return levels.acquire(f"{number:064x}")


def test_many_at_once_get_different_pairs() -> None:
    with ProcessPoolExecutor(4) as pool:
        found = list(pool.map(_lease, range(40)))
    assert len(set(found)) == 40


def test_the_last_free_pair_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels, "CATEGORIES", 3)
    found = {levels.acquire(one) for one in (A, B, C)}
    assert found == {(0, 1), (0, 2), (1, 2)}
    with pytest.raises(Conflict, match="every pair"):
        levels.acquire("d" * 64)


def test_other_files_are_no_leases(directory: Path) -> None:
    directory.mkdir()
    for name in ("x", f"1-{A}", f"1-2-3-{A}", f"x-2-{A}", f"1-2-{A}0"):
        (directory / name).touch()
    assert levels.leases() == {}


def test_what_belongs_to_nothing_is_released(tmp_path: Path) -> None:
    assert levels.reclaim() == []
    for one in (A, B, C):
        levels.acquire(one)
    (tmp_path / "containers" / A).mkdir(parents=True)
    (tmp_path / "pods/.ids").mkdir(parents=True)
    (tmp_path / "pods/.ids" / B).symlink_to("pod")
    with levels.hold():
        assert levels.reclaim() == []
    assert levels.reclaim() == [C]
    assert set(levels.leases()) == {A, B}


def test_a_lost_lease_is_written_again() -> None:
    pair = levels.acquire(A)
    assert not levels.restore(A, pair)
    levels.release(A)
    assert levels.restore(A, pair)
    assert levels.leases() == {A: pair}
