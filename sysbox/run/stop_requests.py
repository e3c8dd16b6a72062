"""Learn that systemd is asked to stop a scope whose supervisor is a command in the foreground.

Such a scope has a KillSignal= that does nothing (see scopeplan.py), since systemd sends it to every process.
The supervisor sends the stop signal to the container's first process when it learns of the stop job.
"""

from __future__ import annotations

from sysbox import scope
from sysbox.base.errors import SystemdError
from sysbox.units.bus import MANAGER_PATH, PROPERTIES, SYSTEMD, is_lost

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.units.bus import Bus

_PATIENCE = 10.0  # seconds
_JOBS = f"{MANAGER_PATH}/job/"


class StopRequests:
    """Watches a scope over `bus`, which can be polled and which `close` closes. Raises SystemdError.

    If the bus has watched JobNew since before the start was requested, PID 1 need not be asked. It would
    answer only after its work on the end of a command that has ended at once.
    """

    def __init__(self, bus: Bus, unit: str, starts: tuple[str, ...] = ()) -> None:
        """`starts` are the paths of the jobs that have started the scope."""
        self._unit = unit
        self._bus = bus
        self._starts = starts
        self.asked = False
        if bus.has_all("JobNew"):
            self.read()
        else:
            self._look()

    def _look(self) -> None:
        """Look once on each new connection: the stop may have been requested before."""
        self._bus.watch("JobNew")
        active, job = scope.progress(self._bus, self._unit)
        self.asked = self.asked or active == "deactivating"
        # systemd has announced a queued job already, and does not repeat that
        self._take([(job, f"{_JOBS}{job}", self._unit)] if job else [])

    def _take(self, jobs: list[tuple[Any, ...]]) -> None:
        while not self.asked:
            self.asked = any(
                job[2] == self._unit and job[1] not in self._starts and self._stops(job[1])
                for job in jobs
            )
            # signals read along with a reply will not make the fd readable again: take them now
            jobs = self._bus.pending("JobNew")
            if not jobs:
                return

    def _stops(self, job: str) -> bool:
        """Whether a job stops the scope; that of `systemctl start` changes nothing."""
        try:
            (kind,) = self._bus.call(job, PROPERTIES, "Get", "ss", (f"{SYSTEMD}.Job", "JobType"))
        except SystemdError as error:
            if is_lost(error):
                raise
            # it has ended, as that of a scope which has yet to stop does not
            return scope.active_state(self._bus, self._unit) != "active"
        return kind in ("stop", "restart")

    def fileno(self) -> int:
        """The descriptor for poll(2), which `read` may change."""
        return self._bus.fileno()

    def read(self) -> None:
        """Read what has arrived; sets `asked` if a stop was requested.

        Raises SystemdError when systemd is gone.
        """
        try:
            self._take(self._bus.pending("JobNew"))
        except SystemdError as error:
            if not is_lost(error):
                raise
            # PID 1 re-executes itself
            self._bus.retry(self._look, _PATIENCE)

    def close(self) -> None:
        self._bus.close()
