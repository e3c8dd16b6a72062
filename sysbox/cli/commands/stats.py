"""`sysbox stats`: resource usage of containers, or of the units below a slice; once or continuously."""

from __future__ import annotations

import gc
import posix
import time

from sysbox.base.errors import FormatError, NotFound, SpecError, UsageError
from sysbox.base.frozen import Frozen
from sysbox.cli import screen
from sysbox.cli.output import as_is, print_list, table
from sysbox.container import store
from sysbox.container.names import taken_names
from sysbox.docker.stats import COLUMNS, HEADERS, NOT_COUNTED, NOTHING, Shown, row
from sysbox.host import exists, probe
from sysbox.netns import counters
from sysbox.netns.network import BRIDGE
from sysbox.netns.topology import host_link
from sysbox.units import names
from sysbox.units.cgroup.usage import Reader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from sysbox.cli.table.options import Values
    from sysbox.container.records import Traffic
    from sysbox.container.store import Record, Runtime

_WINDOW_NS = 100_000_000  # between the two samples of CPU time in a first reading
_TICKS = 1.1  # kernel ticks before the second sample: the kernel updates CPU time at each tick
_COARSE = 6  # CLOCK_MONOTONIC_COARSE, whose resolution is a tick (clock_getres(2))
_SHORTEST_US = 100_000  # least value of --interval
_HOME, _CLEAR, _END_OF_LINE, _REST = "\x1b[H", "\x1b[2J", "\x1b[K", "\x1b[J"  # console_codes(4)
# columns that a narrow screen leaves out, in this order
_LESS_NEEDED = (
    "ID",
    "BlockIO",
    "NetIO",
    "PIDs",
    "MemPerc",
)
_NO_BYTES = (0, 0)


class _Target(Frozen):
    """A container or a unit that has a line."""

    id: str  # of a container; "" for another unit
    name: str
    given: str
    path: str  # its cgroup; "" while it does not run
    links: tuple[str, ...] = ()  # the host's ends of its veth pairs
    namespace: str = ""  # a pid in its network namespace, for links without an end on the host
    inside: tuple[str, ...] = ()  # these links, by their names there
    started_ns: int = 0


def main(values: Values) -> int:
    """0; without --no-stream ctrl-c ends it, as with docker."""
    interval_ns = _interval(values.interval)
    named = bool(values.pod if values.verb.name == "pod stats" else values.container)
    find = _of_pods(values) if values.verb.name == "pod stats" else _finder(values)
    sampler = _Sampler(find, values.format or "")
    if values.no_stream:
        _print(sampler.rows(full=values.no_trunc), values.format)
        return 0
    gc.enable()  # the loop may run for weeks
    live = posix.isatty(1) and values.format in (None, "", "table")
    size = posix.terminal_size((0, 0))
    while True:
        rows = sampler.rows(full=values.no_trunc)
        if named and not rows:
            return 0  # all of them were removed
        if live:
            size = _refresh(rows, size)
        else:
            _print(rows, values.format)
        time.sleep(interval_ns / 1e9)


def _interval(text: str | None) -> int:
    if text is None:
        return 1_000_000_000
    from sysbox.parse.time import parse_duration

    micro = parse_duration(text, "--interval")
    if micro < _SHORTEST_US:
        raise SpecError(f"--interval {text}: too short", hint="at least 0.1s")
    return micro * 1000


def _finder(values: Values) -> Callable[[], list[_Target]]:
    """The function that finds the targets of a reading; called for each reading."""
    given = values.container
    if values.slice:
        if given:
            raise UsageError("--slice and CONTAINER: give one of them")
        slice_ = names.check_slice(values.slice)
        return lambda: _in_slice(slice_)
    if given:
        # an unknown name is an error now; later it is a container that was removed
        found = [(store.find(one).id, one) for one in given]
        return lambda: [one for pair in found for one in _find_target(*pair)]
    return lambda: _everything() if values.all else _running()


def _of_pods(values: Values) -> Callable[[], list[_Target]]:
    """The slices of pods, and what is in each; of all that are up by default."""
    from sysbox.container import pods

    found = [pods.find(one) for one in values.pod] if values.pod else pods.all_pods()

    def targets() -> list[_Target]:
        rows = []
        for one in found:
            try:
                run = pods.run_of(one.name)
                if values.pod or values.all or run:
                    first, *rest = _in_slice(one.slice)
                    ends = tuple(each.host_link for each in run.networks) if run else ()
                    # its containers have the same links: the sum would count them again and again
                    rows += [first.replace(links=tuple(filter(None, ends))), *rest]
            except NotFound:
                continue  # it was removed, or its slice was stopped
        return rows

    return targets


