"""Two names for one limit: which of them was used last, and what systemd is told so that it acts. Pure.

systemd heeds the new names (CPUWeight, MemoryMax, IO*) as soon as one of a family is set, whatever is said
by an old one (CPUShares, MemoryLimit, BlockIO*) later (cgroup_context_apply, up to 257). A container's
limits are therefore kept in one language: on cgroup v2 the new one, where an old name that is used last is
said again by its new one; on v1 the old one, where a new name is said again by its old one and taken back.
When each was said is the time of its drop-in; of two in one call the new name counts, as for systemd.
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

# keys that v1 has no use for, and beside which systemd heeds no MemoryLimit, or no BlockIO*
_MASKING = (
    "MemoryHigh", "MemoryLow", "MemoryMin", "MemorySwapMax",
    "IOReadIOPSMax", "IOWriteIOPSMax", "IODeviceLatencyTargetSec",
)  # fmt: skip


class Assigned(Frozen):
    """What the drop-ins say of one key."""

    text: str  # as in `tuned` (dropins.py)
    changed: float  # seconds since the epoch


def last_assigned(drop_ins: Iterable[tuple[float, str]]) -> dict[str, Assigned]:
    """By key, from (time of change, text) of each drop-in, oldest first."""
    found: dict[str, Assigned] = {}
    for changed, text in drop_ins:
        for key, value in assignments(text):
            before = found[key].text if key in found else ""
            both = f"{before}\n{value}" if value and before else value
            found[key] = Assigned(text=both, changed=changed)
    return found


def translate(found: dict[str, Assigned], facts: HostFacts) -> tuple[Property, ...]:
    """What systemd is to be told in one call, so that what was said last is in force; () for nothing."""
    unified = facts.cgroup_mode == "v2"
    told: list[Property] = []
    for old, new in PAIRS:
        told += (_to_new if unified else _to_old)(old, new, found, facts)
    if not unified:
        told += [
            _unset(key, facts)
            for key in _MASKING
            if key in found and not is_neutral(key, found[key].text)
        ]
    # what is taken back comes first: its drop-in is then never the newer one
    return tuple(sorted(told, key=lambda one: not _is_unset(one, facts)))


def _to_new(old: str, new: str, found: dict[str, Assigned], facts: HostFacts) -> list[Property]:
    """On v2: what has to be told where the old name was used."""
    one, other = found.get(old), found.get(new)
    if one is None:
        return []
    nothing = is_neutral(old, one.text)
    reset = other is not None and is_neutral(new, other.text)
    if other is not None and (other.changed, not reset) > (one.changed, False):
        # a new name that says nothing leaves systemd with the old one
        return [_unset(old, facts)] if reset and not nothing else []
    if nothing:
        return [] if reset or old.endswith("Accounting") else [_unset(new, facts)]
    try:
        told = to_property(old, one.text, facts)
    except SpecError:
        return []  # ignoring: systemd has taken what we do not know, and goes by it as far as it can
    # a list that stayed would come again with the next device that is added to it
    return [_unset(old, facts), told] if told.signature == "a(st)" else [told]


def _to_old(old: str, new: str, found: dict[str, Assigned], facts: HostFacts) -> list[Property]:
    """On v1: what has to be told where the new name was used."""
    one, other = found.get(new), found.get(old)
    if one is None:
        return []
    has_old = bool(KEYS[new][1])  # weights of single disks have no property there
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
        # the old one also where it was the last word, which the one that is taken back would be else
        told = to_property(key, text, facts)
        return [_unset(new, facts), told if told.value is not None else _unset(old, facts)]
    except SpecError:
        return []  # ignoring: CPUWeight=idle, of which systemd makes the least of shares


def _unset(key: str, facts: HostFacts) -> Property:
    name = KEYS[key][2] if key in _MASKING else key
    per_device = "Device" in key or "Bandwidth" in key or "IOPS" in key
    kind = "b" if key.endswith("Accounting") else "a(st)" if per_device else "t"
    return unset(name, kind, facts)


def _is_unset(one: Property, facts: HostFacts) -> bool:
    return bool(one.value == unset(one.name, one.signature, facts).value)
