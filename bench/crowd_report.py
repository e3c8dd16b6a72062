"""The report on the crowds: from their results to tables."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from peers import Peer
from report import MINE, QUIET, machine_table, table
from timing import Sample

ABREAST = 4  # starts at a time
ENDS = 10  # the number of first and of last starts that are compared
CPU = 0.0  # milliseconds of a supervisor per idle container: the goal
_HOW = f"""\
Detached containers on the default bridge, each contestant by itself: all started one after the
other, left idle, listed, removed by one `rm -f`, started again {ABREAST} at a time, removed again.
"Left" counts processes, mounts, links, cgroups, units, rules of the packet filter and files that did
not exist after a first container, which does not count. Made by `make bench-crowd`."""


@dataclass(slots=True)
class Crowd:
    """The results of one contestant."""

    count: int  # containers
    seconds: int  # of idle time
    sequential: Sample | None = None  # the time of each start, in milliseconds
    work: float = 0.0  # milliseconds of CPU time of the whole host for one start
    # kind of process -> milliseconds of its CPU time for one start
    parts: dict[str, float] = field(default_factory=dict)
    rates: dict[int, float] = field(default_factory=dict)  # starts at a time -> containers a second
    ps: Sample | None = None
    supervisors: tuple[int, int] = (0, 0)  # (number, their PSS in KiB)
    idle: float = 0.0  # milliseconds of CPU time of all supervisors in the idle time
    daemons: float = 0.0  # the same of the daemons
    manager: float = 0.0  # the same of systemd, PID 1
    removals: list[float] = field(default_factory=list)  # seconds for `rm -f` of all
    settled: list[float] = field(default_factory=list)  # seconds from then until nothing is left
    left: dict[str, frozenset[str]] = field(default_factory=dict)

    def ends(self) -> tuple[float, float]:
        """The medians of the first and of the last starts, in milliseconds."""
        assert self.sequential
        values = self.sequential.values
        some = min(ENDS, (len(values) + 1) // 2)
        return statistics.median(values[:some]), statistics.median(values[-some:])


def markdown(
    crowds: Mapping[str, Crowd],
    peers: Sequence[Peer],
    load: float,
    interpreter: float,
    failures: Sequence[str],
) -> str:
    """The whole report. `interpreter`: milliseconds of CPU time of a Python that does nothing."""
    sizes = sorted({crowd.count for crowd in crowds.values()})
    blocks = [
        f"# A crowd: {' or '.join(map(str, sizes)) or 'no'} containers",
        _HOW,
        machine_table(load, peers),
    ]
    if load > QUIET:
        blocks.append("The machine was not idle: these figures include other work.")
    if crowds:
        blocks += [
            _starts(crowds),
            _parts(crowds, interpreter),
            _idle(crowds),
            _ends(crowds),
            _wanted(crowds),
        ]
    if failures:
        blocks.append(
            "## Not measured of a crowd\n\n" + "\n".join(f"* {text}" for text in failures)
        )
    return "\n\n".join(blocks)


def _starts(crowds: Mapping[str, Crowd]) -> str:
    rows = []
    for name, crowd in crowds.items():
        assert crowd.ps
        first, last = crowd.ends()
        rows.append(
            (
                name,
                *(f"{crowd.rates[abreast]:.1f}" for abreast in (1, ABREAST)),
                f"{crowd.work:.0f}",
                *(f"{value:.0f}" for value in (first, last)),
                f"{last / first:.2f}",
                f"{crowd.ps.median:.1f}",
            )
        )
    head = ("", "one at a time, /s", f"{ABREAST} at a time, /s", "CPU ms each", f"first {ENDS}, ms")
    return "## Starting and listing them\n\n" + table(
        (*head, f"last {ENDS}, ms", "last/first", "`ps`, ms"), rows
    )


def _parts(crowds: Mapping[str, Crowd], interpreter: float) -> str:
    """What a start spends where: how fast many can be started is bounded by their CPU time."""
    rows = []
    for name, crowd in crowds.items():
        rest = crowd.work - sum(crowd.parts.values())
        rows.append((name, *(f"{spent:.1f}" for spent in (*crowd.parts.values(), rest))))
    kinds = next(iter(crowds.values())).parts
    return (
        "## Where a start's CPU time goes\n\n"
        "Milliseconds for each start, one at a time. The command, the supervisor that it leaves, the "
        "daemons, the message bus, the journal, systemd (PID 1), and the rest: the kernel's own threads, "
        f"helpers that ended, the payload. A Python that does nothing takes {interpreter:.1f} ms.\n\n"
        + table(("", *kinds, "rest"), rows)
    )


def _idle(crowds: Mapping[str, Crowd]) -> str:
    rows = []
    for name, crowd in crowds.items():
        number, size = crowd.supervisors
        each = (f"{size / number:.0f}", f"{crowd.idle / number:.2f}") if number else ("", "")
        rows.append((name, *each, f"{crowd.daemons:.0f}", f"{crowd.manager:.0f}"))
    seconds = max(crowd.seconds for crowd in crowds.values())
    return (
        "## Leaving them idle\n\n"
        "The supervisor of one container (sysbox-monitor, containerd-shim, conmon): its PSS, and its CPU "
        f"time in {seconds} s; and the CPU time of the daemons and of systemd (PID 1) for all containers.\n\n"
        + table(("", "KiB each", "CPU ms each", "daemons CPU ms", "PID 1 CPU ms"), rows)
    )


def _ends(crowds: Mapping[str, Crowd]) -> str:
    rows = []
    for name, crowd in crowds.items():
        left = ", ".join(f"{len(what)} {kind}" for kind, what in sorted(crowd.left.items()))
        times = zip(crowd.removals, crowd.settled, strict=True)
        rows.append((name, *(f"{a:.1f} + {b:.1f}" for a, b in times), left or "nothing"))
    return (
        "## Removing them\n\n"
        "Seconds that `rm -f` of all took, and from then until nothing was left.\n\n"
        + table(("", "first time", "again", "left"), rows)
    )


def _wanted(crowds: Mapping[str, Crowd]) -> str:
    mine = crowds.get(MINE)
    if mine is None:
        return ""
    assert mine.ps
    first, last = mine.ends()
    number, size = mine.supervisors
    others = {name: crowd for name, crowd in crowds.items() if name != MINE}
    lines = [
        _line("CPU of a detached container's supervisor, ms", mine.idle / (number or 1), CPU),
        _line(f"the last {ENDS} starts' latency, of the first {ENDS}'s", last / first, 1.5),
    ]
    for name, other in others.items():
        for abreast in (1, ABREAST):
            ratio = mine.rates[abreast] / other.rates[abreast]
            lines.append(_line(f"rate, {abreast} at a time, of {name}'s", ratio, 4, least=True))
        assert other.ps
        lines.append(_line(f"`ps`, of {name}'s", mine.ps.median / other.ps.median, 0.3))
        if name == "podman" and all(other.supervisors) and number:
            ratio = (size / number) / (other.supervisors[1] / other.supervisors[0])
            lines.append(_line("memory of the supervisor, of conmon's", ratio, 0.25))
    left = ", ".join(sorted(mine.left)) or "nothing"
    lines.append(f"* left after `rm -f`: wanted nothing: {left} {'MISSED' if mine.left else 'ok'}")
    return "## Wanted of a crowd\n\n" + "\n".join(lines)


def _line(what: str, figure: float, bound: float, *, least: bool = False) -> str:
    kept = figure >= bound if least else figure <= bound
    sign = "≥" if least else "≤"
    return f"* {what}: wanted {sign} {bound}: {figure:.2f} {'ok' if kept else 'MISSED'}"
