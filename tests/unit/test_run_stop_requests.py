"""Requests to stop a scope, as the supervisor in the foreground learns of them."""

from __future__ import annotations

from typing import Any, cast

import pytest

from sysbox import scope
from sysbox.run.stop_requests import StopRequests
from sysbox.units.bus import Bus

UNIT = "docker-1.scope"
START = "/org/freedesktop/systemd1/job/7"


class Told:
    """A connection on which these jobs have been announced; `whole` is whether no signal was lost."""

    def __init__(self, jobs: list[tuple[int, str, str]], *, whole: bool) -> None:
        self._jobs, self._whole = jobs, whole

    def has_all(self, member: str) -> bool:
        return self._whole

    def watch(self, member: str) -> None:
        assert member == "JobNew"

    def pending(self, member: str) -> list[tuple[Any, ...]]:
        return cast("list[tuple[Any, ...]]", self._jobs)


@pytest.mark.parametrize(
    ("jobs", "asked"),
    [
        ([], False),
        ([(7, START, UNIT)], False),
        ([(7, START, UNIT), (9, f"{START}9", "other.scope")], False),
        ([(7, START, UNIT), (8, f"{START}8", UNIT)], True),
    ],
)
def test_another_job_than_its_start_is_a_stop(
    jobs: list[tuple[int, str, str]], asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PID 1 is not asked: everything was announced."""
    monkeypatch.setattr(scope, "progress", lambda *_: pytest.fail("PID 1 was asked"))
    bus = cast("Bus", Told(jobs, whole=True))
    assert StopRequests(bus, UNIT, (START,)).asked is asked


@pytest.mark.parametrize(
    ("progress", "asked"), [(("active", 0), False), (("deactivating", 0), True)]
)
def test_a_new_connection_asks(
    progress: tuple[str, int], asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scope, "progress", lambda *_: progress)
    bus = cast("Bus", Told([], whole=False))
    assert StopRequests(bus, UNIT, (START,)).asked is asked
