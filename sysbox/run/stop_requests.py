"""Hearing that systemd is asked to stop a scope whose supervisor is no service of systemd's.

A scope in the foreground has a KillSignal= that does nothing (see scopeplan.py), since systemd sends it to
every process. What the container's first process is to get, its supervisor sends when it hears of the job.
"""

from __future__ import annotations

from sysbox import scope
from sysbox.base.errors import SystemdError
from sysbox.units.bus import is_lost

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.units.bus import Bus

_PATIENCE = 10.0  # seconds


class StopRequests:
    """A connection to systemd that can be polled, which is closed with this. Raises SystemdError."""

    def __init__(self, bus: Bus, unit: str) -> None:
        self._unit = unit
        self._bus = bus
        self._bus.watch("JobNew")
        self.asked = False
        self._look()

    def _look(self) -> None:
        """Once on each connection: it may have been asked for before."""
        active, job = scope.progress(self._bus, self._unit)
        # a job that is still queued was told of before, and will not be again
        self.asked = self.asked or active == "deactivating" or job != 0
        # what came together with the answer wakes nobody any more
        self._take(self._bus.pending("JobNew"))

    def _take(self, jobs: list[tuple[Any, ...]]) -> None:
        self.asked = self.asked or any(job[2] == self._unit for job in jobs)

    def fileno(self) -> int:
        """For poll(2); another one after each `read`, maybe."""
        return self._bus.fileno()

    def read(self) -> None:
        """There is something to read: learn whether a stop was `asked` for.

        Raises SystemdError when systemd is gone.
        """
        try:
            self._take(self._bus.pending("JobNew"))
        except SystemdError as error:
            if not is_lost(error):
                raise
            # PID 1 executes itself anew
            self._bus.retry(self._look, _PATIENCE)

    def close(self) -> None:
        self._bus.close()
