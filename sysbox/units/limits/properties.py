"""Unit properties as D-Bus carries them, and functions that the planners of limits share. Pure."""

from __future__ import annotations

from sysbox.base.errors import SpecError, Unsupported
from sysbox.base.frozen import Frozen
from sysbox.base.numbers import bitmask, parse_list

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.host import HostFacts

NETWORKS = "a(iayu)"  # the signature of a list of networks: family, address, bits of the prefix
INFINITY = (1 << 64) - 1  # systemd's "no limit" in a property of type t


class Property(Frozen):
    """One unit property as D-Bus carries it; the signature gives the value's Python type (see wire.py)."""

    name: str
    signature: str
    value: Any


class CgroupWrite(Frozen):
    """A value to write into a file of the scope's cgroup that no unit property sets."""

    controller: str
    file: str
    value: str
    optional: bool = False  # a default of sysbox: skipped where the kernel has no such file
    before: bool = False  # in a change: written before the properties are set
    inherit: bool = False  # write the parent cgroup's value; `value` is ""


def require_controller(facts: HostFacts, controller: str, flag: str) -> None:
    """Raise Unsupported if this host lacks the controller that a flag needs."""
    if controller not in facts.controllers:
        raise Unsupported(
            f"{flag}: the cgroup controller '{controller}' is not available on this host",
            hint="it may be switched off (cgroup_disable=), not mounted, or read-only, as inside a container"
            " on cgroup v1: `sysbox doctor` says which",
        )


def weight_of_shares(shares: int) -> int:
    """cpu.weight for cpu.shares as systemd up to 257 converts it: linear, 1024 is 100."""
    return min(max(shares * 100 // 1024, 1), 10000)


def shares_of_weight(weight: int) -> int:
    """cpu.shares for cpu.weight, the inverse."""
    return min(max(weight * 1024 // 100, 2), 262144)


def io_weight_of_blkio(weight: int) -> int:
    """io.weight for a weight of block I/O as systemd up to 257 converts it: the defaults are 500 and 100."""
    return max(weight * 100 // 500, 1)


def blkio_weight_of_io(weight: int) -> int:
    """A weight of block I/O (10 to 1000) for io.weight, the inverse."""
    return min(max(weight * 500 // 100, 10), 1000)


def everything(name: str, facts: HostFacts) -> bytes | None:
    """A bitmask of all CPUs or memory nodes, for the property that selects them; None for any other."""
    if name == "AllowedCPUs":
        return bitmask(parse_list("the host's CPUs", facts.cpus))
    if name == "AllowedMemoryNodes":
        return bitmask(parse_list("the host's memory nodes", facts.memory_nodes))
    return None


def check_range(flag: str, value: int, low: int, high: int, unit: str = "") -> None:
    """Raise SpecError if the value of a flag is out of range."""
    if not low <= value <= high:
        suffix = f" {unit}" if unit else ""
        raise SpecError(f"{flag} {value}: the range is {low} to {high}{suffix}")
