"""An end that nobody recorded: recorded by the verbs that show containers, one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from sysbox.base.errors import FormatError, KernelError
from sysbox.container import store
from sysbox.container.records import Record, Status
from sysbox.lifecycle import control, current, repair

if TYPE_CHECKING:
    from collections.abc import Callable

GOES_ON = "aa"
CONTAINERS = ("stuck", "lost", GOES_ON, "damaged", "unreadable", "brief")


class Host:
    """Containers by their names, all but one with an end to record."""

    def __init__(self) -> None:
        self.states = dict.fromkeys(CONTAINERS, "dead") | {GOES_ON: "running"}
        self.named = set(CONTAINERS)
        self.scopes = {GOES_ON}
        self.asked: list[str] = []

    def status_of(self, record: Record) -> Status:
        error = "damaged" if record.name == "damaged" else ""
        state = self.states[record.name]
        return Status(state=state, pid=int(state == "running"), error=error)

    def settle(self, record: Record) -> None:
        self.asked.append(record.name)
        if record.name == "stuck":
            raise KernelError("remove", "a cgroup", 16)
        if record.name == "unreadable":
            raise FormatError("its state is damaged")
        if record.name == "brief":  # --rm
            self.named.remove(record.name)
        self.states[record.name] = "exited"


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    one = Host()
    records = [cast("Record", type("Named", (), {"name": name})()) for name in CONTAINERS]
    named: Callable[[Record], bool] = lambda record: record.name in one.named  # noqa: E731
    monkeypatch.setattr(
        current, "all_containers", lambda _: [(record, one.status_of(record)) for record in records]
    )
    monkeypatch.setattr(repair, "has_scope", lambda record: record.name in one.scopes)
    monkeypatch.setattr(current, "status_of", one.status_of)
    monkeypatch.setattr(store, "is_named", named)
    monkeypatch.setattr(control, "settle_if_dead", one.settle)
    return one


def test_one_that_cannot_be_repaired_hides_no_other(host: Host) -> None:
    found = {record.name: status.state for record, status in repair.all_repaired()}
    assert found == {
        "stuck": "dead",
        "lost": "exited",
        GOES_ON: "running",
        "damaged": "dead",
        "unreadable": "dead",
    }


def test_what_runs_or_is_damaged_is_left_alone(host: Host) -> None:
    list(repair.all_repaired())
    assert host.asked == ["stuck", "lost", "unreadable", "brief"]


def test_a_run_that_was_lost_is_looked_for(host: Host) -> None:
    """What does not run has no scope."""
    host.states |= {"stuck": "created", "lost": "exited", "brief": "created"}
    host.scopes = {GOES_ON, "lost"}
    list(repair.all_repaired())
    assert host.asked == ["lost", "unreadable"]
