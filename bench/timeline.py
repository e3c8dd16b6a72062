"""Print the critical path of a start and of an end: which process worked when, and which waited for it.

    timeline.py [--runs N] [--only WORDS] [CHECKOUT]

Boots an embedded host with its own network, and runs each command on it with the kernel's tracer on. The path
is the mean of the quicker half of the runs: means add up, and other work on the machine is in the slower
half. CHECKOUT, by default this one, has the build in its .venv.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import rootfs
from against import IMAGE, Build, booted
from contest import say
from critical import Piece, Task, Trace, cut, overlap
from hardware import load
from timing import PAUSE, MeasureError
from tracing import TRACEFS, Event, Tracer, tracer

NETWORK = "own"  # which has no other container
_MOUNTED = "SYSBOX_BENCH_TRACEFS"  # set once tracefs was mounted, or could not be

# A step begins at a system call: its begin, or with `>` its end. Each is looked for after the one before.
INTERPRETER = [
    ("sched_process_exec", "launcher"),
    ("execveat", "interpreter"),
    ("preadv2", "imports"),
]
CREATE = [*INTERPRETER, ("mkdir", "the record")]
START = [
    ("clone", "what a start needs"),
    ("clone3", "fork"),
    ("connect", "request of the scope"),
    ("recvmsg", "until its namespaces exist"),
    ("recvmsg>", "network, files"),
    ("poll", "until the scope is active"),
    ("rt_sigprocmask", "release"),
    ("recvmsg", "until the execve"),
    ("recvmsg>", "the command runs"),
]
SUPERVISE = [
    ("rt_sigprocmask", "wait"),
    ("wait4", "the end is recorded"),
    ("exit_group", "exit"),
]
CHILD = [
    ("unshare", "namespaces"),
    ("sendmsg", "mounts"),
    ("pivot_root", "pivot_root"),
    ("recvmsg", "until it is in the scope"),
    ("recvmsg>", "late mounts, addresses"),
    ("recvmsg", "until it may go on"),
    ("recvmsg>", "filter, user"),
    ("execve", "execve"),
    ("sched_process_exec", "its command"),
    ("exit_group", "exit"),
]
HELPER = [
    ("setns", "namespaces"),
    ("setns>", "user, streams"),
    ("seccomp", "filter, user"),
    ("clone", "birth"),
    ("exit_group", "exit"),
]
BORN = [("execve", "execve"), ("sched_process_exec", "its command"), ("exit_group", "exit")]
ENTER = [
    *INTERPRETER,
    ("clone3", "fork"),
    ("recvmsg", "until the birth"),
    ("wait4>", "until the execve"),
    ("recvmsg>", "the command runs"),
    *SUPERVISE,
]
REQUEST = [*CREATE, ("connect", "request of the service"), ("exit_group", "exit")]
SERVICE = [*INTERPRETER, *START, ("execve", "the monitor")]
ASK = [*INTERPRETER, ("exit_group", "exit")]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One command line: the steps of its processes, and the command lines before and after each run."""

    words: tuple[str, ...]
    steps: list[tuple[str, str]]
    child: list[tuple[str, str]]
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


_DETACHED = ("run", "-d", "--name", "t%n", IMAGE, "sleep", "1000")
SCENARIOS = {
    "run --rm --network none": Scenario(
        ("run", "--rm", "--network", "none", IMAGE, "true"), [*CREATE, *START, *SUPERVISE], CHILD
    ),
    "run --rm": Scenario(("run", "--rm", IMAGE, "true"), [*CREATE, *START, *SUPERVISE], CHILD),
    f"run --rm --network {NETWORK}": Scenario(
        ("run", "--rm", "--network", NETWORK, IMAGE, "true"), [*CREATE, *START, *SUPERVISE], CHILD
    ),
    "run -d": Scenario(_DETACHED, REQUEST, CHILD, after=("rm", "-f", "t%n")),
    "exec": Scenario(("exec", "up", "true"), ENTER, []),
    "stop -t 0": Scenario(
        ("stop", "-t", "0", "t%n"), ASK, [], before=_DETACHED, after=("rm", "-f", "t%n")
    ),
}


@dataclass(slots=True)
class Run:
    """What one run took, in milliseconds."""

    total: float = 0.0
    path: dict[tuple[str, str], float] = field(default_factory=dict)  # (who, step) -> on the path
    queued: dict[tuple[str, str], float] = field(default_factory=dict)  # of that, without a CPU
    begins: dict[tuple[str, str], float] = field(default_factory=dict)
    waits: dict[tuple[str, str], float] = field(default_factory=dict)  # (who, for whom)


