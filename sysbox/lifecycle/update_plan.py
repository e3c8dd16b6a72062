"""What `update` comes to: the specification as it is to be, and what the running scope must be told.

Pure; `disks` are those that the limits before and after name, `paths` says which.
"""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.base.frozen import Frozen
from sysbox.netns import topology
from sysbox.spec import Limits, Ulimit
from sysbox.units.limits import disks as disks_
from sysbox.units.limits import dropins, table
from sysbox.units.limits.plan import plan_limits
from sysbox.units.limits.properties import INFINITY, NETWORKS, CgroupWrite, Property
from sysbox.units.scopeplan import asked_properties, beside_properties, tune

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.host import HostFacts
    from sysbox.spec import ContainerSpec
    from sysbox.units.limits.disks import Disks
    from sysbox.units.limits.dropins import Tuning

# limits that are set together: one decides about the others
_TOGETHER = {
    "memory": ("memory_swap",),
    "cpu_period": ("cpu_quota",),
    "cpu_quota": ("cpu_period",),
}
# a scope takes these only when it is made (org.freedesktop.systemd1(5))
_AT_START = ("TimeoutStopUSec", "RuntimeMaxUSec", "OOMPolicy", "CollectMode")
_EXCLUSIVE = {
    "nano_cpus": ("cpu_quota", "cpu_period"),
    "cpu_quota": ("nano_cpus",),
    "cpu_period": ("nano_cpus",),
}


class Change(Frozen):
    """What one `update` asks for; what it does not name stays."""

    limits: dict[str, Any] = {}  # noqa: RUF012 (field of Limits -> value; None, or () of a list, clears it)
    # field of Limits -> (device, value); None removes this device's entry
    devices: dict[str, tuple[tuple[str, Any], ...]] = {}  # noqa: RUF012
    properties: tuple[tuple[str, str | None], ...] = ()  # KEY, VALUE; None removes it
    ulimits: tuple[Ulimit, ...] = ()
    no_ulimits: tuple[str, ...] = ()  # names that are not to be limited from the next start on
    # up, down -> bytes per second; 0 removes the limit
    bandwidth: dict[str, int] = {}  # noqa: RUF012
    forget: bool = False  # drop what others have set

    @property
    def fields(self) -> tuple[str, ...]:
        """The limits that it names."""
        return (*self.limits, *self.devices)


class Delta(Frozen):
    """What is set on a running scope."""

    properties: tuple[Property, ...]
    writes: tuple[CgroupWrite, ...]


def paths(spec: ContainerSpec, change: Change, facts: HostFacts) -> tuple[str, ...]:
    """The paths of devices in what a container has, and in what is asked now."""
    texts = (f"{key}={value}" for key, value in change.properties if value is not None)
    limits = Limits().replace(**change.limits)
    entries = [
        path
        for field, entries in change.devices.items()
        if field not in ("device_rules", "ip_allow", "ip_deny")
        for path, _ in entries
    ]
    before = disks_.paths(spec.limits, spec.properties, facts)
    return tuple(dict.fromkeys((*before, *disks_.paths(limits, texts, facts), *entries)))


def change_spec(
    spec: ContainerSpec, change: Change, facts: HostFacts, disks: Disks
) -> ContainerSpec:
    """The specification as it is to be. Raises SpecError for what contradicts it."""
    limits = spec.limits.replace(**change.limits)
    for field, entries in change.devices.items():
        had = getattr(limits, field)
        if field in ("ip_allow", "ip_deny"):
            there = _merged(tuple((text, text) for text in had), entries, {})
            limits = limits.replace(**{field: tuple(text for text, _ in there)})
            continue
        if field == "device_rules":
            had = tuple((rule.rpartition(" ")[0], rule) for rule in had)
            rules = _merged(had, entries, {})
            limits = limits.replace(device_rules=tuple(rule for _, rule in rules))
        else:
            limits = limits.replace(**{field: _merged(had, entries, disks)})
    _check(spec.limits, limits, change)
    bandwidth = spec.bandwidth.replace(**change.bandwidth)
    if change.bandwidth:
        topology.check_bandwidth(spec.replace(bandwidth=bandwidth))
    ulimits = {one.name: one for one in spec.ulimits if one.name not in change.no_ulimits}
    ulimits |= {one.name: one for one in change.ulimits}
    return spec.replace(
        limits=limits,
        ulimits=tuple(ulimits.values()),
        properties=_properties(spec.properties, change, facts),
        bandwidth=bandwidth,
    )


def _check(before: Limits, after: Limits, change: Change) -> None:
    """Raises SpecError for contradictions that plan_limits would find too, but with a hint what to do."""
    for field in change.fields:
        for other in _EXCLUSIVE.get(field, ()):
            if getattr(after, field) and getattr(before, other) and other not in change.limits:
                raise SpecError(
                    f"{_flag(field)}: the container has {_flag(other)}, which sets the same limit",
                    hint=f"remove that at the same time: {_flag(other)} unset",
                )
    if "memory" not in change.limits or "memory_swap" in change.limits:
        return
    memory, swap = after.memory or 0, before.memory_swap or 0
    if 0 < swap < memory:
        raise SpecError(
            f"--memory {memory}: above --memory-swap, which is {swap}: memory and swap together",
            hint="raise both: --memory-swap SIZE, or --memory-swap unset for twice the memory",
        )
    if swap > 0 and not memory:
        raise SpecError(
            "--memory unset: the container has --memory-swap, which counts on top of it",
            hint="remove both: --memory unset --memory-swap unset",
        )


