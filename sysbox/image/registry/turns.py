"""Pulls of one name by several commands, as by services that start at once: one pulls, the others wait.

The lock is /run/sysbox/pulls/<SHA-256 of the name>.lock. Its content is when the last pull that succeeded
began: whoever asked before that need not pull again.
"""

from __future__ import annotations

import posix
import time

from sysbox.base.errors import Conflict
from sysbox.base.flock import Lock
from sysbox.base.paths import RUN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_STEP = 0.1  # seconds between two tries for a lock
_DIGITS = 20


class Turn(Lock):
    """The turn of this process; a context manager. Raises KernelError."""

    def __init__(self, name: str, waiting: Callable[[], object]) -> None:
        """Waits for it, and calls `waiting` again and again meanwhile."""
        from hashlib import sha256

        asked = _now()
        path = f"{RUN}/pulls/{sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()}.lock"
        while True:
            try:
                super().__init__(path, wait=False)
                break
            except Conflict:
                waiting()
                time.sleep(_STEP)
        last = posix.pread(self._fd, _DIGITS, 0)
        # another command has begun, and finished, a pull since this one asked for it
        self.is_done = last.isdigit() and int(last) >= asked
        self._begun = _now()

    def succeeded(self) -> None:
        """The pull is done: those that asked before it began need none."""
        posix.ftruncate(self._fd, 0)
        posix.pwrite(self._fd, b"%d" % self._begun, 0)


def _now() -> int:
    """Nanoseconds since boot."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
