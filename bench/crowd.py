"""Hundreds of containers at once, beside docker and podman; `bench/run.sh --crowd` runs it.

For each engine in turn: start the containers one after the other, measure the memory of their supervisors
and their CPU time in a minute, list and remove the containers; then start as many four at a time, and remove
them. Prints Markdown, and its progress on standard error. Exit status 0, 1 if a measure could not be taken, 2
if none could.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import baseline
import crowd_report
import memory
from contest import add_only, chosen, contest, say
from crowd_report import ABREAST, Crowd
from hardware import cpu_seconds, load
from peers import Engine
from timing import Begun, Command, MeasureError, Sample, finish, spawn

CROWD = 300
IDLE = 60  # seconds
PS_RUNS = 15
SETTLING = 10  # seconds after a removal until nothing should be left
PATIENCE = 1800  # seconds for one start
PYTHON = "/usr/bin/python3"
BARE = 20  # starts of a Python that does nothing


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/run.sh --crowd", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--count", type=int, default=CROWD, metavar="N", help=f"({CROWD})")
    parser.add_argument("--idle", type=int, default=IDLE, metavar="SECONDS", help=f"({IDLE})")
    add_only(parser)
    arguments = parser.parse_args(words)
    if arguments.count < 2 or arguments.idle < 1:
        parser.error("--count: 2 or more; --idle: 1 or more")
    return arguments


def start(peer: Engine, names: Sequence[str], abreast: int) -> tuple[Sample, float, float]:
    """Start containers, `abreast` at a time.

    (the time of each in milliseconds, of all in seconds, the CPU time of the commands in milliseconds)
    """
    waiting = list(reversed(names))
    running: dict[int, tuple[str, Begun]] = {}
    took: dict[str, float] = {}
    used = 0.0
    begin = time.monotonic()
    with peer.view():
        while waiting or running:
            while waiting and len(running) < abreast:
                name = waiting.pop()
                begun = spawn(Command(peer.start(name), peer.environment))
                running[begun.pid] = name, begun
            signal.alarm(PATIENCE)
            pid, wait_status, usage = os.wait4(-1, 0)
            signal.alarm(0)
            used += usage.ru_utime + usage.ru_stime
            if pid in running:
                name, begun = running.pop(pid)
                try:
                    took[name] = finish(begun, wait_status)
                except MeasureError:
                    for pid in running:
                        os.waitpid(pid, 0)
                    raise
    seconds = time.monotonic() - begin
    return Sample(tuple(took[name] for name in names)), seconds, used * 1e3


def cpu_times(names: frozenset[str]) -> dict[int, int]:
    """pid -> CPU time in nanoseconds, for the processes of these names (`comm`)."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            if Path(f"/proc/{entry}/comm").read_text().rstrip("\n") in names:
                found[int(entry)] = cpu_time(int(entry))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def cpu_time(pid: int) -> int:
    """CPU time in nanoseconds: the first field of each thread's schedstat (sched-stats.rst)."""
    threads = os.listdir(f"/proc/{pid}/task")
    paths = (Path(f"/proc/{pid}/task/{thread}/schedstat") for thread in threads)
    return sum(int(path.read_text().split()[0]) for path in paths)


class Watch:
    """The CPU time that supervisors, daemons and systemd use from now on."""

    def __init__(self, peer: Engine) -> None:
        self._names = {
            "supervisors": peer.supervisors,
            "daemons": peer.daemons,
            "bus": frozenset({"dbus-daemon"}),
            "journald": frozenset({"systemd-journal"}),
        }
        self._before = self._now()

    def _now(self) -> dict[str, dict[int, int]]:
        return {kind: cpu_times(names) for kind, names in self._names.items()} | {
            "PID 1": {1: cpu_time(1)}
        }

    def used(self) -> dict[str, float]:
        """kind of process -> its CPU time since this watch began, in milliseconds."""
        now = self._now()
        return {
            kind: sum(spent - self._before[kind].get(pid, 0) for pid, spent in times.items()) / 1e6
            for kind, times in now.items()
        }


def watch(peer: Engine, crowd: Crowd) -> None:
    """Measure the CPU time of supervisors, daemons and PID 1 while the containers are idle."""
    watching = Watch(peer)
    time.sleep(crowd.seconds)
    used = watching.used()
    crowd.idle, crowd.daemons, crowd.manager = used["supervisors"], used["daemons"], used["PID 1"]


def interpreter() -> float:
    """Milliseconds of CPU time of a Python that does nothing, started as the launcher starts it."""
    times = []
    for _ in range(BARE):
        begun = spawn(Command([PYTHON, "-I", "-S", "-X", "utf8", "-c", "0"]))
        _, wait_status, usage = os.wait4(begun.pid, 0)
        finish(begun, wait_status)
        times.append((usage.ru_utime + usage.ru_stime) * 1e3)
    return statistics.median(times)


def names_of(count: int) -> list[str]:
    return [f"crowd-{number}" for number in range(1, count + 1)]


def give_up(peer: Engine, count: int) -> None:
    """Remove the containers that were started, so that they do not disturb other measures."""
    for name in names_of(count):
        try:
            peer.remove([name])
        except MeasureError:
            pass  # ignoring: this one was not started


def measure(peer: Engine, count: int, idle: int) -> Crowd:
    """Take all measures of one contestant; raises MeasureError."""
    crowd = Crowd(count=count, seconds=idle)
    # the first container makes things that stay, such as the bridge: they do not count as left behind
    start(peer, ["crowd-0"], 1)
    peer.remove(["crowd-0"])
    time.sleep(2)
    before = baseline.take()
    names = names_of(count)
    for abreast in (1, ABREAST):
        say(f"{peer.name}: starting {count}, {abreast} at a time")
        used, watching = cpu_seconds(), Watch(peer)
        sample, seconds, commands = start(peer, names, abreast)
        crowd.rates[abreast] = count / seconds
        if abreast == 1:
            crowd.sequential = sample
            time.sleep(5)  # until the work that follows a start is done
            crowd.work = (cpu_seconds() - used) * 1000 / count
            parts = {"command": commands, **watching.used()}
            crowd.parts = {kind: spent / count for kind, spent in parts.items()}
            look(peer, crowd)
        say(f"{peer.name}: removing {count}")
        begin = time.monotonic()
        peer.remove(names)
        crowd.removals.append(time.monotonic() - begin)
        left, seconds = baseline.leftovers(before, SETTLING)
        crowd.settled.append(seconds)
        crowd.left |= {kind: crowd.left.get(kind, frozenset()) | left[kind] for kind in left}
    return crowd


def look(peer: Engine, crowd: Crowd) -> None:
    """Measure the running containers: memory and idle CPU time of their supervisors, time of `ps`."""
    say(f"{peer.name}: idle for {crowd.seconds} s")
    crowd.supervisors = memory.pss(peer.supervisors)
    watch(peer, crowd)
    listed = [peer.time(peer.ps()) for _ in range(PS_RUNS + 1)]
    crowd.ps = Sample(tuple(listed[1:]))


def main() -> int:
    arguments = parse(sys.argv[1:])
    kinds = [kind for kind in chosen(arguments.only) if issubclass(kind, Engine)]
    with contest(kinds) as (ready, failures):
        before, crowds = load(), {}
        for peer in ready:
            assert isinstance(peer, Engine)
            try:
                crowds[peer.name] = measure(peer, arguments.count, arguments.idle)
            except MeasureError as error:
                failures.append(f"{peer.name}: {error}")
                say(failures[-1])
                give_up(peer, arguments.count)
        print(crowd_report.markdown(crowds, ready, before, interpreter(), failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
