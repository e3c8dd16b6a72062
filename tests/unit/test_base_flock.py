"""Locks on files: real files, real flocks. And the loop that waits."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from sysbox.base.errors import Conflict, KernelError
from sysbox.base.flock import Lock
from sysbox.base.wait import until


def test_one_alone_or_several_that_share(tmp_path: Path) -> None:
    path = f"{tmp_path}/made/too/lock"
    with Lock(path, shared=True), Lock(path, shared=True, wait=False):
        with pytest.raises(Conflict, match="is locked by another process"):
            Lock(path, wait=False)
        with pytest.raises(Conflict, match=r"lock has been locked by another process for 0 s"):
            Lock(path, timeout=0.01)
    Lock(path, wait=False).release()


def test_a_child_that_was_forked_does_not_keep_it(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    lock = Lock(f"{tmp_path}/lock")
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    lock.release()
    Lock(f"{tmp_path}/lock", wait=False).release()
    os.close(writer)
    os.waitpid(child, 0)
    os.close(reader)


def test_a_file_that_was_removed_is_not_the_lock(tmp_path: Path) -> None:
    """Whoever waited for it while it was removed locks the one that is there then."""
    path, flock = tmp_path / "lock", fcntl.flock
    removed = []

    def removed_meanwhile(fd: int, operation: int) -> None:
        if not removed:
            removed.append(path.unlink())
        flock(fd, operation)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fcntl, "flock", removed_meanwhile)
        lock = Lock(str(path))
    with pytest.raises(Conflict):
        Lock(str(path), wait=False)
    lock.release()


def test_what_is_no_file_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("elsewhere")
    for name in ("", "link"):
        with pytest.raises(KernelError):
            Lock(f"{tmp_path}/{name}")


def test_waiting_asks_once_at_least_and_tells_the_last_answer() -> None:
    answers = iter([0, 0, 3, 4])
    assert until(lambda: next(answers), 10, 0.001) == 3
    assert until(lambda: next(answers), 0, 10) == 4
    asked: list[None] = []
    until(lambda: asked.append(None), 0.02, 0.01)
    assert 2 <= len(asked) <= 4
