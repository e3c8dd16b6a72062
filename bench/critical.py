"""The critical path through a trace: backwards from an end, from each process that waited to its waker."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tracing import Event

IDLE = 0  # the pid of a CPU that does nothing: an interrupt woke the process
_NUMBER = re.compile(r"(\w*pid)=(\d+)")
_STATE = re.compile(r"prev_state=(\w)")
_LIMIT = 10_000  # pieces of one path


@dataclass(frozen=True, slots=True)
class Wait:
    """A process did not run, from `begin` on, until another one woke it; times in microseconds."""

    begin: int
    end: int
    waker: int
    comm: str  # of the waker
    interrupt: bool


@dataclass(slots=True)
class Task:
    """One process (a thread is one, too)."""

    pid: int
    born: int = 0
    parent: int = IDLE
    comm: str = ""
    events: list[Event] = field(default_factory=list)  # its own
    waits: list[Wait] = field(default_factory=list)
    queues: list[tuple[int, int]] = field(default_factory=list)  # it could run, and had no CPU
    ended: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the critical path: what `task` did, or None where only the kernel worked."""

    begin: int
    end: int
    task: Task | None
    comm: str
    waiting: Task | None = None  # for the kernel


def _numbers(event: Event) -> dict[str, int]:
    return {name: int(value) for name, value in _NUMBER.findall(event.text)}


class Trace:
    """The processes of one recording."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.tasks: dict[int, Task] = {}
        self._blocked: dict[int, int] = {}  # pid -> since when
        self._ready: dict[int, int] = {}
        self._seen: set[int] = set()
        self._first: int | None = None  # when the recording began
        for event in events:
            self._add(event)

    def task(self, pid: int) -> Task:
        return self.tasks.setdefault(pid, Task(pid))

    def _add(self, event: Event) -> None:
        if self._first is None:
            self._first = event.at
        task = self.task(event.pid)
        task.comm = event.comm
        self._seen.add(event.pid)
        if event.name == "sched_switch":
            self._switch(event, _numbers(event))
        elif event.name == "sched_waking":
            self._wake(event, _numbers(event)["pid"])
        elif event.name == "sched_process_fork":
            child = _numbers(event)["child_pid"]
            self.tasks[child] = Task(child, event.at, event.pid)
            self._ready[child] = event.at
        else:
            if event.name == "sched_process_exit":
                task.ended = event.at
            task.events.append(event)

    def _switch(self, event: Event, numbers: dict[str, int]) -> None:
        state = _STATE.search(event.text)
        if numbers["prev_pid"] != IDLE:
            waits = state is not None and state[1] != "R"
            (self._blocked if waits else self._ready)[numbers["prev_pid"]] = event.at
        comes = numbers["next_pid"]
        self._seen.add(comes)
        if comes in self._ready:
            self.task(comes).queues.append((self._ready.pop(comes), event.at))

    def _wake(self, event: Event, pid: int) -> None:
        # of a process that has not run yet in the recording: it has slept since before
        since = self._blocked.pop(pid, None if pid in self._seen else self._first)
        if since is not None:
            task = self.task(pid)
            task.waits.append(Wait(since, event.at, event.pid, event.comm, event.interrupt))
            self._ready[pid] = event.at
            self._seen.add(pid)

    def path(self, task: Task, end: int, begin: int) -> list[Piece]:
        """What the end of `task` at `end` waited for, back to `begin`; in order of time."""
        pieces: list[Piece] = []
        while end > begin and len(pieces) < _LIMIT:
            at = bisect_left(task.waits, end, key=lambda one: one.end) - 1
            wait = task.waits[at] if at >= 0 else None
            since = max(wait.end if wait else task.born, begin)
            pieces.append(Piece(since, end, task, task.comm))
            end = since
            if wait is None or end <= begin:
                if task.parent not in self.tasks:
                    break
                task = self.tasks[task.parent]
            elif wait.interrupt or not self._is_known(wait.waker):
                who = "interrupt" if wait.waker == IDLE or wait.interrupt else wait.comm
                pieces.append(Piece(max(wait.begin, begin), end, None, who, task))
                end = wait.begin
            else:
                task = self.tasks[wait.waker]
        return pieces[::-1]

    def _is_known(self, pid: int) -> bool:
        """Whether its own waits were recorded, and not only a moment of it, as of the kernel's threads."""
        found = self.tasks.get(pid)
        return found is not None and bool(found.events or found.born)


def overlap(spans: Iterable[tuple[int, int]], begin: int, end: int) -> int:
    """How much of some spans is between two times."""
    return sum(max(0, min(stop, end) - max(start, begin)) for start, stop in spans)


def cut(piece: Piece, moments: Iterable[tuple[int, str]]) -> Iterator[tuple[str, int, int]]:
    """(step, begin, end) of a piece, cut at the moments at which its task begins a step."""
    name, begin = "", piece.begin
    for at, step in moments:
        if at >= piece.end:
            break
        if at > begin:
            yield name, begin, at
            begin = at
        name = step
    yield name, begin, piece.end
