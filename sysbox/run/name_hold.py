"""Who keeps an ended scope loaded, so that no new one can have its name.

systemd forgets a unit that has ended as soon as no unit that it has loaded names it, and starts a scope only
once while it remembers it (`once_only` in its source, which says "Refuse starting scope units more than
once"). The service of a container without a restart policy names its scope: as long as that is right it
goes away with it. It stays where an administrator restarts the service, or another unit names that.
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
    """Have systemd forget the scope of the last run. Raises Conflict that names the units that forbid it.

    A service of ours that names the scope does so no more from then on (see `names_no_scope`).
    """
    if has_stopper(container_id):
        # it was left behind where its service was masked: systemd runs no ExecStopPost= of such
        scope.request_stop(bus, names.stopper_unit(container_id))
        return
    if _rewrite(container_id, ""):
        scope.reload(bus)
        return
    unit = names.scope_unit(container_id)
    found = scope.properties(bus, unit, scope.UNIT, _NAMED_BY)
    own = {"shutdown.target", names.service_unit(container_id)}  # which the scope names
    others = sorted({one for units in found.values() for one in units} - own)
    if not others:
        return  # it is only just on its way out
    raise Conflict(
        f"{unit} has ended, but is named by {', '.join(others)}: as long as systemd remembers a scope,"
        " no other can have its name",
        hint=f"`systemctl stop {' '.join(others)}`; a unit may name a container's service instead",
    )


def has_service(container_id: str) -> bool:
    """Whether systemd knows a transient service of it."""
    return exists(_file(container_id))


def set_policy(bus: Bus, container_id: str, settings: str) -> None:
    """Have a transient service that runs go on without its scope's name, and with `settings` of a policy.

    systemd has no other way to change its Restart=.
    """
    _rewrite(container_id, settings)
    scope.reload(bus)


def _rewrite(container_id: str, settings: str) -> bool:
    """Whether that changes anything."""
    unit, path = names.scope_unit(container_id), _file(container_id)
    data = read_file(path)
    if data is None:
        return False

    from sysbox.units import syntax  # which only a service that is restarted by hand needs

    def change(one: Entry) -> str | None:
        is_policy = settings and one.key.startswith(_POLICY)
        return "" if is_policy or unit in one.value else None

    new = syntax.rewrite(syntax.decode(data), change) + settings
    changed = new.encode("utf-8", "surrogateescape")
    if changed != data:
        write_file(path, changed, 0o644)
    return changed != data


def forget_service(bus: Bus, unit: str) -> None:
    """Have systemd forget what it knows of a transient service that has ended and is named by another unit.

    Unlike a scope it may be started once more then, under the same name.
    """
    for path in (f"{_TRANSIENT}/{unit}.d", f"{_TRANSIENT}/{unit}"):
        remove_tree(path)
    scope.reload(bus)


def names_no_scope(container_id: str) -> bool:
    """Whether its transient service does not name its scope any more: something else has to stop the two
    in order then.
    """
    text = read_file(_file(container_id))
    return text is not None and names.scope_unit(container_id).encode() not in text


def has_stopper(container_id: str) -> bool:
    """Whether there is such a unit (see restart.start_stopper)."""
    return exists(f"{_TRANSIENT}/{names.stopper_unit(container_id)}")


def _file(container_id: str) -> str:
    return f"{_TRANSIENT}/{names.service_unit(container_id)}"