class Actors:
    """Who is who among the processes of a trace."""

    def __init__(
        self, trace: Trace, events: Iterable[Event], launcher: str, what: Scenario
    ) -> None:
        self._names: dict[int, str] = {}
        self._steps: dict[int, list[tuple[int, str]]] = {}
        executed = [one for one in events if one.name == "sched_process_exec"]
        started = [one for one in executed if f"filename={launcher} " in one.text]
        if not started:
            raise MeasureError("the trace has no start of the launcher")
        self.first = started[0]
        self.main = trace.task(self.first.pid)
        self._name(self.main, "sysbox", what.steps)
        for one in started[1:]:
            service = what.child is CHILD and not self._is_named("supervisor")
            name = "supervisor" if service else "cleanup"
            self._name(trace.task(one.pid), name, SERVICE if service else ASK)
        for pid in [pid for pid, name in self._names.items() if name != "cleanup"]:
            for child in self._children(trace, pid, "unshare"):
                self._name(child, "child", what.child)
            for helper in self._children(trace, pid, "setns"):
                self._name(helper, "helper", HELPER)
                for child in self._children(trace, helper.pid, "execve"):
                    self._name(child, "child", BORN)

    def _is_named(self, name: str) -> bool:
        return name in self._names.values()

    def _children(self, trace: Trace, pid: int, call: str) -> list[Task]:
        """The children of a process that have made a system call."""
        return [
            task
            for task in tuple(trace.tasks.values())
            if task.parent == pid and any(one.name == call for one in task.events)
        ]

    def _name(self, task: Task, name: str, steps: list[tuple[str, str]]) -> None:
        self._names[task.pid] = name
        moments, waiting = [(task.born, "born")], 0
        for event in task.events:
            if waiting < len(steps) and event.name == steps[waiting][0]:
                moments.append((event.at, steps[waiting][1]))
                waiting += 1
        self._steps[task.pid] = moments

    def who(self, pid: int, comm: str) -> str:
        return self._names.get(pid) or ("PID 1" if comm == "systemd" else comm)

    def steps(self, pid: int) -> list[tuple[int, str]]:
        return self._steps.get(pid, [])

    def spans(self, trace: Trace) -> Iterator[tuple[str, Task]]:
        for pid, name in self._names.items():
            yield name, trace.task(pid)


def analysed(events: list[Event], launcher: str, what: Scenario) -> Run:
    """The critical path of one recording. Raises MeasureError."""
    trace = Trace(events)
    actors = Actors(trace, events, launcher, what)
    begin, end = actors.first.at, actors.main.ended
    if not end:
        raise MeasureError("the trace has no end of the command")
    run = Run(total=(end - begin) / 1000)
    for piece in trace.path(actors.main, end, begin):
        for step, since, until in _steps_of(piece, actors):
            run.path[step] = run.path.get(step, 0.0) + (until - since) / 1000
            run.begins.setdefault(step, (since - begin) / 1000)
            if piece.task:
                queued = overlap(piece.task.queues, since, until) / 1000
                run.queued[step] = run.queued.get(step, 0.0) + queued
    for name, task in actors.spans(trace):
        for wait in task.waits:
            if begin < wait.end <= end:
                woken = "interrupt" if wait.interrupt else actors.who(wait.waker, wait.comm)
                took = (wait.end - max(wait.begin, begin)) / 1000
                run.waits[name, woken] = run.waits.get((name, woken), 0.0) + took
    return run


def _steps_of(piece: Piece, actors: Actors) -> Iterator[tuple[tuple[str, str], int, int]]:
    if piece.task is None:
        waiting = actors.who(piece.waiting.pid, piece.waiting.comm) if piece.waiting else ""
        yield (f"kernel ({piece.comm})", f"{waiting} waits"), piece.begin, piece.end
        return
    who = actors.who(piece.task.pid, piece.comm)
    for step, since, until in cut(piece, actors.steps(piece.task.pid)):
        yield (who, step), since, until


