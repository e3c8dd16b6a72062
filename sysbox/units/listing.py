"""The units that systemd has loaded."""

from __future__ import annotations

from sysbox.base.frozen import Frozen
from sysbox.units.bus import MANAGER, MANAGER_PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.units.bus import Bus

_GONE = ("inactive", "failed")


class UnitStatus(Frozen):
    """What is needed of one line of `systemctl list-units`."""

    name: str
    description: str
    active_state: str
    job: int = 0  # the number of its queued or running job; 0 where it has none

    @property
    def is_wanted(self) -> bool:
        """Whether it is active, or becomes so: a start that waits for another unit is queued."""
        return bool(self.job) or self.active_state not in _GONE


def list_units(bus: Bus, pattern: str) -> list[UnitStatus]:
    """The loaded units whose name matches a shell pattern, such as `docker-*.scope`."""
    asked = ((), (pattern,))
    (units,) = bus.retry(
        lambda: bus.call(MANAGER_PATH, MANAGER, "ListUnitsByPatterns", "asas", asked)
    )
    return [
        UnitStatus(
            name=one[0],
            description=one[1],
            active_state=one[3],
            job=one[7],
        )
        for one in units
    ]
