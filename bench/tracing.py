"""Record what processes do and who wakes whom, with the kernel's tracer (tracefs, Documentation/trace).

The programs need no marks of their own: the marks are their system calls. Only this process and its
descendants are recorded, with times of CLOCK_MONOTONIC.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from timing import MeasureError

TRACEFS = Path("/sys/kernel/tracing")
_NAME = "sysbox-timeline"
_SCHEDULER = "switch waking process_fork process_exec process_exit".split()
_CALLS = """
    clone clone3 close_range connect execve execveat exit_group flock mkdir pivot_root poll preadv2 recvfrom
    recvmsg rt_sigprocmask seccomp sendmsg sendto setns umount unshare wait4 waitid
""".split()
_BUFFER = 16 << 10  # KiB for each CPU
_LINE = re.compile(
    r"^\s*(?P<comm>.+)-(?P<pid>\d+)\s+\[\d+\]\s+(?P<flags>\S+)\s+(?P<seconds>\d+)\.(?P<fraction>\d+): "
    r"(?:(?P<call>sys_\w+)(?P<side>\(| -> )|(?P<event>\w+): )(?P<text>.*)$"
)
_INTERRUPT = frozenset("hHszZ")  # in the third of the flags


@dataclass(frozen=True, slots=True)
class Event:
    """One record of the trace."""

    at: int  # microseconds on the monotonic clock
    pid: int  # of the process that was running
    comm: str
    interrupt: bool  # in the context of an interrupt
    name: str  # "sched_switch", "unshare" for the begin of a system call, "unshare>" for its end
    text: str


def parse(lines: Iterator[str]) -> Iterator[Event]:
    """The events in the text of a `trace` file. Raises MeasureError if some were lost."""
    for line in lines:
        if "LOST" in line and "EVENTS" in line:
            raise MeasureError("the tracer's buffer was too small")
        found = _LINE.match(line)
        if not found:
            continue
        name = found["event"]
        if name is None:
            name = found["call"].removeprefix("sys_") + (">" if found["side"] == " -> " else "")
        at = int(found["seconds"]) * 1_000_000 + int(found["fraction"][:6].ljust(6, "0"))
        context = found["flags"][2:3] in _INTERRUPT
        yield Event(at, int(found["pid"]), found["comm"], context, name, found["text"])


class Tracer:
    """An instance of the kernel's tracer, for this process and the descendants that it will have."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._write("tracing_on", "0")
        self._write("trace_clock", "mono")
        self._write("buffer_size_kb", str(_BUFFER))
        self._write("options/event-fork", "1")
        self._write("set_event_pid", str(os.getpid()))
        for name in _SCHEDULER:
            self._write(f"events/sched/sched_{name}/enable", "1")
        for name in _CALLS:
            for side in ("enter", "exit"):
                if (directory / f"events/syscalls/sys_{side}_{name}").exists():
                    self._write(f"events/syscalls/sys_{side}_{name}/enable", "1")

    def _write(self, name: str, text: str) -> None:
        (self._directory / name).write_text(text)

    @contextmanager
    def on(self) -> Iterator[None]:
        """Record, from an empty buffer."""
        self._write("trace", "")
        self._write("tracing_on", "1")
        try:
            yield
        finally:
            self._write("tracing_on", "0")

    def events(self) -> list[Event]:
        """What was recorded last. Raises MeasureError."""
        with (self._directory / "trace").open(errors="replace") as lines:
            return list(parse(iter(lines)))


@contextmanager
def tracer() -> Iterator[Tracer]:
    """A new instance, which is removed afterwards. Raises MeasureError where the kernel has no tracer."""
    directory = TRACEFS / "instances" / f"{_NAME}-{os.getpid()}"
    try:
        directory.mkdir()
    except OSError as error:
        raise MeasureError(f"{directory}: {error.strerror}: needs root, and tracefs") from None
    try:
        yield Tracer(directory)
    except OSError as error:
        raise MeasureError(f"{error.filename}: {error.strerror}") from None
    finally:
        _remove(directory)


def _remove(directory: Path) -> None:
    for _ in range(50):
        try:
            directory.rmdir()
        except OSError:  # a reader still has it open
            time.sleep(0.1)
        else:
            break
