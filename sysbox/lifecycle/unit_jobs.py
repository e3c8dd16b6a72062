"""Restart the service of a declaration."""

from __future__ import annotations

from sysbox import scope
from sysbox.units.bus import MANAGER, MANAGER_PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.units.bus import Bus

_JOB = 24 * 3600.0  # seconds for a restart: the service's own times end it before


def restart(bus: Bus, unit: str, within: float = _JOB) -> None:
    """Restart a service, as `systemctl restart`; returns once it is up.

    Raises SystemdError, also after `within` seconds: systemd goes on then.
    """
    bus.watch("JobRemoved")
    (job,) = bus.retry(
        lambda: bus.call(MANAGER_PATH, MANAGER, "RestartUnit", "ss", (unit, "replace"))
    )
    scope.wait_job(bus, unit, job, "restart", within)
