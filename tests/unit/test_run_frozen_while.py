"""A container is frozen for a while: it goes on in any case, also if the command that froze it is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sysbox.base.wait import until
from sysbox.run import frozen_while
from sysbox.run.frozen_while import FrozenWhile

RECORD: Any = SimpleNamespace(id="ab" * 32)


@pytest.fixture
def freezer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file with a line for each time that the container was frozen or thawed; it runs."""
    file = tmp_path / "freezer"
    file.touch()

    def note(word: str) -> Any:
        def write(*_: object) -> None:
            with file.open("a") as lines:
                lines.write(f"{word}\n")
            if word == "frozen":
                (tmp_path / "guard").write_text(guard())

        return write

    runtime = SimpleNamespace(alive=lambda: True, scope="x.scope", cgroup="/x")
    monkeypatch.setattr(frozen_while.store, "runtime", lambda _: runtime)
    monkeypatch.setattr(frozen_while, "is_frozen", lambda *_: False)
    monkeypatch.setattr(frozen_while.freezer, "freeze", note("frozen"))
    monkeypatch.setattr(frozen_while.freezer, "thaw", note("thawed"))
    yield file
    # one that waits for ever is not left behind
    name = tmp_path / "guard"
    place = Path("/proc", name.read_text() if name.exists() else "none", "cmdline")
    if place.exists() and place.read_bytes() == Path("/proc/self/cmdline").read_bytes():
        os.kill(int(name.read_text()), signal.SIGKILL)


def guard() -> str:
    """The pid of the only child of this process."""
    own = os.getpid()
    return Path(f"/proc/{own}/task/{own}/children").read_text().strip()


def child(body: Any) -> int:
    """The wait status of a process in a group of its own, which calls `body` while it is frozen."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setpgid(0, 0)
            with FrozenWhile(RECORD):
                body()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_it_is_thawed_once_after_the_block(freezer: Path) -> None:
    assert child(lambda: None) == 0
    assert freezer.read_text() == "frozen\nthawed\n"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_it_is_thawed_when_the_command_is_ended(freezer: Path, number: int) -> None:
    child(lambda: os.kill(os.getpid(), number))
    assert until(lambda: freezer.read_text() == "frozen\nthawed\n", 10, 0.01)


def test_a_signal_for_the_whole_group_does_not_end_the_guard(freezer: Path) -> None:
    def waits() -> bool:
        return Path(f"/proc/{guard()}/stat").read_text().rpartition(") ")[2].startswith("S")

    def end_all() -> None:
        until(waits, 10, 0.01)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.killpg(0, signal.SIGINT)

    assert child(end_all) == -signal.SIGINT
    assert until(lambda: freezer.read_text() == "frozen\nthawed\n", 10, 0.01)


def test_one_that_was_paused_stays_so(freezer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen_while, "is_frozen", lambda *_: True)
    assert child(lambda: None) == 0
    assert freezer.read_text() == ""
