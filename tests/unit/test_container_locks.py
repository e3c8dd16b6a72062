"""The lock of a container, and the doorway: real files, real flocks."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from sysbox.base.errors import Conflict, FormatError, NotFound
from sysbox.base.files import remove_tree
from sysbox.container import leftovers, locks, store
from sysbox.container.locks import ContainersLock, Lock

ID = "ab" * 32


@pytest.fixture
def containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where containers are: one, with its lock."""
    for module in (leftovers, locks, store):
        monkeypatch.setattr(module, "CONTAINERS", f"{tmp_path}")
    monkeypatch.setattr(store, "RUN_CONTAINERS", f"{tmp_path}/run")
    (tmp_path / ID).mkdir()
    Lock(ID).release()
    return tmp_path


def test_one_at_a_time(containers: Path) -> None:
    with Lock(ID), pytest.raises(Conflict, match="abababababab is in use by another command"):
        Lock(ID, wait=False)
    with Lock(ID, wait=False):
        pass


def test_a_lock_goes_with_its_container(containers: Path) -> None:
    """Whoever has opened it before is not given it after."""
    flock = fcntl.flock

    def removed_meanwhile(fd: int, operation: int) -> None:
        remove_tree(f"{containers}/{ID}")
        flock(fd, operation)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fcntl, "flock", removed_meanwhile)
        with pytest.raises(NotFound):
            Lock(ID)
    with pytest.raises(NotFound):
        Lock(ID)


def test_a_lock_that_was_lost_is_made_again(containers: Path) -> None:
    lock = containers / ID / "lock"
    lock.unlink()
    Lock(ID).release()
    assert lock.is_file()
    flock = fcntl.flock
    lost = [lock.unlink]

    def lost_meanwhile(fd: int, operation: int) -> None:
        if lost:
            lost.pop()()
        flock(fd, operation)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fcntl, "flock", lost_meanwhile)
        taken = Lock(ID)
    with pytest.raises(Conflict):
        Lock(ID, wait=False)
    taken.release()


def test_a_directory_that_is_being_removed_is_no_container(
    containers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a lock that is missing in a container's directory was lost, and not removed with it."""
    remove_at = locks.remove_at
    seen = []

    def looked_at(parent: int, name: str) -> None:
        seen.append((name, (containers / ID).exists(), (containers / name / "lock").exists()))
        with pytest.raises(NotFound):
            Lock(ID)
        remove_at(parent, name)

    monkeypatch.setattr(locks, "remove_at", looked_at)
    (containers / ID / "upper").mkdir()
    with Lock(ID):
        store.discard(ID)
        store.discard(ID)  # an absent one is success
    assert seen == [(f".old-{ID}", False, True)]
    assert store.ids() == []
    assert not (containers / f".old-{ID}").exists()


def test_a_removal_that_was_interrupted_is_finished(containers: Path) -> None:
    (containers / ID).rename(containers / f".old-{ID}")
    assert store.ids() == []
    assert leftovers.discard_drafts() == [ID]
    assert not (containers / f".old-{ID}").exists()


def test_what_has_the_name_of_a_lock_is_replaced(containers: Path) -> None:
    lock = containers / ID / "lock"
    lock.unlink()
    (lock / "in").mkdir(parents=True)
    with pytest.raises(FormatError, match="the lock of container abababababab: Is a directory"):
        Lock(ID)
    locks.replace_lock(ID).release()
    Lock(ID).release()
    with pytest.raises(NotFound):
        locks.replace_lock("cd" * 32)


def test_nobody_is_alone_where_somebody_goes_through(containers: Path) -> None:
    draft = containers / f".new-{'cd' * 32}"
    draft.mkdir()
    with ContainersLock(), ContainersLock():
        with pytest.raises(Conflict):
            ContainersLock(exclusive=True, wait=False)
        assert leftovers.discard_drafts() == []
    assert draft.exists()
    assert leftovers.discard_drafts() == ["cd" * 32]
    assert not draft.exists()


def test_where_there_is_no_directory_nobody_goes_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "CONTAINERS", f"{tmp_path}/none")
    with pytest.raises(NotFound):
        ContainersLock()
    assert leftovers.discard_drafts() == []
