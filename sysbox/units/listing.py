"""The units that systemd has loaded."""

from __future__ import annotations

from sysbox.base.frozen import Frozen
from sysbox.units.bus import MANAGER, MANAGER_PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.units.bus import Bus


class UnitStatus(Frozen):
    """What is needed of one line of `systemctl list-units`."""

    name: str
    description: str
    active_state: str


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
        )
        for one in units
    ]
