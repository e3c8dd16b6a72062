"""One start or stop of a host at a time."""

from __future__ import annotations

import os

from sysbox.base import files, flock
from sysbox.embedded import state


class Lock(flock.Lock):
    """An exclusive lock on a host's name; its file is gone when nobody holds or awaits it."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{state.RUN}/{name}.lock")

    def release(self) -> None:
        """And its directory, with the last host."""
        files.unlink(self.path)
        super().release()
        try:
            os.rmdir(state.RUN)
        except OSError:
            pass  # another host is there, or another command: ignoring
