"""Two names for one limit, old and new: find the one that was set last, and let it take effect. Pure.

Once a new name of a family is set (CPUWeight, MemoryMax, IO*), systemd ignores the family's old names
(CPUShares, MemoryLimit, BlockIO*), even those set later (cgroup_context_apply, up to 257). A container's
limits are therefore kept under one kind of name. On cgroup v2 that is the new one: a value that was set
last under an old name is set again under the new one. On v1 it is the old one: a value that was set under
a new name is set again under the old one, and the new name is unset. The time of its drop-in says when a
name was set; of two names set in one call the new one counts, as for systemd.
"""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.base.frozen import Frozen
from sysbox.units.limits.allowlist import KEYS
from sysbox.units.limits.dropins import PAIRS, assignments, is_neutral, to_property
from sysbox.units.limits.table import unset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sysbox.host import HostFacts
    from sysbox.units.limits.properties import Property

# keys without effect on v1; while one is set, systemd ignores MemoryLimit, or every BlockIO*
_MASKING = (
    "MemoryHigh", "MemoryLow", "MemoryMin", "MemorySwapMax",
    "IOReadIOPSMax", "IOWriteIOPSMax", "IODeviceLatencyTargetSec",
)  # fmt: skip


class Assigned(Frozen):
    """The value that the drop-ins assign to one key."""

    text: str  # as in `tuned` (dropins.py)
    changed: float  # seconds since the epoch


def last_assigned(drop_ins: Iterable[tuple[float, str]]) -> dict[str, Assigned]:
    """Key -> its last assignment; each drop-in is given as (time of change, text), oldest first."""
    found: dict[str, Assigned] = {}
    for changed, text in drop_ins:
        for key, value in assignments(text):
            before = found[key].text if key in found else ""
            both = f"{before}\n{value}" if value and before else value
            found[key] = Assigned(text=both, changed=changed)
    return found


def translate(found: dict[str, Assigned], facts: HostFacts) -> tuple[Property, ...]:
    """The properties to set, in one call, so that the names that were set last take effect; () for none."""
    unified = facts.cgroup_mode == "v2"
    wanted: list[Property] = []
    for old, new in PAIRS:
        wanted += (_to_new if unified else _to_old)(old, new, found, facts)
    if not unified:
        wanted += [
            _unset(key, facts)
            for key in _MASKING
            if key in found and not is_neutral(key, found[key].text)
        ]
    return unset_first(wanted, facts)


def unset_first(properties: Iterable[Property], facts: HostFacts) -> tuple[Property, ...]:
    """Unset properties before the others: their drop-ins are then never newer than those of the others."""
    return tuple(sorted(properties, key=lambda one: not _is_unset(one, facts)))


def _to_new(old: str, new: str, found: dict[str, Assigned], facts: HostFacts) -> list[Property]:
    """On v2: the properties to set if the old name was used."""
    one, other = found.get(old), found.get(new)
    if one is None:
        return []
    nothing = is_neutral(old, one.text)
    reset = other is not None and is_neutral(new, other.text)
    if other is not None and (other.changed, not reset) > (one.changed, False):
        # a new name that is reset lets systemd apply the old one again: unset that too
        return [_unset(old, facts)] if reset and not nothing else []
    if nothing:
        return [] if reset or old.endswith("Accounting") else [_unset(new, facts)]
    try:
        wanted = to_property(old, one.text, facts)
    except SpecError:
        return []  # ignoring: systemd accepted a value unknown to sysbox, and applies it as far as it can
    # unset the old list: else the next device that is added to it brings its older entries back
    return [_unset(old, facts), wanted] if wanted.signature == "a(st)" else [wanted]


def _to_old(old: str, new: str, found: dict[str, Assigned], facts: HostFacts) -> list[Property]:
    """On v1: the properties to set if the new name was used."""
    one, other = found.get(new), found.get(old)
    if one is None:
        return []
    has_old = bool(KEYS[new][1])  # v1 has no property for the weight of a single disk
    is_older = other is not None and other.changed > one.changed
    if is_neutral(new, one.text):
        is_known = other is not None and (
            is_neutral(old, other.text) or other.changed == one.changed
        )
        if is_older or is_known or not has_old or new.endswith("Accounting"):
            return []
        return [_unset(old, facts)]
    if not has_old:
        return [_unset(new, facts)]
    key, text = (old, other.text) if is_older and other is not None else (new, one.text)
    try:
        # set the old name even if it was set last: else unsetting the new one would be the newer change
        wanted = to_property(key, text, facts)
        return [_unset(new, facts), wanted if wanted.value is not None else _unset(old, facts)]
    except SpecError:
        return []  # ignoring: CPUWeight=idle, which systemd converts to the fewest shares


def _unset(key: str, facts: HostFacts) -> Property:
    name = KEYS[key][2] if key in _MASKING else key
    per_device = "Device" in key or "Bandwidth" in key or "IOPS" in key
    kind = "b" if key.endswith("Accounting") else "a(st)" if per_device else "t"
    return unset(name, kind, facts)


def _is_unset(one: Property, facts: HostFacts) -> bool:
    return bool(one.value == unset(one.name, one.signature, facts).value)
