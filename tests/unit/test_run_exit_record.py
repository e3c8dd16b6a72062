"""The end of a run, as it is recorded: what needs no container."""

from __future__ import annotations

import time

import pytest
from hostfacts import facts

from sysbox.container.records import Ended, Final, Record, Runtime, Usage
from sysbox.linux import kmsg
from sysbox.run import exit_record
from sysbox.spec import ContainerSpec

SECOND = 1_000_000_000
RECORD = Record(
    id="ab" * 32, name="x", created_ns=1, spec=ContainerSpec(image="i"), image_id=f"sha256:{'ab' * 32}",
    image_name="i", argv=("/x",),
)  # fmt: skip


@pytest.mark.parametrize("pause", [1, 60])
def test_the_log_is_read_from_the_pause_before_the_run(
    monkeypatch: pytest.MonkeyPatch, pause: int
) -> None:
    """The kernel's log has a clock of its own: either side of the cut has half of the pause."""
    asked: list[int] = []
    monkeypatch.setattr(kmsg, "oom_victims", lambda _, since: asked.append(since) or ("dd",))
    run = Runtime(
        pid=1, start_time=1, supervisor=1, supervisor_start=1, scope="docker-a.scope",
        started_ns=time.time_ns() - 10 * SECOND,
    )  # fmt: skip
    assert exit_record._victims(run, None) == ("dd",)
    earlier = Final(exit_code=0, started_ns=0, finished_ns=run.started_ns - pause * SECOND)
    # how far the two clocks are apart, asked on both sides of the call: it takes what it takes
    low = time.monotonic_ns() - time.time_ns()
    exit_record._victims(run, earlier)
    high = time.monotonic_ns() - time.time_ns()
    middle = run.started_ns - pause * SECOND // 2
    assert asked[0] == 0
    slack = abs(high - low) + SECOND // 100
    assert abs(asked[1] * 1000 - (middle + low)) < slack


@pytest.mark.parametrize(
    ("mode", "remove", "signal", "usage", "asked"),
    [
        ("v2", False, 0, Usage(), True),
        ("v2", False, 0, Usage(cpu_ns=1), False),
        ("v2", False, 9, Usage(cpu_ns=1), True),
        ("v2", True, 0, Usage(), False),
        ("v2", True, 9, Usage(), True),
        ("v1", False, 9, Usage(), False),
    ],
)
def test_the_log_is_asked_where_the_counter_may_have_gone(
    monkeypatch: pytest.MonkeyPatch, mode: str, remove: bool, signal: int, usage: Usage, asked: bool
) -> None:
    """systemd removes a cgroup as soon as it is empty, the numbers in it with it."""
    monkeypatch.setattr(exit_record, "probe", lambda: facts(mode))
    record = RECORD.replace(spec=RECORD.spec.replace(remove=remove))
    ended = Ended(code=7, signal=signal, usage=usage)
    assert exit_record._may_be_victim(record, ended) is asked
