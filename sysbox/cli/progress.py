"""Progress of a long operation: one line on a terminal, shown after a second, erased at the end."""

from __future__ import annotations

import posix
import time

from sysbox.cli.output import write_all
from sysbox.docker.human import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

_PATIENCE = 1.0  # seconds before the line appears
_PAUSE = 0.2  # seconds between two updates of it
_CLEAR = "\r\x1b[K"


class Progress:
    """A context manager; call it with the number of bytes processed since the last call.

    `what` is the verb: "cp", "export". Prints nothing if `fd` is -1 or not a terminal.
    """

    def __init__(self, what: str, fd: int = 2, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._fd = fd
        self._clock = clock
        self._next = clock() + _PATIENCE if fd >= 0 and posix.isatty(fd) else float("inf")
        self._bytes = 0
        self._shown = False

    def __call__(self, count: int) -> None:
        self._bytes += count
        now = self._clock()
        if now < self._next:
            return
        self._next = now + _PAUSE
        self._shown = True
        write_all(self._fd, f"{_CLEAR}{self._what}: {human_size(self._bytes)}".encode())

    def clear(self) -> None:
        """Erase the line, before something else is written to the terminal."""
        if self._shown:
            write_all(self._fd, _CLEAR.encode())
            self._shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()
