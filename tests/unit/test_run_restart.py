"""What is said of a container with a policy between two runs."""

from __future__ import annotations

import time
from contextlib import nullcontext

import pytest

from sysbox import scope
from sysbox.container.records import Record, Status
from sysbox.run import restart
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
