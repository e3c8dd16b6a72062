"""The resource settings of a declared container's service, which hold for its scope: read, followed, applied.

Those of the start are in the container's record. `systemctl set-property web.service` writes a drop-in below
/etc/systemd/system.control or /run/systemd/system.control: the monitor watches both, and what has changed is
set on the scope.
"""

from __future__ import annotations

import posix

from sysbox import scope
from sysbox.base import codec
from sysbox.base.errors import SpecError
from sysbox.base.files import is_directory, read_file, write_file
from sysbox.host import exists, probe
from sysbox.units import names, syntax
from sysbox.units.bus import MANAGER, MANAGER_PATH, PROPERTIES, Bus
from sysbox.units.cgroup.blockdev import disks_of
from sysbox.units.limits import allowlist, dropins, table
from sysbox.units.limits.plan import plan_limits
from sysbox.units.limits.properties import NETWORKS
from sysbox.units.scopeplan import asked_properties

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sysbox.container.store import Record
    from sysbox.host import HostFacts
    from sysbox.units.limits.properties import Property

_CONTROL = ("/etc/systemd/system.control", "/run/systemd/system.control")


def slice_of(bus: Bus, unit: str) -> str:
    """The slice of a service. Raises SystemdError."""
    return str(scope.properties(bus, unit, scope.INTERFACES[".service"], ("Slice",))["Slice"])


def read(bus: Bus, unit: str) -> tuple[str, ...]:
    """The resource settings of a service, in the order in which systemd reads them: "KEY=VALUE" each.

    Those that this host cannot apply to a scope are left out. Raises SystemdError, FormatError.
    """
    found = scope.properties(bus, unit, scope.UNIT, ("FragmentPath", "DropInPaths"))
    facts, settings = probe(), []
    for text in _assigned((found["FragmentPath"], *found["DropInPaths"])):
        try:
            allowlist.parse_property(text, facts)
        except SpecError:
            continue  # ignoring: systemd applies it to the service, as far as this host can
        settings.append(text)
    return tuple(settings)


def _assigned(paths: Iterable[str]) -> list[str]:
    found: list[str] = []
    for path in paths:
        # an administrator's file may be a link
        text = read_file(path, is_ours=False) if path else None
        for key, value in dropins.assignments(syntax.decode(text or b""), ("Service",)):
            if key not in allowlist.KEYS or key in allowlist.OF_THE_SERVICE:
                continue
            if value:
                found.append(f"{key}={value}")
            else:
                # an empty assignment resets the key
                found = [setting for setting in found if not setting.startswith(f"{key}=")]
    return found


def follow(record: Record) -> tuple[str, ...]:
    """The directories in which changes of its service will appear, made so that they can be watched."""
    found = []
    for above in _CONTROL:
        path = f"{above}/{record.spec.unit}.d"
        try:
            for one in (above, path):
                if not is_directory(one):
                    posix.mkdir(one, 0o755)
        except OSError:
            continue  # ignoring: a change there is heeded at the next start
        found.append(path)
    return tuple(found)


def unfollow(record: Record) -> None:
    """Remove what `follow` made, where nothing was put into it."""
    for above in _CONTROL:
        try:
            posix.rmdir(f"{above}/{record.spec.unit}.d")
        except OSError:
            pass  # ignoring: it has drop-ins, or it is gone


def propagate(record: Record) -> None:
    """Set on the scope what has changed on its service since. The caller holds the lock.

    Raises SysboxError.
    """
    follow(
        record
    )  # `systemctl revert` has removed the directories: the next change appears there again
    path, before = _known(record)
    with Bus.connect() as bus:
        after = read(bus, record.spec.unit)
        if list(before) == list(after):
            return
        changes = _changes(bus, _asked(record, before), _asked(record, after))
        if changes:
            scope.set_properties(bus, names.scope_unit(record.id), tuple(changes))
    write_file(path, codec.dumps(list(after)))


