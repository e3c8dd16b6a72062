"""The wait for a scope's start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from sysbox import scope
from sysbox.base.errors import SystemdError
from sysbox.units.bus import Bus

UNIT = "docker-1.scope"
JOB = "/org/freedesktop/systemd1/job/7"


class Manager:
    """A connection to a systemd that starts whatever it is asked to."""

    def __init__(self) -> None:
        self.asked = 0
        self.called: list[tuple[str, ...]] = []

    def retry(self, call: Callable[[], Any]) -> Any:
        return call()

    def send(self, *_: object) -> int:
        self.asked += 1
        return self.asked

    def reply(self, _serial: int, _timeout: float = 0) -> tuple[str]:
        return (JOB,)

    def call(self, *words: str) -> None:
        self.called.append(words)


@pytest.mark.parametrize(("active", "asked"), [("deactivating", 1), ("inactive", 2)])
def test_a_start_is_repeated_unless_its_stop_was_requested(
    active: str, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On v1 a scope may vanish by itself; one that is being stopped was asked to, and is not begun again."""
    monkeypatch.setattr(scope, "wait_job", lambda *_: None)
    monkeypatch.setattr(scope, "active_state", lambda *_: active)
    monkeypatch.setattr(scope, "state", lambda *_: (active, "dead", "success"))
    bus = Manager()
    pending = scope.Pending(cast("Bus", bus), UNIT, [])
    with pytest.raises(SystemdError):
        pending.wait(timeout=1)
    assert bus.asked == asked


def test_the_job_of_an_interrupted_start_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may wait for the stop of the service that has asked for it, and its end may have been told."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scope, "wait_job", interrupted)
    bus = Manager()
    pending = scope.Pending(cast("Bus", bus), UNIT, [])
    with pytest.raises(KeyboardInterrupt):
        pending.wait(timeout=1)
    pending.abandon()
    assert bus.called == [(JOB, "org.freedesktop.systemd1.Job", "Cancel")]
