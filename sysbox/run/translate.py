"""Of a limit that was set by one of its two names, set the name that systemd acts on.

units/limits/spellings.py decides what to set. On cgroup v1 systemd needs help besides: the kernel would
refuse a memory limit above that of memory and swap together, and a limit of a disk by its new name masks
the old ones until systemd has read the unit again, even if it was reset.
"""

from __future__ import annotations

import time

from sysbox import scope
from sysbox.base.errors import KernelError, SpecError, SysboxError
from sysbox.container import store
from sysbox.host import probe, read_text
from sysbox.lifecycle import update_plan
from sysbox.linux import cgroup
from sysbox.run import tuned
from sysbox.units import names
from sysbox.units.bus import PROPERTIES, Bus
from sysbox.units.cgroup import blockdev
from sysbox.units.limits import bandwidths, dropins, spellings
from sysbox.units.limits.properties import INFINITY, Property

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.container.store import Record, Runtime
    from sysbox.host import HostFacts

_MEMSW = "memory.memsw.limit_in_bytes"
_NONE = 0x7FFFFFFFFFFFF000  # the content of that file without a limit
_INTERFACE = scope.INTERFACES[".scope"]
_NAMES = tuple(key for pair in dropins.PAIRS for key in pair)
_TRIES = 5
_QUIET, _MOST = 0.05, 20  # seconds, and how many of them at most
_STUCK = (
    "IOReadBandwidthMax",
    "IOWriteBandwidthMax",
    "IOReadIOPSMax",
    "IOWriteIOPSMax",
)


def is_due(record: Record, facts: HostFacts) -> bool:
    """Whether a limit was set by the name that systemd does not act on, as far as the drop-ins say now."""
    return bool(spellings.translate(_assigned(record), facts))


def translate(record: Record, facts: HostFacts | None = None) -> bool:
    """Make the name of a limit that was set last take effect; whether anything had to be done.

    The scope exists, or has just ended. The caller holds the lock. Raises SysboxError.
    """
    facts = facts or probe()
    on_v1 = facts.cgroup_mode == "v1"
    unit = names.scope_unit(record.id)
    if is_due(record, facts):
        _await_quiet(record)
    elif not on_v1:
        return False
    made: tuple[Property, ...] = ()
    with Bus.connect() as bus:
        for _ in range(_TRIES):
            runtime = store.runtime(record.id)
            before = _live(bus, unit)
            found = _assigned(record)
            if runtime is None or not runtime.alive():
                return False  # what was read is incomplete: systemd is removing it
            changes = spellings.translate(found, facts)
            swap = _Swap(record, runtime, found, facts) if on_v1 else None
            if swap and swap.adjust(up=True):
                changes += _memory(found, changes, facts)
            lost = _set_properties(bus, unit, changes, before) if changes else ()
            made += changes
            if swap:
                swap.adjust(up=False)
                bandwidths.protect(unit, (*changes, *_bandwidths(found)))
            if not lost:
                break
            # these were set by others while we set ours: set them again, so that they count
            scope.set_properties(bus, unit, spellings.unset_first(lost, facts))
        if on_v1 and any(one.name in _STUCK for one in made):
            scope.reload(bus)
    return bool(made)


def _live(bus: Bus, unit: str) -> dict[str, Any]:
    return scope.properties(bus, unit, _INTERFACE, _NAMES)


def _set_properties(
    bus: Bus, unit: str, changes: tuple[Property, ...], before: dict[str, Any]
) -> tuple[Property, ...]:
    """Set `changes` on the unit; returns what others have set since `before` and this has overwritten.

    systemd handles the messages of a connection in their order, and those of others only in between.
    """
    path = names.object_path(unit)
    names_ = tuple(before)
    serials = [bus.send(path, PROPERTIES, "Get", "ss", (_INTERFACE, name)) for name in names_]
    scope.set_properties(bus, unit, changes)
    now = {name: bus.reply(serial)[0] for name, serial in zip(names_, serials, strict=True)}
    touched = {dropins.base_name(one.name) for one in changes}
    touched |= {dropins.other_spelling(name) for name in touched}
    scope.active_state(bus, unit)  # its answer comes after the change was made
    lost = []
    for name in names_:
        if name in touched and not dropins.same_value(before[name], now[name]):
            signature = "a(st)" if isinstance(now[name], list) else "t"
            kind = "b" if isinstance(now[name], bool) else signature
            empty = [Property(name=name, signature=kind, value=[])] if kind == "a(st)" else []
            lost += [*empty, Property(name=name, signature=kind, value=now[name])]
    return tuple(lost)


def _await_quiet(record: Record) -> None:
    """Wait until nothing has been set for a moment: a script may set several properties in a row."""
    for _ in range(_MOST):
        newest = max((one.changed for one in tuned.drop_ins(record.id)), default=0.0)
        left = newest + _QUIET - time.time()
        if not 0 < left <= _QUIET:
            return
        time.sleep(left)


def _assigned(record: Record) -> dict[str, spellings.Assigned]:
    return spellings.last_assigned((one.changed, one.text) for one in tuned.drop_ins(record.id))


def _bandwidths(found: dict[str, spellings.Assigned]) -> tuple[Property, ...]:
    """The bandwidths that were set, without values: a reload would lose one of two (see bandwidths.py)."""
    keys = (bandwidths.READ, bandwidths.WRITE)
    return tuple(Property(name=key, signature="a(st)", value=[]) for key in keys if key in found)


class _Swap:
    """The v1 limit of memory and swap together; it follows the memory limit, as at a start."""

    def __init__(
        self,
        record: Record,
        runtime: Runtime,
        found: dict[str, spellings.Assigned],
        facts: HostFacts,
    ) -> None:
        self._directory = ""
        if not {"MemoryLimit", "MemoryMax"} & set(found):
            return
        try:
            self._directory = cgroup.directory(facts, "memory", runtime.cgroup)
            over, disks = tuned.collect(record, facts)[0], blockdev.disks_of(record.spec, facts)
            _, writes = update_plan.wanted(record.spec, over, facts, disks)
        except SysboxError:
            self._directory = ""
            return  # ignoring: the next start reports what is wrong
        values = [int(one.value) for one in writes if one.file == _MEMSW]
        self._wanted = values[0] if values else -1

    def adjust(self, *, up: bool) -> bool:
        """Write the limit if it has to be raised (`up`) or lowered (not `up`); whether it was written."""
        text = read_text(f"{self._directory}/{_MEMSW}").strip() if self._directory else ""
        if not text.isdigit():
            return False
        want = _NONE if self._wanted < 0 else self._wanted
        have = min(int(text), _NONE)
        if want == have or (want > have) is not up:
            return False
        try:
            cgroup.write(self._directory, _MEMSW, str(self._wanted))
        except KernelError:
            return False  # ignoring: the container has just ended, or has more in use
        return True


def _memory(
    found: dict[str, spellings.Assigned], changes: tuple[Property, ...], facts: HostFacts
) -> tuple[Property, ...]:
    """MemoryLimit, to be set again since the kernel has refused it; () if it is set anyway."""
    if "MemoryLimit" not in found or any(
        dropins.base_name(one.name) == "MemoryLimit" for one in changes
    ):
        return ()
    try:
        one = dropins.to_property("MemoryLimit", found["MemoryLimit"].text, facts)
    except SpecError:
        return ()
    return (one.replace(signature="t", value=INFINITY) if one.value is None else one,)