class Lab:
    """The build that is looked at, and the tracer."""

    def __init__(self, build: Build, trace: Tracer) -> None:
        self._build = build
        self._tracer = trace

    def plain(self, what: Scenario, number: int) -> float:
        """Milliseconds of one run that is not traced."""
        return self._between(what, number, lambda words: self._build.time(*words))

    def traced(self, what: Scenario, number: int) -> Run:
        """One run that is traced."""

        def take(words: list[str]) -> float:
            with self._tracer.on():
                return self._build.time(*words)

        self._between(what, number, take)
        return analysed(self._tracer.events(), str(self._build.launcher), what)

    def _between(self, what: Scenario, number: int, take: Callable[[list[str]], float]) -> float:
        def words(of: tuple[str, ...]) -> list[str]:
            return [word.replace("%n", str(number)) for word in of]

        if what.before:
            self._build.time(*words(what.before))
        time.sleep(PAUSE)
        took = take(words(what.words))
        if what.after:
            self._build.time(*words(what.after))
        return took


def _mean(runs: list[Run], value: Callable[[Run], float]) -> float:
    return statistics.mean(value(run) for run in runs)


def table(name: str, runs: list[Run], plain: list[float]) -> Iterator[str]:
    """One scenario as Markdown: the path in order of time, and who waited for whom."""
    yield f"\n## `{name}`\n"
    traced = statistics.median(run.total for run in runs)
    yield (
        f"Medians of {len(runs)}: {traced:.1f} ms traced, {statistics.median(plain):.1f} ms not traced (from"
        " posix_spawn to wait4). Means of the quicker half of the traced ones:\n"
    )
    runs = sorted(runs, key=lambda run: run.total)[: (len(runs) + 1) // 2]
    yield "| at | who | step | on the path | of that without a CPU |"
    yield "|---:|---|---|---:|---:|"
    steps = {step for run in runs for step in run.path}
    rows = []
    for step in steps:
        took = _mean(runs, lambda run, step=step: run.path.get(step, 0.0))  # type: ignore[misc]
        queued = _mean(runs, lambda run, step=step: run.queued.get(step, 0.0))  # type: ignore[misc]
        at = statistics.median(run.begins[step] for run in runs if step in run.begins)
        if took >= _SHOWN:
            rows.append((at, f"| {at:.1f} | {step[0]} | {step[1]} | {took:.2f} | {queued:.2f} |"))
    yield from (text for _, text in sorted(rows))
    whole = _mean(runs, lambda run: run.total)
    yield f"| {whole:.1f} | | end | {whole:.2f} | |"
    yield "\n| who | waits for | ms |\n|---|---|---:|"
    for pair in sorted({pair for run in runs for pair in run.waits}):
        took = _mean(runs, lambda run, pair=pair: run.waits.get(pair, 0.0))  # type: ignore[misc]
        if took >= _SHOWN:
            yield f"| {pair[0]} | {pair[1]} | {took:.2f} |"


_SHOWN = 0.05  # milliseconds


def measure(lab: Lab, chosen: dict[str, Scenario], count: int) -> None:
    for name, what in chosen.items():
        say(name)
        runs: list[Run] = []
        plain: list[float] = []
        for number in range(count + 1):
            took, run = lab.plain(what, 2 * number), lab.traced(what, 2 * number + 1)
            if number:  # the first pair warms up
                plain.append(took)
                runs.append(run)
        print("\n".join(table(name, runs, plain)), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench/timeline.py", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=30, metavar="N", help="of each command (30)")
    parser.add_argument("--only", default="", metavar="WORDS", help="commands that begin so")
    here = Path(__file__).resolve().parents[1]
    parser.add_argument("checkout", type=Path, nargs="?", default=here, help="with its .venv")
    arguments = parser.parse_args()
    if not (TRACEFS / "instances").exists() and not os.environ.get(_MOUNTED):
        # in a mount namespace of its own: the machine's mounts stay as they are
        os.environ[_MOUNTED] = "yes"
        script = f'mount -t tracefs tracefs {TRACEFS}; exec "$@"'
        words = ["unshare", "-m", "sh", "-c", script, "sh", sys.executable, "-B", *sys.argv]
        os.execvp(words[0], words)
    chosen = {name: one for name, one in SCENARIOS.items() if name.startswith(arguments.only)}
    try:
        # the tracer first: it follows the processes that are started from now on
        with (
            tracer() as trace,
            booted("timeline", arguments.checkout) as build,
            tempfile.TemporaryDirectory(dir="/var/tmp") as work,
        ):
            archive = Path(work) / "rootfs.tar"
            rootfs.make(Path(work) / "rootfs", archive)
            build.time("import", str(archive), IMAGE)
            build.time("run", "-d", "--name", "up", IMAGE, "sleep", "1000")
            build.time("network", "create", NETWORK)
            print(f"# Where the time goes\n\nload before: {load()}")
            measure(Lab(build, trace), chosen, arguments.runs)
    except (MeasureError, subprocess.CalledProcessError) as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
