"""Units that keep an ended scope loaded, so that no new scope can have its name.

systemd forgets an ended unit as soon as no loaded unit names it, and starts a scope only once while it
remembers it (`once_only` in its source, which says "Refuse starting scope units more than once"). The
service of a container without a restart policy names its scope, and systemd normally forgets both together.
Both stay if an administrator restarts the service, or if another unit names one of them.
"""

from __future__ import annotations

from sysbox import scope
from sysbox.base.errors import Conflict
from sysbox.base.files import read_file, remove_tree, write_file
from sysbox.host import exists
from sysbox.units import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.units.bus import Bus
    from sysbox.units.syntax import Entry

_TRANSIENT = "/run/systemd/transient"
_POLICY = ("Restart", "StartLimit")  # beginnings of the settings of serviceplan.policy_settings
_NAMED_BY = (
    *("Before", "RequiredBy", "RequisiteOf", "WantedBy", "BoundBy", "ConsistsOf", "UpheldBy"),
    *("ConflictedBy", "OnFailureOf", "OnSuccessOf"),
)


def free_scope_name(bus: Bus, container_id: str) -> None:
    """Have systemd forget the scope of the last run. Raises Conflict that names the units that prevent it.

    The name is removed from a transient service of the container (see `names_no_scope`).
    """
    if has_stopper(container_id):
        # left over: systemd does not run the ExecStopPost= of a masked service, which stops this unit
        scope.request_stop(bus, names.stopper_unit(container_id))
        return
    if _rewrite(container_id, ""):
        scope.reload(bus)
        return
    unit = names.scope_unit(container_id)
    found = scope.properties(bus, unit, scope.UNIT, _NAMED_BY)
    own = {"shutdown.target", names.service_unit(container_id)}  # units that the scope itself names
    others = sorted({one for units in found.values() for one in units} - own)
    if not others:
        return  # systemd is about to forget it
    raise Conflict(
        f"{unit} has ended, but is named by {', '.join(others)}: as long as systemd remembers a scope,"
        " no other can have its name",
        hint=f"`systemctl stop {' '.join(others)}`; a unit may name a container's service instead",
    )


def has_service(container_id: str) -> bool:
    """Whether systemd has a transient service of the container."""
    return exists(_file(container_id))


def set_policy(bus: Bus, container_id: str, settings: str) -> None:
    """Give a running transient service the `settings` of a policy, and remove its scope's name from it.

    systemd has no other way to change the Restart= of a running service.
    """
    _rewrite(container_id, settings)
    scope.reload(bus)


def _rewrite(container_id: str, settings: str) -> bool:
    """Remove the scope's name from the transient service's file, and add `settings`; whether it changed."""
    unit, path = names.scope_unit(container_id), _file(container_id)
    data = read_file(path)
    if data is None:
        return False

    from sysbox.units import syntax  # only a service that is restarted by hand needs it

    def change(one: Entry) -> str | None:
        is_policy = settings and one.key.startswith(_POLICY)
        return "" if is_policy or unit in one.value else None

    new = syntax.rewrite(syntax.decode(data), change) + settings
    changed = new.encode("utf-8", "surrogateescape")
    if changed != data:
        write_file(path, changed, 0o644)
    return changed != data


def forget_service(bus: Bus, unit: str) -> None:
    """Have systemd forget the settings of a transient service that has ended and that another unit names.

    Unlike a scope, it can then be started again under the same name.
    """
    for path in (f"{_TRANSIENT}/{unit}.d", f"{_TRANSIENT}/{unit}"):
        remove_tree(path)
    scope.reload(bus)


def names_no_scope(container_id: str) -> bool:
    """Whether the transient service no longer names its scope, so that a third unit has to stop the two in
    order.
    """
    text = read_file(_file(container_id))
    return text is not None and names.scope_unit(container_id).encode() not in text


def has_stopper(container_id: str) -> bool:
    """Whether the unit exists that stops the two in order (see restart.start_stopper)."""
    return exists(f"{_TRANSIENT}/{names.stopper_unit(container_id)}")


def _file(container_id: str) -> str:
    return f"{_TRANSIENT}/{names.service_unit(container_id)}"
