"""Time whole processes: from posix_spawn(3) to the return of wait4(2), on the monotonic clock."""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

PATH = "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
# seconds between two runs, so that work left to a daemon by one does not slow the next
PAUSE = 0.05
LIMIT = 120  # seconds for one process
_SHOWN = 400  # bytes of a failed process's standard error that are shown


class MeasureError(Exception):
    """A measure that could not be taken, and why."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command to time: an absolute path and arguments, and its environment besides PATH."""

    argv: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    terminal: bool = False  # standard input and output are a terminal, not /dev/null


@dataclass(frozen=True, slots=True)
class Begun:
    """A running command."""

    command: Command
    pid: int
    begin: int  # nanoseconds on the monotonic clock
    stderr: int  # the file for its standard error
    terminal: tuple[int, ...] = ()  # both ends of its terminal


def spawn(command: Command) -> Begun:
    """Start a command; raises MeasureError.

    Standard input and output are /dev/null, as in a script that uses only the exit status, or a terminal.
    """
    environment = {"PATH": PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", **command.environment}
    stderr = os.memfd_create("stderr")
    terminal = os.openpty() if command.terminal else ()
    if terminal:
        actions = [(os.POSIX_SPAWN_DUP2, terminal[1], fd) for fd in (0, 1)]
    else:
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
        ]
    actions.append((os.POSIX_SPAWN_DUP2, stderr, 2))
    begin = time.monotonic_ns()
    try:
        pid = os.posix_spawn(command.argv[0], command.argv, environment, file_actions=actions)
    except OSError as error:
        for fd in (stderr, *terminal):
            os.close(fd)
        raise MeasureError(f"{command.argv[0]}: {error.strerror}") from None
    return Begun(command, pid, begin, stderr, terminal)


def finish(begun: Begun, wait_status: int) -> float:
    """Milliseconds from the start until now, for a command that has ended.

    Raises MeasureError, with the end of its standard error, unless its status is 0.
    """
    end = time.monotonic_ns()
    try:
        status = os.waitstatus_to_exitcode(wait_status)
        if status:
            words = os.pread(begun.stderr, 1 << 16, 0)[-_SHOWN:].decode(errors="replace").strip()
            argv = " ".join(begun.command.argv)[:200]
            raise MeasureError(f"`{argv}` ended with {status}: {words}")
    finally:
        for fd in (begun.stderr, *begun.terminal):
            os.close(fd)
    return (end - begun.begin) / 1e6


def timed(command: Command) -> float:
    """Milliseconds that a command took; raises MeasureError unless its status is 0."""
    begun = spawn(command)
    signal.alarm(LIMIT)
    _, wait_status, _ = os.wait4(begun.pid, 0)
    signal.alarm(0)
    return finish(begun, wait_status)


@contextmanager
def alarms() -> Iterator[None]:
    """A context in which a process that takes longer than LIMIT raises MeasureError: wait4 is interrupted."""

    def expired(*_: object) -> None:
        raise MeasureError(f"still running after {LIMIT} s")

    before = signal.signal(signal.SIGALRM, expired)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@dataclass(frozen=True, slots=True)
class Sample:
    """The times of one contestant in one measure, in milliseconds."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def lowest(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        """The 90th percentile."""
        ordered = sorted(self.values)
        return ordered[round(0.9 * (len(ordered) - 1))]


def sampled(values: Mapping[str, Mapping[str, list[float]]]) -> dict[str, dict[str, Sample]]:
    """measure -> contestant -> its times, from the milliseconds of each."""
    return {
        title: {name: Sample(tuple(kept)) for name, kept in found.items()}
        for title, found in values.items()
    }


def paired(
    one: Callable[[int], float], other: Callable[[int], float], count: int
) -> tuple[list[float], list[float]]:
    """The milliseconds of two measures, each called `count` times with the number of its pair.

    Which of them is the first alternates, and the pair number 0, which warms up, does not count. Raises
    MeasureError.
    """
    times: tuple[list[float], list[float]] = ([], [])
    kinds = tuple(zip(times, (one, other), strict=True))
    for number in range(count + 1):
        for kept, measure in kinds if number % 2 else kinds[::-1]:
            time.sleep(PAUSE)
            took = measure(number)
            if number:
                kept.append(took)
    return times


def interleaved(
    contestants: Mapping[str, Callable[[int], float]],
    rounds: int,
    failed: Callable[[str, MeasureError], None],
    *,
    warm_up: bool = True,
) -> dict[str, Sample]:
    """Call each contestant once a round, A B C A B C; one that fails is reported and left out from then on.

    A contestant is called with the number of its run. The warm-up round, number 0, does not count.
    """
    values: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(0 if warm_up else 1, rounds + 1):
        for name in tuple(values):
            time.sleep(PAUSE)
            try:
                milliseconds = contestants[name](number)
            except MeasureError as error:
                failed(name, error)
                del values[name]
                continue
            if number:
                values[name].append(milliseconds)
    return {name: Sample(tuple(kept)) for name, kept in values.items()}
