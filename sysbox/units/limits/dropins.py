"""Read the drop-ins of `systemctl set-property`, and tell them apart from what `run` and `update` set. Pure.

For a transient unit systemd writes each changed property to /run/systemd/transient/UNIT.d/50-KEY.conf,
with `--runtime` or without, and removes it with the unit. A container's record keeps them as `tuned`:
key -> value as in the drop-in, the values of a list one per line, "" for "as if nobody had set it".
"""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.base.frozen import Frozen
from sysbox.units import syntax
from sysbox.units.limits.allowlist import KEYS, convert, parse_property
from sysbox.units.limits.properties import INFINITY, NETWORKS, Property, everything

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from sysbox.host import HostFacts

# properties that systemd limits by default -> the manager's property with that default
HOST_DEFAULTS = {"TasksMax": "DefaultTasksMax"}
_SECTIONS = ("Scope", "Slice")
_OFF = ("no", "false", "off", "0")
# D-Bus name -> the other cgroup version's
_OTHER = {
    name: other
    for _, old, new in KEYS.values()
    for name, other in ((old, new), (new, old))
    if old and new and old != new
}
_MEMORY = ("MemoryLimit", "MemoryMax")
# (key of cgroup v1, the same in v2)
PAIRS = (
    *((key, new) for key, (_, old, new) in KEYS.items() if key == old != new and new),
    ("BlockIODeviceWeight", "IODeviceWeight"),
)
_OLD, _NEW = frozenset(old for old, _ in PAIRS), frozenset(new for _, new in PAIRS)


class Tuning(Frozen):
    """What others and `update` have set on a running scope since its start, read once."""

    facts: HostFacts
    found: dict[str, str] = {}  # noqa: RUF012 (key -> value of all drop-ins, as in `tuned`)
    defaults: dict[str, Any] = {}  # noqa: RUF012 (property -> what the host gives where nobody asks)


def assignments(text: str, sections: tuple[str, ...] = _SECTIONS) -> list[tuple[str, str]]:
    """The (key, value) pairs of these sections of a unit file or drop-in, in order; by default a scope's.

    Other lines are skipped, as systemd skips them.
    """
    return [
        (one.key, syntax.unescape_specifiers(one.value))
        for one in syntax.entries(text)
        if one.section in sections
    ]


def merge(texts: Iterable[str]) -> dict[str, str]:
    """Key -> value of several drop-ins, given in the order of their names: an empty value resets the key."""
    found: dict[str, str] = {}
    for text in texts:
        for key, value in assignments(text):
            before = found.get(key, "")
            found[key] = f"{before}\n{value}" if value and before else value
    return found


def to_property(key: str, text: str, facts: HostFacts) -> Property:
    """The property that a drop-in's assignment sets on this host; `text` as in `tuned`.

    Its value is None for "not set". Raises SpecError for what `--property` would refuse too.
    """
    if not text:
        if key not in KEYS:
            raise SpecError(f"{key}: not a resource property that may be set")
        _, old, new = KEYS[key]
        name = new if facts.cgroup_mode == "v2" else old
        if not name:
            raise SpecError(f"{key}: this host's controllers are cgroup v1, it needs v2")
        return Property(name=name, signature="", value=None)
    parsed = [parse_property(f"{key}={line}", facts) for line in text.split("\n")]
    last = parsed[-1]
    if last.signature in ("a(st)", NETWORKS):
        return last.replace(value=[item for one in parsed for item in one.value])
    return last  # systemd takes the last assignment too


def overlay(
    asked: tuple[Property, ...], tuned: dict[str, str], facts: HostFacts
) -> tuple[Property, ...]:
    """The properties to start a scope with: those asked for, overridden by those that others set since.

    A property that this host does not know is left out, since no start may fail for it.
    """
    over = {base_name(one.name): one for one in tuned_properties(tuned, facts).values()}
    return (
        *(one for one in asked if base_name(one.name) not in over),
        *(one for one in over.values() if one.value is not None),
    )


def by_name(properties: tuple[Property, ...]) -> dict[str, Property]:
    """Name -> property: a later one replaces an earlier one; of a list, only the entries of its devices.

    Networks are added to those before, as systemd adds them.
    """
    found: dict[str, Property] = {}
    for one in properties:
        name = base_name(one.name)
        if name in found and one.signature == "a(st)":
            one = one.replace(value=list(({**dict(found[name].value), **dict(one.value)}).items()))
        elif name in found and one.signature == NETWORKS:
            one = one.replace(value=[*found[name].value, *one.value])
        found[name] = one
    return found


def tuned_properties(tuned: dict[str, str], facts: HostFacts) -> dict[str, Property]:
    """Key -> property, without keys unknown to this host. Old spellings come first: the new one overrides
    the old one, as in systemd.
    """
    found: dict[str, Property] = {}
    for key in sorted(tuned, key=lambda one: one in KEYS and one == KEYS[one][2]):
        try:
            found[key] = to_property(key, tuned[key], facts)
        except SpecError:
            continue
    return found


