"""Requests to stop a scope, as the supervisor in the foreground learns of them."""

from __future__ import annotations

from typing import Any, cast

import pytest

from sysbox import scope
from sysbox.base.errors import SystemdError
from sysbox.run.stop_requests import StopRequests
from sysbox.units.bus import Bus

UNIT = "docker-1.scope"
START = "/org/freedesktop/systemd1/job/7"


class Told:
    """A connection on which these jobs have been announced; `whole` is whether no signal was lost.

    `kind` is the type of each job.
    """

    def __init__(
        self, jobs: list[tuple[int, str, str]], *, whole: bool, kind: str = "stop"
    ) -> None:
        self._jobs, self._whole, self._kind = jobs, whole, kind

    def has_all(self, member: str) -> bool:
        return self._whole

    def watch(self, member: str) -> None:
        assert member == "JobNew"

    def pending(self, member: str) -> list[tuple[Any, ...]]:
        jobs, self._jobs = self._jobs, []
        return cast("list[tuple[Any, ...]]", jobs)

    def call(self, job: str, *_: object) -> tuple[str]:
        assert job.startswith(START)
        if not self._kind:
            raise SystemdError("no such job", dbus_name="org.freedesktop.DBus.Error.UnknownObject")
        return (self._kind,)


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


@pytest.mark.parametrize(
    ("kind", "active", "asked"),
    [
        ("start", "active", False),
        ("restart", "active", True),
        ("", "active", False),
        ("", "deactivating", True),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_only_a_job_that_stops_it_is_a_request(
    kind: str, active: str, asked: bool, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`systemctl start` on a container that runs has no effect; a job may have ended when it is looked at."""
    monkeypatch.setattr(scope, "progress", lambda *_: ("active", 7 if kind else 0))
    monkeypatch.setattr(scope, "active_state", lambda *_: active)
    bus = cast("Bus", Told([(8, f"{START}8", UNIT)], whole=whole, kind=kind))
    assert StopRequests(bus, UNIT).asked is asked