def _flag(field: str) -> str:
    return table.by_field(field).flag


def _merged(
    had: tuple[tuple[str, Any], ...], entries: tuple[tuple[str, Any], ...], disks: Disks
) -> tuple[tuple[str, Any], ...]:
    found = {_disk(path, disks): (path, value) for path, value in had}
    for path, value in entries:
        found.pop(_disk(path, disks), None)
        if value is not None:
            found[_disk(path, disks)] = (path, value)
    return tuple(found.values())


def _disk(path: str, disks: Disks) -> str:
    """One name for all that lead to one disk."""
    return (disks[path].node if path in disks else "") or path


def _properties(had: tuple[str, ...], change: Change, facts: HostFacts) -> tuple[str, ...]:
    """The `--property` texts: of a limit's flag and its property, the one that was given last counts."""
    said = {table.by_field(field).setting(facts).property for field in change.fields}
    said |= {key for key, _ in change.properties}
    dropped = {other for key in said if key for other in dropins.spellings(key)}
    kept = [text for text in had if text.partition("=")[0].strip() not in dropped]
    return (*kept, *(f"{key}={value}" for key, value in change.properties if value is not None))


def touched(change: Change, facts: HostFacts) -> frozenset[str]:
    """The properties (D-Bus names) and the files that it names, whether it changes their values or not."""
    found = set()
    for field in change.fields:
        for one in (field, *_TOGETHER.get(field, ())):
            setting = table.by_field(one).setting(facts)
            found.add(setting.file if setting.written else setting.bus_name)
    for key, _ in change.properties:
        found.add(dropins.to_property(key, "", facts).name)
    return frozenset(found - {""})


def wanted(
    spec: ContainerSpec, tuned: dict[str, str], facts: HostFacts, disks: Disks
) -> tuple[dict[str, Property], tuple[CgroupWrite, ...]]:
    """The properties by name, and the writes, that a start would give it. Raises SpecError."""
    limits, writes = plan_limits(spec.limits, facts, disks)
    properties = asked_properties(limits, spec.properties, facts, disks)
    writes = beside_properties(writes, spec.properties, properties)
    if tuned:
        properties, writes = tune(properties, writes, tuned, facts)
    return dropins.by_name(properties), writes


def delta(
    before: tuple[ContainerSpec, dict[str, str]],
    after: tuple[ContainerSpec, dict[str, str]],
    about: frozenset[str],
    tuning: Tuning,
    disks: Disks,
) -> Delta:
    """From one (specification, tuned) to another, on the scope that `tuning` was read of.

    `about` are the properties to be set even if they are equal. Raises SpecError.
    """
    old, old_writes = wanted(*before, tuning.facts, disks)
    new, new_writes = wanted(*after, tuning.facts, disks)
    limit = old.get("MemoryLimit")
    memory = limit.value if limit is not None and limit.signature == "t" else INFINITY
    writes = table.change_writes(old_writes, new_writes, memory)
    there = {one.file for one in writes}
    writes += tuple(one for one in new_writes if one.file in about and one.file not in there)
    properties = told(old, new, about, tuning)
    live = tuple(one for one in properties if one.name not in _AT_START)
    return Delta(properties=live, writes=writes)


def told(
    old: dict[str, Property],
    new: dict[str, Property],
    about: frozenset[str],
    tuning: Tuning,
) -> list[Property]:
    """From one set of properties to another, the rest as in `delta`."""
    foreign = _foreign(tuning)
    # ahead of what takes its place: the name whose drop-in is the newer one is taken for the last word
    properties = [alias for _, alias in foreign]
    properties += [_unset(one, tuning) for name, one in old.items() if name not in new]
    again = about | {name for name, _ in foreign}
    for name, one in new.items():
        if one != old.get(name) or name in again:
            # what is set of a list is added to it
            properties += [table.unset(name, one.signature, tuning.facts)] * (
                one.signature in ("a(st)", NETWORKS)
            )
            properties.append(one)
    return properties


def at_next_start(change: Change, facts: HostFacts) -> tuple[str, ...]:
    """The flags of a change that a scope takes only when it is made."""
    flags = [
        table.by_field(field).flag for field in change.fields if not table.by_field(field).live
    ]
    flags += [
        f"--property {key}"
        for key, _ in change.properties
        if dropins.to_property(key, "", facts).name in _AT_START
    ]
    return tuple(flags)


def _unset(one: Property, tuning: Tuning) -> Property:
    name = dropins.base_name(one.name)
    if name in tuning.defaults:
        return Property(name=name, signature="t", value=tuning.defaults[name])
    return table.unset(name, "t" if one.signature == "u" else one.signature, tuning.facts)


def _foreign(tuning: Tuning) -> list[tuple[str, Property]]:
    """(property of this host, its other spelling unset) for what others set by the other spelling.

    While CPUWeight is set systemd ignores CPUShares, and while any IO* is set, BlockIO*: `update` has to set
    all of them by one of the two spellings.
    """
    facts = tuning.facts
    pairs = []
    for key, text in tuning.found.items():
        if dropins.is_neutral(key, text) or not dropins.is_foreign(key, facts):
            continue
        try:
            one = dropins.to_property(key, text, facts)
        except SpecError:
            continue
        pairs.append((dropins.base_name(one.name), table.unset(key, one.signature, facts)))
    return pairs
