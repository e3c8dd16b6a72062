"""The end of a run, as it is recorded: what needs no container."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import cast

import pytest

from sysbox.container.records import Ended, Final, Record, Runtime, Usage
from sysbox.linux import kmsg
from sysbox.run import exit_record

SECOND = 1_000_000_000


@pytest.mark.parametrize("pause", [1, 60])
def test_the_log_is_read_from_the_pause_before_the_run(
    monkeypatch: pytest.MonkeyPatch, pause: int
) -> None:
    """The kernel's log has a clock of its own: either side of the cut has half of the pause."""
    asked: list[int] = []
    monkeypatch.setattr(kmsg, "oom_victims", lambda _, since: asked.append(since) or ("dd",))
    now, up = 1_700_000_000 * SECOND, 5_000 * SECOND
    # both stand still, else what passes between two looks at them would count
    monkeypatch.setattr(time, "time_ns", lambda: now)
    monkeypatch.setattr(time, "monotonic_ns", lambda: up)
    run = Runtime(
        pid=1, start_time=1, supervisor=1, supervisor_start=1, scope="docker-a.scope",
        started_ns=now - 10 * SECOND,
    )  # fmt: skip
    assert exit_record._victims(run, None) == ("dd",)
    earlier = Final(exit_code=0, started_ns=0, finished_ns=run.started_ns - pause * SECOND)
    exit_record._victims(run, earlier)
    began = up // 1000 - 10_000_000
    assert asked == [0, began - pause * 500_000]


@pytest.mark.parametrize(
    ("mode", "remove", "signal", "usage", "asked"),
    [
        ("v2", False, 0, Usage(), True),
        ("v2", False, 0, Usage(cpu_ns=1), False),
        ("v2", False, 9, Usage(cpu_ns=1), True),
        ("v2", True, 0, Usage(), False),
        ("v2", True, 9, Usage(), True),
        ("hybrid", False, 9, Usage(), False),
    ],
)
def test_the_log_is_asked_where_the_counter_may_have_gone(
    monkeypatch: pytest.MonkeyPatch, mode: str, remove: bool, signal: int, usage: Usage, asked: bool
) -> None:
    """systemd removes a cgroup as soon as it is empty, the numbers in it with it."""
    monkeypatch.setattr(exit_record, "probe", lambda: SimpleNamespace(cgroup_mode=mode))
    spec = SimpleNamespace(remove=remove)
    record = cast("Record", SimpleNamespace(spec=spec, run_directory="/nowhere"))
    ended = Ended(code=7, signal=signal, usage=usage)
    assert exit_record._may_be_victim(record, ended) is asked
