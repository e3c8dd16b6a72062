"""Unit properties as D-Bus carries them, and what the planners of limits share. Pure."""

from __future__ import annotations

from sysbox.base.errors import SpecError, Unsupported
from sysbox.base.frozen import Frozen
from sysbox.spec import Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.host import HostFacts

INFINITY = (1 << 64) - 1  # systemd's "no limit" in a property of type t

_MAX_CPU = 8191  # CONFIG_NR_CPUS never exceeds 8192
_KINDS = ("char-", "block-")
_NO_LIMITS = Limits()


class Property(Frozen):
    """One unit property as D-Bus carries it; the value's type goes with the signature (see wire.py)."""

    name: str
    signature: str
    value: Any


class CgroupWrite(Frozen):
    """A value for a cgroup file without a property, written inside the scope's own directory."""

    controller: str
    file: str
    value: str
    optional: bool = False  # a default of ours: skipped where the kernel has no such file
    before: bool = False  # of a change: to be written ahead of the properties
    inherit: bool = False  # the value that the parent cgroup has; `value` is "" then


def plan_limits(
    limits: Limits, facts: HostFacts
) -> tuple[tuple[Property, ...], tuple[CgroupWrite, ...]]:
    """The properties and the writes for what was asked; nothing asked gives nothing.

    Raises SpecError that names the flag and the range, and Unsupported for what this host lacks.
    """
    if limits == _NO_LIMITS:
        return (), ()
    from sysbox.units.limits import plan as planner  # which only a container with limits needs

    return planner.plan(limits, facts)


def need(facts: HostFacts, controller: str, flag: str) -> None:
    """Raise Unsupported where this host lacks the controller that a flag needs."""
    if controller not in facts.controllers:
        raise Unsupported(
            f"{flag}: the cgroup controller '{controller}' is not available on this host",
            hint="it may be switched off (cgroup_disable=) or not mounted: `sysbox doctor` says which",
        )


def weight_of_shares(shares: int) -> int:
    """cpu.weight for cpu.shares as systemd up to 257 converts it: linear, 1024 is 100."""
    return min(max(shares * 100 // 1024, 1), 10000)


def shares_of_weight(weight: int) -> int:
    """cpu.shares for cpu.weight, the other way round."""
    return min(max(weight * 1024 // 100, 2), 262144)


def io_of_block(weight: int) -> int:
    """io.weight for a weight of block I/O as systemd up to 257 converts it: the defaults are 500 and 100."""
    return max(weight * 100 // 500, 1)


def block_of_io(weight: int) -> int:
    """The other way round."""
    return min(max(weight * 500 // 100, 10), 1000)


def plan_devices(rules: tuple[tuple[str, str], ...] | None) -> tuple[Property, ...]:
    """DevicePolicy and DeviceAllow for (path or `char-GROUP`, access) rules; None: privileged.

    Raises SpecError for a rule that is not systemd's (systemd.resource-control(5)).
    """
    if rules is None:
        return (Property(name="DevicePolicy", signature="s", value="auto"),)
    allowed: dict[str, str] = {}
    for what, access in rules:
        if not what.startswith(("/dev/", *_KINDS)) or any(char <= " " for char in what):
            raise SpecError(
                f"device rule {what!r}: a path below /dev, or char-GROUP or block-GROUP"
            )
        if not access or not set(access) <= set("rwm"):
            raise SpecError(f"device rule {what!r}: access {access!r} must be made of r, w, m")
        # systemd takes the last rule for a device, and not all of them as the kernel does
        had = allowed.get(what, "")
        allowed[what] = had + "".join(one for one in access if one not in had)
    return (
        Property(name="DevicePolicy", signature="s", value="strict"),
        Property(name="DeviceAllow", signature="a(ss)", value=list(allowed.items())),
    )


def parse_property(text: str, facts: HostFacts) -> Property:
    """`KEY=VALUE` of `--property`, typed and checked against an allowlist of resource properties.

    Raises SpecError. Nothing else gets through to systemd (CVE-2024-3154).
    """
    from sysbox.units.limits import allowlist  # a table that only `--property` needs

    return allowlist.parse(text, facts)


def parse_list(flag: str, text: str) -> list[int]:
    """The numbers of a kernel list such as "0-2,5", sorted, each once."""
    numbers: set[int] = set()
    for part in text.split(","):
        low, dash, high = part.strip(" ").partition("-")
        if not _is_number(low) or (dash and not _is_number(high)):
            raise SpecError(f"{flag} {text!r}: must be a list such as 0-2,5")
        first, last = int(low), int(high or low)
        if first > last or last > _MAX_CPU:
            raise SpecError(f"{flag} {text!r}: {part.strip()} is not a range up to {_MAX_CPU}")
        numbers.update(range(first, last + 1))
    return sorted(numbers)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5


def format_list(numbers: list[int]) -> str:
    """The kernel's own spelling of a list: "0-2,5"."""
    parts: list[str] = []
    index = 0
    while index < len(numbers):
        end = index
        while end + 1 < len(numbers) and numbers[end + 1] == numbers[end] + 1:
            end += 1
        first, last = numbers[index], numbers[end]
        parts.append(str(first) if first == last else f"{first}-{last}")
        index = end + 1
    return ",".join(parts)


def bitmask(numbers: list[int]) -> bytes:
    """AllowedCPUs on the bus: bit n of byte n/8, no longer than it must be."""
    mask = 0
    for number in numbers:
        mask |= 1 << number
    return mask.to_bytes((mask.bit_length() + 7) // 8, "little")


def everything(name: str, facts: HostFacts) -> bytes | None:
    """All CPUs or memory nodes, for the property that chooses among them; None for another property."""
    if name == "AllowedCPUs":
        return bitmask(parse_list("the host's CPUs", facts.cpus))
    if name == "AllowedMemoryNodes":
        return bitmask(parse_list("the host's memory nodes", facts.memory_nodes))
    return None


def in_range(flag: str, value: int, low: int, high: int, unit: str = "") -> None:
    """Raise SpecError where the value of a flag is out of range."""
    if not low <= value <= high:
        suffix = f" {unit}" if unit else ""
        raise SpecError(f"{flag} {value}: the range is {low} to {high}{suffix}")
