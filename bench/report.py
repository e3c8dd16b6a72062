"""The report of bench.py: from samples to tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import hardware
from peers import Peer
from timing import Sample

STARTUP = "an interpreter"
RUN = {"bridge": "`run --rm IMAGE true`", "none": "`run --rm --network none IMAGE true`"}
RUN_IT = "`run --rm -it IMAGE true`"
WITHOUT_TERMINAL = "sysbox without -it"
EXEC = "`exec CONTAINER true`"
START = "`run -d IMAGE sleep 1000`, 20 one after another"
UPDATE = "`update --cpu-shares N CONTAINER`"
SET_PROPERTY = "systemctl set-property"
MEMORY = "idle memory per detached container"
MINE = "sysbox"
BARE = "bare python"
HOT = "imports of `sysbox run`"
IMPORTS = 8.0  # ms
QUIET = 1.0  # load average


def ps(count: int) -> str:
    """The title of the measure of a list of so many containers."""
    return f"`ps` of {count} containers"


def stats(count: int) -> str:
    """The title of the measure of one look at so many containers."""
    return f"`stats --no-stream` of {count} containers"


@dataclass(slots=True)
class Results:
    """Everything that was measured."""

    load_before: float
    times: dict[str, dict[str, Sample]] = field(default_factory=dict)  # measure -> contestant
    memory: dict[str, float] = field(default_factory=dict)  # KiB of supervisors per container
    daemons: dict[str, int] = field(default_factory=dict)  # KiB of the daemons, for all containers
    manager: dict[str, float] = field(default_factory=dict)  # KiB that PID 1 grows by per container
    failures: list[str] = field(default_factory=list)


# (measure, contestant, the most that sysbox's figure divided by the contestant's may be)
WANTED = (
    (RUN["bridge"], "docker", 0.25),
    (RUN["bridge"], "podman", 0.25),
    (RUN["none"], "systemd-nspawn", 0.8),
    (RUN_IT, "docker", 0.5),
    (EXEC, "docker", 0.5),
    (stats(100), "docker", 0.2),
    (stats(100), "podman", 0.2),
    (UPDATE, "docker", 0.3),
    (MEMORY, "podman", 0.25),
)


def markdown(results: Results, peers: Sequence[Peer], runs: int, listed: int) -> str:
    """The whole report."""
    how = (
        f"Whole processes, from `posix_spawn` to the return of `wait4`, on one embedded host; {runs} runs "
        "of each after a warm-up run, interleaved (A B C A B C). Every contestant has the same "
        "root file system, a static busybox. Made by `make bench`."
    )
    blocks = ["# What it costs", how, machine_table(results.load_before, peers)]
    if results.load_before > QUIET:
        blocks.append(
            "The machine was not idle: other work affects these times, and less so their ratios."
        )
    blocks += [_times(title, results.times[title]) for title in _titles(results, listed)]
    blocks += [_memory(results), _wanted(results)]
    if results.failures:
        blocks.append("## Not measured\n\n" + "\n".join(f"* {text}" for text in results.failures))
    return "\n\n".join(filter(None, blocks))


def _titles(results: Results, listed: int) -> list[str]:
    order = (
        RUN["bridge"],
        RUN["none"],
        RUN_IT,
        EXEC,
        START,
        ps(listed),
        stats(listed),
        UPDATE,
        STARTUP,
    )
    return [title for title in order if results.times.get(title)]


def machine_table(load_before: float, peers: Sequence[Peer]) -> str:
    """The machine, the load, and the versions of the contestants."""
    facts = hardware.describe()
    facts["load"] = f"{load_before:.1f} before, {hardware.load():.1f} after"
    facts |= {peer.name: found for peer in peers if (found := hardware.version(peer.packages))}
    return table(("", ""), facts.items())


def _times(title: str, samples: dict[str, Sample]) -> str:
    mine = samples.get(MINE)
    rows = []
    for name, sample in samples.items():
        ratio = f"{mine.median / sample.median:.2f}" if mine and name != MINE else ""
        figures = (sample.median, sample.lowest, sample.high)
        rows.append((name, *(f"{figure:.1f}" for figure in figures), ratio))
    return f"## {title}\n\n" + table(
        ("", "median ms", "min", "p90", f"{MINE} is" if mine else ""), rows
    )


def seconds(title: str, samples: dict[str, Sample]) -> str:
    """A section with the times of one measure, in seconds."""
    mine = samples[MINE]
    rows = [
        (
            name,
            *(f"{value / 1000:.2f}" for value in (one.median, one.lowest, one.high)),
            "" if name == MINE else f"{mine.median / one.median:.2f}",
        )
        for name, one in samples.items()
    ]
    return f"## {title}\n\n" + table(("", "median s", "min", "p90", "sysbox is"), rows)


def _memory(results: Results) -> str:
    if not results.memory:
        return ""
    mine = results.memory.get(MINE)
    rows = []
    for name, size in results.memory.items():
        ratio = f"{mine / size:.2f}" if mine is not None and name != MINE else ""
        growth = results.manager.get(name)
        rows.append(
            (
                name,
                f"{size:.0f}",
                ratio,
                f"{results.daemons.get(name, 0)}",
                "" if growth is None else f"{growth:.0f}",
            )
        )
    return (
        f"## {MEMORY[0].upper()}{MEMORY[1:]}\n\nPSS in KiB of the supervisor (sysbox-monitor, "
        "containerd-shim, conmon), without the payload; beside it the memory of the daemons, and the "
        "growth of systemd (PID 1) for each container.\n\n"
        + table(("", "KiB each", f"{MINE} is", "daemons", "PID 1 grows by"), rows)
    )


def _wanted(results: Results) -> str:
    lines = []
    for measure, other, most in WANTED:
        if measure == MEMORY:
            mine, theirs = results.memory.get(MINE), results.memory.get(other)
        else:
            samples = results.times.get(measure, {})
            mine, theirs = (
                samples[name].median if name in samples else None for name in (MINE, other)
            )
        if mine is None or theirs is None:
            verdict = "not measured"
        else:
            verdict = f"{mine / theirs:.2f} {'ok' if mine <= most * theirs else 'MISSED'}"
        lines.append(f"* {measure}, of {other}'s: wanted ≤ {most}: {verdict}")
    lines.append(_imports(results.times.get(STARTUP, {})))
    return "## Wanted\n\n" + "\n".join(lines)


def _imports(samples: dict[str, Sample]) -> str:
    title = f"imports of a hot verb: wanted ≤ {IMPORTS:.0f} ms beyond the bare interpreter"
    if BARE not in samples or HOT not in samples:
        return f"* {title}: not measured"
    cost = samples[HOT].median - samples[BARE].median
    return f"* {title}: {cost:.1f} {'ok' if cost <= IMPORTS else 'MISSED'}"


def table(head: Sequence[str], rows: object) -> str:
    """A table in Markdown; all columns but the first are figures."""
    cells = [list(head), *(list(row) for row in rows)]  # type: ignore[attr-defined]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        padded = [row[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * widths[0], *("-" * (max(width, 2) - 1) + ":" for width in widths[1:])]
    return "\n".join([line(cells[0]), f"| {' | '.join(rule)} |", *map(line, cells[1:])])
