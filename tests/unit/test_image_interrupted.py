"""A signal that ends a pull at the worst instant: what was just made is undone all the same."""

from __future__ import annotations

import os
import posix
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from forked import needs_root

from sysbox.base import files
from sysbox.image import crew, ingest
from sysbox.image.store import Store


@pytest.fixture(autouse=True)
def interrupts() -> Iterator[None]:
    """SIGTERM interrupts, as in a service that starts (run/early_stop.py)."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    yield
    signal.signal(signal.SIGTERM, before)


def and_then_a_signal(call: Callable[..., Any], text: str = "") -> Callable[..., Any]:
    """The same call, with SIGTERM right after it in the process that made it; `text` is in its arguments."""
    caller = os.getpid()

    def both(*arguments: Any) -> Any:
        result = call(*arguments)
        if os.getpid() == caller and text in str(arguments):
            signal.raise_signal(signal.SIGTERM)  # to this thread: pytest may have others
        return result

    return both


def test_the_temporary_directory_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_root()
    store = Store(f"{tmp_path}/images")
    ingest.prepare(store)
    monkeypatch.setattr(files, "make_private", and_then_a_signal(files.make_private, "temporary/"))
    with pytest.raises(KeyboardInterrupt), ingest.Ingest(store):
        pytest.fail("it was interrupted before")
    assert not list(Path(store.root, "temporary").iterdir())
    monkeypatch.undo()
    assert store.gc() == [], "the lock is released"


def test_no_worker_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def fork() -> int:
        if pid := real():
            made.append(pid)
        return pid

    real = posix.fork
    monkeypatch.setattr(posix, "fork", and_then_a_signal(fork))
    with pytest.raises(KeyboardInterrupt), crew.Crew(1, lambda job, _fd, _report: job) as workers:
        workers.give({"what": "nothing"})
    (worker,) = made
    with pytest.raises(ChildProcessError):
        os.waitpid(worker, os.WNOHANG)
