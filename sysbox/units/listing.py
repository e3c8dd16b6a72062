"""The units that systemd has loaded."""

from __future__ import annotations

from sysbox.base.frozen import Frozen
from sysbox.units.bus import MANAGER, MANAGER_PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.units.bus import Bus


class UnitStatus(Frozen):
    """One line of `list_units`."""

    name: str
    description: str
    load_state: str
    active_state: str
    sub_state: str


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
            load_state=one[2],
            active_state=one[3],
            sub_state=one[4],
        )
        for one in units
    ]
