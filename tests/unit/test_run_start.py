"""The order of a start's steps, where another would lose a signal, a reason or a scope."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest
from forked import in_child

from sysbox.base.errors import StartError
from sysbox.base.undo import Undo
from sysbox.run import early_stop, exit_record, start, supervisor, teardown

FAILURE = StartError("no room", phase="network")


def test_signals_are_held_before_its_command_may_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that arrives as soon as the command runs is the container's, not the end of ours."""
    monkeypatch.setattr(start.events, "of_container", lambda *_: b"")
    monkeypatch.setattr(start.events, "send", lambda _: None)

    def release() -> list[bool]:
        held: list[bool] = []

        def note(*_: object) -> None:
            held.append(set(supervisor.FORWARDED) <= signal.pthread_sigmask(signal.SIG_BLOCK, ()))

        parked: Any = SimpleNamespace(proceed=note, await_exec=note)
        plan: Any = SimpleNamespace(
            process=SimpleNamespace(tty=False), namespaces=SimpleNamespace(joins_pid=False)
        )
        record: Any = SimpleNamespace(spec=SimpleNamespace(pidfile=""))
        start._release(record, plan, parked, lambda: None, None)
        return held

    assert in_child(release) == [True, True]


def test_why_a_start_failed_is_written_before_its_run_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed in between, gc would find a container that was never started.

    A SIGTERM, for which the first step may be the cause, comes in between to nobody.
    """

    def fail() -> list[str]:
        steps: list[str] = []

        def unwind(*_: object, **__: object) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            steps.append("unwind")

        monkeypatch.setattr(teardown, "unwind", unwind)
        for name in ("write_final", "remove_run"):
            monkeypatch.setattr(start.store, name, lambda *_, name=name: steps.append(name))
        monkeypatch.setattr(exit_record, "of_start", lambda *_: None)
        early_stop.heed()
        nothing: Any = None
        start._record_failure(nothing, nothing, FAILURE)
        return steps

    assert in_child(fail) == ["unwind", "write_final", "remove_run"]


def test_a_scope_that_was_asked_for_is_awaited_though_the_start_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that began after the unwinding would belong to no run."""
    steps: list[str] = []
    pending = SimpleNamespace(abandon=lambda: steps.append("abandon"))

    def fail(*_: object, **__: object) -> None:
        steps.append("connect")
        raise FAILURE

    monkeypatch.setattr(start.scope, "begin", lambda *_: pending)
    monkeypatch.setattr(start, "_connect", fail)
    security = SimpleNamespace(privileged=False)
    record: Any = SimpleNamespace(id="ab" * 32, spec=SimpleNamespace(security=security))
    network = SimpleNamespace(attachments=())
    plan: Any = SimpleNamespace(scope=None, namespaces=SimpleNamespace(uids=()), network=network)
    parked: Any = SimpleNamespace(pid=1)
    bus: Any = None
    with pytest.raises(StartError, match="no room"):
        start._surround(bus, record, plan, parked, Undo(), logged=False)
    assert steps == ["connect", "abandon"]
