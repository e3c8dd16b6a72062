"""What `make bench` says of what it measured, and what it keeps. The measuring itself: bench/."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent.parent / "bench"))

import crowd_report
import keep
from crowd_report import ABREAST, Crowd
from timing import Sample


def crowd(rate: float, ps: float, *, growth: float = 1.0, left: str = "", kib: int = 20) -> Crowd:
    return Crowd(
        count=40,
        seconds=60,
        sequential=Sample(tuple(100.0 if number < 20 else 100 * growth for number in range(40))),
        rates={1: rate, ABREAST: 2 * rate},
        ps=Sample((ps, ps, ps)),
        supervisors=(40, 40 * kib),
        removals=[1.0, 2.0],
        settled=[0.1, 0.2],
        left={left: frozenset({"something"})} if left else {},
    )


def verdicts(**crowds: Crowd) -> dict[str, str]:
    """What was wanted -> ok or MISSED."""
    text = crowd_report.markdown(crowds, [], 0.5, [])
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


def test_what_grows_and_what_is_left_are_missed_goals() -> None:
    found = verdicts(sysbox=crowd(10, 10, growth=1.6, left="rules"))
    assert found["the last 10 starts' latency, of the first 10's"] == "MISSED"
    assert found["left after `rm -f`"] == "MISSED"


def test_without_any_result_the_reason_is_there() -> None:
    text = crowd_report.markdown({}, [], 3.0, ["docker: not installed"])
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
