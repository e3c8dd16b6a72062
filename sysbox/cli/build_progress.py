"""Progress of a build: on a terminal the steps with their times and last lines, elsewhere plain lines."""

from __future__ import annotations

import posix
import time

from sysbox.base.errors import UsageError
from sysbox.base.visible import for_terminal, printable
from sysbox.build.workers import Report
from sysbox.cli import screen
from sysbox.cli.output import emit, write_all
from sysbox.docker.human import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.build.model import Instruction, Stage

_PAUSE = 0.1  # seconds between two drawings
_PLAIN_PAUSE = 5.0  # seconds between two lines of progress
_LINES = 4  # of a running step
_SHOWN = 120  # characters of an instruction
_LONGEST = 1 << 16  # bytes that wait for an end of line


def shown(kind: str, *, quiet: bool) -> Report:
    """The report for --progress: auto, tty, plain or quiet. Raises UsageError for tty without a terminal."""
    if quiet or kind == "quiet":
        return Report()
    if kind == "tty" and not posix.isatty(2):
        raise UsageError(
            "--progress tty: standard error is no terminal", hint="plain has all lines"
        )
    dumb = posix.environ.get(b"TERM") == b"dumb"
    if kind == "tty" or (kind == "auto" and posix.isatty(2) and not dumb):
        return Live()
    return Plain()


def _title(one: Stage, number: int) -> str:
    return f"[{one.title()} {number}/{len(one.instructions)}]"


def _text(instruction: Instruction) -> str:
    text = printable(instruction.text)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _so_far(what: str, files: int, size: int) -> str:
    """As "120,000 files, 3.2GB read so far"."""
    counted = [f"{files:,} files"] if files else []
    return f"{', '.join((*counted, human_size(size)))} {what} so far"


class Plain(Report):
    """A line for each event, and the output line by line."""

    def __init__(self, fd: int = 2, clock: Callable[[], float] = time.monotonic) -> None:
        self._fd = fd
        self._clock = clock
        self._next = 0.0  # when a line of progress may come
        self._rest: dict[int, bytes] = {}  # of a stage's output: what has no end of line yet
        self._several = False
        self._stages: list[Stage] = []

    def stage_begins(self, one: Stage) -> None:
        self._several = self._several or bool(self._rest)
        self._rest[one.index] = b""
        self._stages.append(one)

    def step_begins(self, one: Stage, number: int, instruction: Instruction) -> None:
        emit(f"{_title(one, number)} {_text(instruction)}\n", self._fd)

    def output(self, one: Stage, data: bytes) -> None:
        *lines, rest = (self._rest[one.index] + data).split(b"\n")
        if len(rest) > _LONGEST:
            # a step that prints no end of line cannot fill the memory
            lines, rest = [*lines, rest], b""
        self._rest[one.index] = rest
        prefix = f"{one.title()}| " if self._several else ""
        for line in lines:
            text = line.decode("utf-8", "replace").rstrip("\r")
            emit(for_terminal(f"{prefix}{text}\n", self._fd), self._fd)

    def so_far(self, one: Stage, what: str, files: int, size: int) -> None:
        now = self._clock()
        if now >= self._next:
            self._next = now + _PLAIN_PAUSE
            emit(f"[{one.title()}] {_so_far(what, files, size)}\n", self._fd)

    def step_done(self, one: Stage, number: int, *, cached: bool, seconds: float) -> None:
        if self._rest[one.index]:
            self.output(one, b"\n")
        how = "CACHED" if cached else f"DONE {seconds:.1f}s"
        if cached or seconds >= 0.05:
            emit(f"{_title(one, number)} {how}\n", self._fd)

    def finish(self) -> None:
        """What a step that failed has printed last may have no end of line."""
        for one in self._stages:
            if self._rest[one.index]:
                self.output(one, b"\n")


class _Row:
    """A step that is shown."""

    def __init__(self, title: str, text: str, now: float) -> None:
        self.title = title
        self.text = text
        self.begun = now
        self.lines: list[str] = []
        self.rest = ""
        self.so_far = ""


class Live(Report):
    """What is done scrolls away, what runs is drawn again and again below it."""

    def __init__(self, fd: int = 2, clock: Callable[[], float] = time.monotonic) -> None:
        self._fd = fd
        self._clock = clock
        self._rows: dict[int, _Row] = {}
        self._drawn = 0
        self._next = 0.0

    def step_begins(self, one: Stage, number: int, instruction: Instruction) -> None:
        self._rows[one.index] = _Row(_title(one, number), _text(instruction), self._clock())
        self._draw(())

    def output(self, one: Stage, data: bytes) -> None:
        row = self._rows[one.index]
        text = row.rest + data.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
        *lines, rest = text.split("\n")
        row.rest = rest[-_LONGEST:]
        row.lines = [*row.lines, *(printable(line.expandtabs()) for line in lines)][-_LINES:]
        if self._clock() >= self._next:
            self._draw(())

    def so_far(self, one: Stage, what: str, files: int, size: int) -> None:
        self._rows[one.index].so_far = _so_far(what, files, size)
        self.tick()

    def step_done(self, one: Stage, number: int, *, cached: bool, seconds: float) -> None:  # noqa: ARG002
        row = self._rows.pop(one.index)
        how = "CACHED" if cached else f"{seconds:.1f}s"
        self._draw((f"{row.title} {row.text}", how))

    def tick(self) -> None:
        if self._rows and self._clock() >= self._next:
            self._draw(())

    def finish(self) -> None:
        """Take away what is drawn again and again: the build has ended."""
        self._rows = {}
        self._draw(())

    def _draw(self, done: tuple[str, ...]) -> None:
        self._next = self._clock() + _PAUSE
        width, height = screen.size(self._fd)
        lines: list[str] = []
        for row in self._rows.values():
            seconds = f"{self._clock() - row.begun:.1f}s"
            lines.append(_fit(f"{row.title} {row.text}", seconds, width))
            told = [*row.lines, *filter(None, [row.so_far])]
            lines += [f"  {line}"[: width - 1] for line in told]
        lines = lines[: height - 2]
        above = f"{_fit(done[0], done[1], width)}\n" if done else ""
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        body = "".join(f"\x1b[K{line}\n" for line in lines)
        head = f"\x1b[K{above}" if above else ""
        write_all(self._fd, f"{up}\r{head}{body}\x1b[J".encode())
        self._drawn = len(lines)


def _fit(text: str, right: str, width: int) -> str:
    """A line with a word at its right end."""
    room = max(width - len(right) - 2, 1)
    return f"{text[:room]:<{room}} {right}"
