"""What is said of a container with a policy between two runs."""

from __future__ import annotations

import time
from contextlib import nullcontext

import pytest

from sysbox import scope
from sysbox.container import systemd_mode
from sysbox.container.records import Ended, Record, Status
from sysbox.run import exit_record, restart
from sysbox.spec import ContainerSpec, RestartPolicy
from sysbox.units.bus import Bus

RECORD = Record(
    id="a" * 64, name="a", created_ns=1, image_id=f"sha256:{'b' * 64}", image_name="b",
    argv=("true",), spec=ContainerSpec(image="b", restart=RestartPolicy(name="always")),
)  # fmt: skip


def test_an_end_that_nobody_has_recorded_yet_was_a_moment_ago(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And not in 1970."""
    started = time.time() - 5
    monkeypatch.setattr(restart, "read_status", lambda _: Status(state="dead", started_at=started))
    monkeypatch.setattr(Bus, "connect", lambda: nullcontext())
    monkeypatch.setattr(scope, "progress", lambda _bus, _unit: ("activating", 0))
    found = restart.status(RECORD)
    assert found.state == "restarting"
    assert found.started_at == started
    assert time.time() - found.finished_at < 5


@pytest.mark.parametrize(
    ("job", "state"), [("start", "restarting"), ("restart", "restarting"), ("stop", "dead")]
)
@pytest.mark.parametrize(("code", "policy"), [(3, "always"), (3, "on-failure"), (0, "on-failure")])
def test_while_an_end_is_recorded(
    monkeypatch: pytest.MonkeyPatch, job: str, state: str, code: int, policy: str
) -> None:
    """A queued start is none of a stop's, and the monitor has written the exit status."""
    status = Status(state="dead", started_at=time.time() - 5)
    monkeypatch.setattr(restart, "read_status", lambda _: status)
    monkeypatch.setattr(Bus, "connect", lambda: nullcontext())
    monkeypatch.setattr(scope, "progress", lambda _bus, _unit: ("deactivating", 7))
    monkeypatch.setattr(restart, "_job_type", lambda _bus, _job: job)
    monkeypatch.setattr(exit_record, "of_monitor", lambda _: Ended(code=code))
    record = RECORD.replace(spec=RECORD.spec.replace(restart=RestartPolicy(name=policy)))
    found = restart.status(record)
    assert found.state == ("dead" if policy == "on-failure" and not code else state)
    assert found.exit_code == code


def test_a_systemd_inside_that_has_shut_down_has_not_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        restart, "read_status", lambda _: Status(state="dead", started_at=time.time())
    )
    monkeypatch.setattr(Bus, "connect", lambda: nullcontext())
    monkeypatch.setattr(scope, "progress", lambda _bus, _unit: ("deactivating", 0))
    monkeypatch.setattr(
        exit_record, "of_monitor", lambda _: Ended(code=systemd_mode.STATUSES[0], signal=2)
    )
    spec = RECORD.spec.replace(systemd="always", restart=RestartPolicy(name="on-failure"))
    found = restart.status(RECORD.replace(spec=spec))
    assert (found.state, found.exit_code) == ("dead", 0)