def base_name(name: str) -> str:
    """MemoryMax for MemoryMaxScale: both set the same limit."""
    return name.removesuffix("Scale")


def same_value(one: Any, other: Any) -> bool:
    """Whether two values of a property are the same; the order of a list does not count."""
    if isinstance(one, list) and isinstance(other, list):
        if any(len(entry) == 3 for entry in (*one, *other)):
            from sysbox.parse.addresses import reduce  # few containers have networks

            return reduce(one) == reduce(other)
        return sorted(one) == sorted(other)
    if isinstance(one, bytes) and isinstance(other, bytes):
        # a bitmask, which systemd pads to whole words
        return one.rstrip(b"\0") == other.rstrip(b"\0")
    return bool(one == other)


def sort_out(
    tuning: Tuning, asked: tuple[Property, ...], before: dict[str, str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Separate what others set from what sysbox set: (what is tuned now, the keys that are not kept).

    `asked` are the properties that run and update asked for (their changes of a running scope make drop-ins
    too), `before` what was tuned when the scope was started.
    """
    facts = tuning.facts
    wanted = {name: one.value for name, one in by_name(asked).items()}
    tuned = dict(before)
    ignored = []
    for key, text in tuning.found.items():
        if is_neutral(key, text) and is_foreign(key, facts):
            continue  # unset under the other cgroup version's name: no effect
        try:
            one = to_property(key, text, facts)
        except SpecError:
            ignored += [] if is_neutral(key, text) else [key]
            continue
        name = base_name(one.name)
        had = {other: tuned.pop(other) for other in spellings(key) if other in tuned}
        want = wanted.get(name, tuning.defaults.get(name))
        if not same_value(want, one.value) and not (name not in wanted and _is_default(one, facts)):
            # spellings.py set it again under its other name: keep the name it was first set by
            first = next(
                (other for other in had if _same(to_property(other, had[other], facts), one)), key
            )
            tuned[first] = had.get(first, text) if first != key else text
    return tuned, tuple(ignored)


def _same(one: Property, other: Property) -> bool:
    return one.name == other.name and same_value(one.value, other.value)


def is_neutral(key: str, text: str) -> bool:
    """Whether an assignment means "as if nobody had set it"; `text` as in `tuned`."""
    if key.endswith("Accounting"):
        return text.lower() in ("", *_OFF)
    if key in ("MemoryLow", "MemoryMin"):
        return text in ("", "0")
    return text in ("", "infinity")


def is_foreign(key: str, facts: HostFacts) -> bool:
    """Whether the key is the other cgroup version's spelling."""
    return key in (_OLD if facts.cgroup_mode == "v2" else _NEW)


def _is_default(one: Property, facts: HostFacts) -> bool:
    """Whether a value means "as if nobody had set it": `update` sets such a value to remove a limit."""
    unlimited = one.value == INFINITY and one.name not in HOST_DEFAULTS
    return (
        one.value is None
        or unlimited
        or (one.value == 0 and one.name in ("MemoryLow", "MemoryMin"))
        or (one.value is False and one.name == "IPAccounting")
        or (one.signature == "ay" and one.value == everything(one.name, facts))
    )


def spellings(key: str) -> tuple[str, ...]:
    """All keys of one limit: CPUShares and CPUWeight."""
    if key not in KEYS:
        return (key,)
    _, old, new = KEYS[key]
    return tuple(
        other for other, (_, its_old, its_new) in KEYS.items() if (its_old, its_new) == (old, new)
    )


def other_spelling(name: str) -> str:
    """The other cgroup version's name (on the bus) for a property; "" where it has none."""
    return _OTHER.get(name, "")


def converted(name: str, live: dict[str, Any]) -> Any:
    """The effective value of a property (D-Bus name); if both its spellings are set, that of the new one.

    `live` has a scope's properties by name.
    """
    other = _OTHER.get(name, "")
    first, second = (name, other) if name in _NEW else (other, name)
    chosen = second if live.get(first) in (None, INFINITY, []) else first
    value = live.get(chosen)
    if chosen == name or value in (None, INFINITY, []):
        return live.get(name)
    return convert(other, name, "a(st)" if isinstance(value, list) else "t", value)


def without(tuned: dict[str, str], names: Iterable[str], facts: HostFacts) -> dict[str, str]:
    """`tuned` without the keys that set one of these properties (D-Bus names)."""
    dropped = {base_name(name) for name in names}
    standing = tuned_properties(tuned, facts)
    return {
        key: text
        for key, text in tuned.items()
        if key not in standing or base_name(standing[key].name) not in dropped
    }


def memory_of(tuned: dict[str, str], facts: HostFacts) -> int:
    """The memory limit that others set, in bytes; INFINITY for a share of the host's, 0 for none."""
    return memory_in(tuple(tuned_properties(tuned, facts).values()))


def memory_in(properties: tuple[Property, ...]) -> int:
    """The memory limit that they set, in bytes; INFINITY for a share of the host's, 0 for none."""
    for one in reversed(properties):
        if base_name(one.name) in _MEMORY and one.value is not None:
            return int(one.value) if one.name in _MEMORY else INFINITY
    return 0