def _known(record: Record) -> tuple[str, tuple[str, ...]]:
    """The file of the settings that the scope has of its service, and those. Raises FormatError."""
    path = f"{record.run_directory}/service"
    data = read_file(path)
    return path, tuple(codec.loads(data, path)) if data else record.spec.unit_settings


def origins(record: Record, tuned: dict[str, str]) -> dict[str, str]:
    """Key -> where its service has the limit, for those that a container has of its service.

    That is a drop-in of set-property, else the service itself. What `tuned` has in its place is not the
    service's, nor is what `update` has asked for since. Raises SysboxError.
    """
    unit = record.spec.unit
    if not unit:
        return {}
    _, settings = _known(record)
    wanted, facts = _asked(record, settings), probe()
    asked = _planned(record, record.spec.properties)
    found = {}
    for key in dict.fromkeys(text.partition("=")[0] for text in settings):
        same = dropins.spellings(key)
        there = [one for one in same if one in tuned]
        if (
            all(_is_wanted(one, tuned[one], wanted, facts) for one in there)
            if there
            else _is_same(key, asked, wanted, facts)
        ):
            paths = [f"{above}/{unit}.d/50-{key}.conf" for above in reversed(_CONTROL)]
            found[key] = next((one for one in paths if exists(one)), unit)
    return found


def _is_same(
    key: str, one: dict[str, Property], other: dict[str, Property], facts: HostFacts
) -> bool:
    """Whether two sets of properties have the same value for a key."""
    name = dropins.base_name(dropins.to_property(key, "", facts).name)
    first, second = one.get(name), other.get(name)
    return dropins.same_value(first and first.value, second and second.value)


def _is_wanted(key: str, text: str, wanted: dict[str, Property], facts: HostFacts) -> bool:
    """Whether an assignment sets what is wanted anyway."""
    try:
        one = dropins.to_property(key, text, facts)
    except SpecError:
        return False
    asked = wanted.get(dropins.base_name(one.name))
    return dropins.same_value(one.value, asked.value if asked else None)


def _asked(record: Record, settings: Iterable[str]) -> dict[str, Property]:
    """What the scope is to have: the settings of the service, and what its declaration asks for besides."""
    # an `update` may have taken some of the service's out of the specification
    own = [text for text in record.spec.properties if text not in record.spec.unit_settings]
    return _planned(record, (*settings, *own))


def _planned(record: Record, texts: Iterable[str]) -> dict[str, Property]:
    """The properties of its flags, and over them those of `texts`, "KEY=VALUE" each."""
    spec, facts = record.spec, probe()
    disks = disks_of(spec, facts)
    properties, _ = plan_limits(spec.limits, facts, disks)
    for text in texts:
        try:
            properties += asked_properties((), (text,), facts, disks)
        except SpecError:
            continue  # ignoring: it names a device that is not there; the others act
    return dropins.by_name(asked_properties(properties, (), facts, disks))


def _changes(bus: Bus, old: dict[str, Property], new: dict[str, Property]) -> list[Property]:
    """The properties to set: those that have another value now, and the defaults of those that are gone."""
    facts, found = probe(), []
    for name, one in old.items():
        if name in new:
            continue
        if name in dropins.HOST_DEFAULTS:
            found.append(one.replace(name=name, value=_default(bus, name)))
        else:
            found.append(table.unset(name, one.signature, facts))
    for name, one in new.items():
        if one == old.get(name):
            continue
        if one.signature in ("a(st)", NETWORKS):
            # what is set of a list is added to it
            found.append(table.unset(name, one.signature, facts))
        found.append(one)
    return found


def _default(bus: Bus, name: str) -> object:
    """systemd's default of a property for a scope that does not set it."""
    args = (MANAGER, dropins.HOST_DEFAULTS[name])
    return bus.call(MANAGER_PATH, PROPERTIES, "Get", "ss", args)[0]