# What to show


def _running() -> list[_Target]:
    """The running containers, the latest start first; a record is read only if it is needed."""
    found = []
    # each once: one that is being renamed has two names, or none that was listed
    named = {container_id: name for name, container_id in taken_names().items()}
    for container_id in store.ids():
        name = named.get(container_id, "")
        run = _run(container_id)
        # one that has just ended has a run until its end is recorded
        if run is None or not run.started_ns or not run.alive():
            continue
        if name and run.attachments():
            links = _links(run, container_id)
            found.append(
                _Target(
                    id=container_id,
                    name=name,
                    given=container_id,
                    path=run.cgroup,
                    links=links,
                    namespace=str(run.pid),
                    inside=_inside(run),
                    started_ns=run.started_ns,
                )
            )
        else:
            found += _find_target(container_id, container_id)
    found.sort(key=lambda one: one.started_ns, reverse=True)
    return found


def _links(run: Runtime | None, container_id: str) -> tuple[str, ...]:
    """The host's ends of a container's links; an older version has not recorded that of its one network."""
    return tuple(
        one.host_link or host_link(container_id)
        for one in (run.attachments() if run else ())
        if one.driver == BRIDGE
    )


def _inside(run: Runtime | None) -> tuple[str, ...]:
    """The links of a container that have no end on the host."""
    return tuple(
        one.interface for one in (run.attachments() if run else ()) if one.driver != BRIDGE
    )


def _run(container_id: str) -> Runtime | None:
    try:
        return store.runtime(container_id)
    except FormatError:
        return None  # ignoring: a damaged record must not hide the other containers


def _find_target(container_id: str, given: str) -> list[_Target]:
    try:
        return [_target(store.load(container_id), given)]
    except (FormatError, NotFound):
        return []


def _everything() -> list[_Target]:
    return [_target(record, record.id) for record in store.all_records()]


def _target(record: Record, given: str) -> _Target:
    run = _run(record.id)
    running = run is not None and run.started_ns and run.alive()
    mode = record.spec.namespaces.network
    kind, _, other = mode.partition(":")
    owner = _run(other) if kind == "container" else run
    return _Target(
        id=record.id,
        name=record.name,
        given=given,
        path=run.cgroup if run and running else "",
        links=_links(owner, other or record.id) if kind in ("bridge", "container") else (),
        namespace=str(run.pid) if run else "",
        inside=("eth0",) if kind == "ns" else _inside(owner),
        started_ns=run.started_ns if run else 0,
    )


def _in_slice(slice_: str) -> list[_Target]:
    """A slice, and depth-first the slices and scopes below it. Raises NotFound."""
    facts = probe()
    mount, path = facts.controllers["name=systemd"], names.slice_path(slice_)
    top = f"/{path}" if path else ""
    known = {one.path: one for one in _running()}
    found: list[_Target] = []

    def visit(below: str) -> None:
        unit = below.rpartition("/")[2] or slice_
        found.append(known.get(below) or _Target(id="", name=unit, given=unit, path=below))
        if unit.endswith(".slice"):
            for name in sorted(_directories(mount + below)):
                visit(f"{below}/{name}")

    if not exists(mount + top):
        raise NotFound(f"{slice_} is not active: nothing runs in it")
    visit(top)
    return found


def _directories(path: str) -> list[str]:
    """The units of a slice that can hold containers: other slices, and scopes."""
    try:
        return [name for name in posix.listdir(path) if name.endswith((".slice", ".scope"))]
    except FileNotFoundError:
        return []


# Reading


