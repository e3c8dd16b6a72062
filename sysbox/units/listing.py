"""The units that systemd has loaded."""

from __future__ import annotations

from sysbox.base.errors import SystemdError
from sysbox.base.frozen import Frozen
from sysbox.units import names
from sysbox.units.bus import MANAGER, MANAGER_PATH, PROPERTIES, SYSTEMD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.units.bus import Bus

_AT_ONCE = 64  # questions to systemd whose answers it has to keep meanwhile
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


def commands(bus: Bus, services: list[str]) -> dict[str, list[Any]]:
    """ExecStart= of each service: its path, its words and more of each command, as in
    org.freedesktop.systemd1(5). Raises SystemdError.
    """
    found: dict[str, list[Any]] = {}
    for at in range(0, len(services), _AT_ONCE):
        some = services[at : at + _AT_ONCE]
        found |= bus.retry(lambda some=some: _commands(bus, some))  # type: ignore[misc]
    return found


def _commands(bus: Bus, services: list[str]) -> dict[str, list[Any]]:
    asked = (f"{SYSTEMD}.Service", "ExecStart")
    serials = [bus.send(names.object_path(one), PROPERTIES, "Get", "ss", asked) for one in services]
    found: dict[str, list[Any]] = {}
    failed: SystemdError | None = None
    for service, serial in zip(services, serials, strict=True):
        try:  # take every reply, so that a later call does not find a stale one
            (found[service],) = bus.reply(serial)
        except SystemdError as error:
            failed = error
    if failed is not None:
        raise failed
    return found
