"""What `make bench` says of what it measured, and what it keeps; and the critical path through a trace.

The measuring itself: bench/.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent.parent / "bench"))

import crowd_report
import keep
from critical import Trace, cut
from crowd_report import ABREAST, Crowd
from timing import MeasureError, Sample
from tracing import parse


def crowd(rate: float, ps: float, *, growth: float = 1.0, left: str = "", kib: int = 20) -> Crowd:
    return Crowd(
        count=40,
        seconds=60,
        sequential=Sample(tuple(100.0 if number < 20 else 100 * growth for number in range(40))),
        work=99.0,
        parts={"command": 29.0, "supervisors": 37.0, "PID 1": 12.0},
        rates={1: rate, ABREAST: 2 * rate},
        ps=Sample((ps, ps, ps)),
        supervisors=(40, 40 * kib),
        removals=[1.0, 2.0],
        settled=[0.1, 0.2],
        left={left: frozenset({"something"})} if left else {},
    )


def verdicts(**crowds: Crowd) -> dict[str, str]:
    """What was wanted -> ok or MISSED."""
    text = crowd_report.markdown(crowds, [], 0.5, 8.0, [])
    lines = text.partition("## Wanted of a crowd\n\n")[2].splitlines()
    return {line[2:].partition(": wanted")[0]: line.rpartition(" ")[2] for line in lines}


def test_a_goal_is_met_or_missed() -> None:
    found = verdicts(sysbox=crowd(10, 10), docker=crowd(2, 50), podman=crowd(4, 20, kib=60))
    assert found == {
        "CPU of a detached container's supervisor, ms": "ok",
        "the last 10 starts' latency, of the first 10's": "ok",
        "rate, 1 at a time, of docker's": "ok",
        "rate, 4 at a time, of docker's": "ok",
        "`ps`, of docker's": "ok",
        "rate, 1 at a time, of podman's": "MISSED",
        "rate, 4 at a time, of podman's": "MISSED",
        "`ps`, of podman's": "MISSED",
        "memory of the supervisor, of conmon's": "MISSED",
        "left after `rm -f`": "ok",
    }


def test_what_no_process_is_known_for_is_the_rest() -> None:
    text = crowd_report.markdown({"sysbox": crowd(10, 10)}, [], 0.5, 8.0, [])
    (row,) = text.partition("CPU time goes")[2].partition("## ")[0].strip().splitlines()[-1:]
    assert [word.strip() for word in row.strip("|").split("|")] == [
        "sysbox",
        "29.0",
        "37.0",
        "12.0",
        "21.0",
    ]


def test_what_grows_and_what_is_left_are_missed_goals() -> None:
    found = verdicts(sysbox=crowd(10, 10, growth=1.6, left="rules"))
    assert found["the last 10 starts' latency, of the first 10's"] == "MISSED"
    assert found["left after `rm -f`"] == "MISSED"


def test_without_any_result_the_reason_is_there() -> None:
    text = crowd_report.markdown({}, [], 3.0, 8.0, ["docker: not installed"])
    assert "* docker: not installed" in text
    assert "not idle" in text


@pytest.mark.parametrize(
    ("kept", "wanted"),
    [
        ("", "# A crowd: 3\n\nnew\n"),
        ("# A crowd: 2\n\nold\n", "# A crowd: 3\n\nnew\n"),
        ("# Costs\n\na\n", "# Costs\n\na\n\n# A crowd: 3\n\nnew\n"),
        ("# A crowd: 2\n\n## old\n\n# Costs\n\na\n", "# A crowd: 3\n\nnew\n\n# Costs\n\na\n"),
    ],
)
def test_a_report_replaces_its_own_part_alone(kept: str, wanted: str) -> None:
    assert keep.merge(kept, "# A crowd: 3\n\nnew\n") == wanted


# a command (10) forks a child (11), waits for it and ends; the child sleeps until a timer wakes it
TRACE = """\
# tracer: nop
             cmd-10      [000] .....     5.000100: sched_process_exec: filename=/bin/cmd pid=10 old_pid=10
             cmd-10      [000] .....     5.000300: sys_clone3(uargs: 7ffe, size: 58)
             cmd-10      [000] .....     5.000400: sched_process_fork: comm=cmd pid=10 child_comm=cmd child_pid=11
             cmd-10      [000] .....     5.000450: sys_clone3 -> 0xb
             cmd-10      [000] d....     5.000500: sched_switch: prev_comm=cmd prev_pid=10 prev_prio=120 prev_state=S ==> next_comm=kid next_pid=11 next_prio=120
             kid-11      [000] .....     5.000600: sys_recvmsg(fd: 3)
             kid-11      [000] d....     5.000700: sched_switch: prev_comm=kid prev_pid=11 prev_prio=120 prev_state=S ==> next_comm=swapper/0 next_pid=0 next_prio=120
          <idle>-0       [000] d.h..     5.001700: sched_waking: comm=kid pid=11 prio=120 target_cpu=000
          <idle>-0       [000] d....     5.001900: sched_switch: prev_comm=swapper/0 prev_pid=0 prev_prio=120 prev_state=R ==> next_comm=kid next_pid=11 next_prio=120
             kid-11      [000] d....     5.002000: sched_waking: comm=cmd pid=10 prio=120 target_cpu=001
             cmd-10      [001] .....     5.002300: sched_process_exit: comm=cmd pid=10 prio=120
"""  # noqa: E501


def test_the_path_leads_from_who_waited_to_who_woke_it() -> None:
    trace = Trace(parse(iter(TRACE.splitlines())))
    command, child = trace.task(10), trace.task(11)
    path = trace.path(command, command.ended, 5_000_100)
    assert [(piece.end - piece.begin, piece.task) for piece in path] == [
        (300, command),  # until the fork
        (300, child),
        (1000, None),  # asleep
        (300, child),
        (300, command),
    ]
    assert (path[2].comm, path[2].waiting) == ("interrupt", child)
    assert child.queues == [(5_000_400, 5_000_500), (5_001_700, 5_001_900)]  # could run, had no CPU
    assert sum(piece.end - piece.begin for piece in path) == command.ended - 5_000_100


def test_a_piece_is_cut_where_a_step_begins() -> None:
    trace = Trace(parse(iter(TRACE.splitlines())))
    first = trace.path(trace.task(10), 5_002_300, 5_000_100)[0]
    steps = [(5_000_100, "launcher"), (5_000_300, "fork"), (5_000_450, "wait")]
    assert list(cut(first, steps)) == [
        ("launcher", 5_000_100, 5_000_300),
        ("fork", 5_000_300, 5_000_400),
    ]


def test_lost_events_are_no_result() -> None:
    with pytest.raises(MeasureError):
        list(parse(iter(["CPU:1 [LOST 81 EVENTS]"])))