class _Sampler:
    """Takes the readings, one after the other."""

    def __init__(self, find: Callable[[], list[_Target]], format: str) -> None:
        self._find = find
        self._details = bool(format)
        self._counted = any(word in format for word in ("IP", "json", ".Sysbox"))
        self._reader = Reader(probe())
        self._before: dict[str, tuple[int, int]] = {}  # cgroup -> (time of sample, CPU time), in ns

    def rows(self, *, full: bool) -> list[dict[str, Any]]:
        """One reading, without the targets that ended meanwhile."""
        targets = self._find()
        self._reader = Reader(probe())  # limits change
        first = not self._before
        now = self._look(targets)
        if first:
            self._before, now = now, {}
        read = self._reader.read if self._details else self._reader.brief
        usages = {one.path: read(one.path) for one in targets if one.path}
        network = _Network(targets)
        traffic = _traffic(targets) if self._counted else {}
        if first:
            now = self._sample_again(targets)
        shown = [
            Shown(
                id=one.id,
                name=one.name,
                given=one.given,
                usage=usages[one.path] if one.path else NOTHING,
                percent=_share(self._before.get(one.path), now[one.path]) if one.path else 0.0,
                network=network.of(one),
                traffic=traffic.get(_unit(one), NOT_COUNTED),
            )
            for one in targets
            if not one.path or one.path in now
        ]
        self._before = now
        return [row(one, full=full, details=self._details) for one in shown]

    def _look(self, targets: Iterable[_Target]) -> dict[str, tuple[int, int]]:
        found = {}
        for one in targets:
            used = self._reader.cpu_ns(one.path) if one.path else -1
            if used >= 0:
                found[one.path] = (time.monotonic_ns(), used)
        return found

    def _sample_again(self, targets: list[_Target]) -> dict[str, tuple[int, int]]:
        """Sample again after just over a tick; if any target may have run, once more after the whole window.

        A cgroup that has not run for a tick uses no CPU time, so the longer window would show no more. The
        exception is a cgroup with a quota: it may only be waiting for its next period.
        """
        tick_ns = int(time.clock_getres(_COARSE) * 1e9)
        for window in (int(_TICKS * tick_ns), _WINDOW_NS):
            last = max((at for at, _ in self._before.values()), default=0)
            left = last + window - time.monotonic_ns()
            if self._before and left > 0:
                time.sleep(left / 1e9)
            now = self._look(targets)
            if not any(self._may_have_run(path, used) for path, (_, used) in now.items()):
                break
        return now

    def _may_have_run(self, path: str, used: int) -> bool:
        return self._before.get(path, (0, used))[1] != used or self._reader.has_quota(path)


def _share(before: tuple[int, int] | None, after: tuple[int, int]) -> float | None:
    """Percent of one CPU between two samples; None without the first."""
    if before is None or after[0] <= before[0]:
        return None
    return max(0.0, 100 * (after[1] - before[1]) / (after[0] - before[0]))


def _unit(target: _Target) -> str:
    return names.scope_unit(target.id) if target.id else target.name


def _traffic(targets: Iterable[_Target]) -> dict[str, Traffic]:
    from sysbox.run import traffic  # asks systemd: only where it is shown

    return traffic.counted(_unit(one) for one in targets if one.path)


class _Network:
    """Bytes received and sent: a container receives what the host's end of its veth pair sends."""

    def __init__(self, targets: Iterable[_Target]) -> None:
        self._host = counters.counters()
        self._targets = tuple(targets)

    def of(self, target: _Target) -> tuple[int, int] | None:
        """(received, sent); of a slice the sum of the containers below it; None for any other unit."""
        if not target.path:
            return _NO_BYTES
        if target.name.endswith(".slice") and not target.id and not target.links:
            inside = f"{target.path}/"
            pairs = [
                self.of(one) for one in self._targets if one.id and one.path.startswith(inside)
            ]
            return sum(one[0] for one in pairs if one), sum(one[1] for one in pairs if one)
        if not target.id and not target.links:
            return None
        own = counters.counters(target.namespace) if target.inside else {}
        counted = [self._host.get(link, _NO_BYTES)[::-1] for link in target.links]
        counted += [own.get(name, _NO_BYTES) for name in target.inside]
        return sum(one[0] for one in counted), sum(one[1] for one in counted)


# Printing


def _print(rows: list[dict[str, Any]], format: str | None) -> None:
    print_list(rows, COLUMNS, headers=HEADERS, format=format)


def _refresh(rows: list[dict[str, Any]], before: posix.terminal_size) -> posix.terminal_size:
    """Overwrite the screen with as many lines as fit; returns the terminal's size."""
    size = screen.size()
    if size != before:
        as_is(_CLEAR)  # lines longer than the new width have been wrapped
    lines = _fit_columns(rows, size.columns)
    space = max(size.lines - 1, 2)
    if len(lines) > space:
        hidden = len(lines) - space + 1
        lines[space - 1 :] = [f"... and {hidden} more"]
    shown = "".join(f"{line[: size.columns]}{_END_OF_LINE}\n" for line in lines)
    as_is(f"{_HOME}{shown}{_REST}")
    return size


def _fit_columns(rows: list[dict[str, Any]], width: int) -> list[str]:
    """The lines of the table, less the columns of _LESS_NEEDED that do not fit."""
    left = list(COLUMNS)
    for key in ("", *_LESS_NEEDED):
        left = [one for one in left if one[1] != key]
        titles = [header for header, _ in left]
        lines = table([titles, *([one[key] for _, key in left] for one in rows)]).splitlines()
        if max(map(len, lines)) <= width:
            break
    return lines
