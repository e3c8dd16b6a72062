"""The lock of an embedded host: one start or stop at a time."""

from __future__ import annotations

import os

from sysbox.base import files, flock
from sysbox.embedded import state


class Lock(flock.Lock):
    """An exclusive lock on a host's name; releasing it removes its file."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{state.RUN}/{name}.lock")

    def release(self) -> None:
        """Remove the file, release the lock, and remove the hosts' directory if it is empty."""
        files.unlink(self.path)
        super().release()
        try:
            os.rmdir(state.RUN)
        except OSError:
            pass  # ignoring: another host or another command uses it
