"""Progress of a pull or a push: on a terminal a bar for each blob, elsewhere a line for each step.

A service that pulls tells systemd about it (sd_notify(3)): what it does, and that it needs more time.
"""

from __future__ import annotations

import posix
import signal
import time

from sysbox.cli import screen
from sysbox.cli.output import emit, write_all
from sysbox.docker.human import human_size
from sysbox.linux import unix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from sysbox.image.documents import Descriptor

_PAUSE = 0.1  # seconds between two drawings
_NOTICE = 5.0  # seconds between two messages to systemd
_EXTENSION = 60_000_000  # microseconds
_BEAT = 15.0  # seconds between two messages while nothing moves
_BAR = 24  # characters
_DONE = ("done", "exists", "mounted", "pushed")


class _Row:
    """One blob."""

    def __init__(self, blob: Descriptor, now: float) -> None:
        self.name = blob.digest[7:19]
        self.size = blob.size
        self.here = 0  # bytes
        self.word = "waiting"
        self.begun = now

    def text(self, now: float, width: int = 80) -> str:
        """A line of fewer than `width` characters; a narrow one has no bar, or the share alone."""
        if self.word in _DONE:
            return f"{self.name}  {self.word}  {human_size(self.size)}"[: width - 1]
        part = min(self.here / self.size, 1.0) if self.size else 1.0
        bar = ("#" * int(part * _BAR)).ljust(_BAR)
        rate = human_size(int(self.here / max(now - self.begun, 0.001)))
        amount = f"{human_size(self.here):>7} of {human_size(self.size):<7}"
        last = rate + "/s" if self.here else self.word
        texts = (
            f"{self.name}  [{bar}] {amount} {last}",
            f"{self.name} {amount} {last}",
            f"{self.name} {part:4.0%}",
        )
        return next((one for one in texts if len(one) < width), texts[-1][: width - 1])


class LayerProgress:
    """`tell` and `state` get the index of a blob, as the reports of registry/pull.py and push.py do."""

    def __init__(
        self, *, quiet: bool, fd: int = 2, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fd = -1 if quiet else fd
        dumb = posix.environ.get(b"TERM") == b"dumb"  # it cannot move its cursor
        self._live = not quiet and not dumb and posix.isatty(fd)
        self._clock = clock
        self._rows: list[_Row] = []
        self._drawn = 0  # lines on the terminal that the next drawing replaces
        self._next = 0.0
        self._notify = posix.environ.get(b"NOTIFY_SOCKET", b"").decode("utf-8", "surrogateescape")
        self._next_notice = 0.0
        self.status = ""  # of a service

    @property
    def is_of_service(self) -> bool:
        """Whether systemd listens to this process."""
        return bool(self._notify)

    def extend(self, seconds: float = 0.0) -> None:
        """Ask systemd for so many seconds beyond the usual ones."""
        micros = _EXTENSION + int(seconds * 1_000_000)
        self._notify_systemd(f"EXTEND_TIMEOUT_USEC={micros}\n")

    def say(self, text: str) -> None:
        """A step of the whole, which also is the status of a service."""
        self.notify(text)
        if self._fd >= 0:
            self.finish()
            emit(f"{text}\n", self._fd)

    def notify(self, text: str) -> None:
        """The status of a service."""
        self.status = text
        self._next_notice = 0.0
        self._tell_systemd()

    def conclude(self, *lines: str) -> None:
        """The result; a service has no status of it, as that would stay for as long as it runs."""
        self.finish()
        if self._fd >= 0:
            emit("".join(f"{line}\n" for line in lines), self._fd)
        self._notify_systemd("STATUS=\n")

    def blobs(self, blobs: Sequence[Descriptor]) -> None:
        """The blobs are known."""
        now = self._clock()
        self._rows = [_Row(one, now) for one in blobs]

    def tell(self, index: int, size: int) -> None:
        """So many bytes of a blob are here, or sent."""
        row = self._rows[index]
        if not row.here:
            row.begun = self._clock()
        row.here = size
        self._draw()
        self._tell_systemd()

    def state(self, index: int, word: str) -> None:
        """What happens with a blob now."""
        row = self._rows[index]
        changed, row.word = row.word != word, word
        if self._live:
            self._draw(force=word in _DONE)
        elif changed and self._fd >= 0:
            emit(f"{row.name}: {word}, {human_size(row.size)}\n", self._fd)
        self._tell_systemd()

    def finish(self) -> None:
        """Draw it a last time, and leave it there."""
        if self._drawn:
            self._draw(force=True)
        self._drawn, self._rows = 0, []

    def _draw(self, *, force: bool = False) -> None:
        now = self._clock()
        if not self._live or (now < self._next and not force):
            return
        self._next = now + _PAUSE
        width, height = screen.size(self._fd)
        # what does not fit would scroll away and could not be drawn again: the lines still at work are shown
        rows = self._rows
        if len(rows) >= height:
            rows = [row for row in rows if row.word not in _DONE][: height - 2]
        lines = [row.text(now, width) for row in rows]
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        text = up + "".join(f"\r\x1b[K{line}\n" for line in lines)
        if self._drawn > len(lines):
            text += "\x1b[J"
        self._drawn = len(lines)
        write_all(self._fd, text.encode())

    def _tell_systemd(self) -> None:
        now = self._clock()
        if not self._notify or now < self._next_notice:
            return
        self._next_notice = now + _NOTICE
        here = sum(row.size if row.word in _DONE else row.here for row in self._rows)
        whole = sum(row.size for row in self._rows)
        amount = f", {human_size(here)} of {human_size(whole)}" if whole else ""
        message = f"STATUS={self.status}{amount}\nEXTEND_TIMEOUT_USEC={_EXTENSION}\n"
        self._notify_systemd(message)

    def _notify_systemd(self, message: str) -> None:
        if not self._notify:
            return
        try:
            unix.notify(self._notify, message)
        except OSError:
            self._notify = ""  # nobody listens there


class Extended:
    """A service that starts asks for more time while this context manager is open, whatever it waits for.

    Each wait has a limit of its own: for a server, a lock, a process. The timer does not outlive the context:
    it would be the next program's (execve(2)).
    """

    def __init__(self, progress: LayerProgress) -> None:
        self._progress = progress
        self._before: Any = None

    def __enter__(self) -> None:
        if self._progress.is_of_service:
            self._before = signal.signal(signal.SIGALRM, self._beat)
            signal.setitimer(signal.ITIMER_REAL, _BEAT, _BEAT)

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)

    def _beat(self, *_: object) -> None:
        self._progress.extend()
