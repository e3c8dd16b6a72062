"""Limits as asked → unit properties and the few cgroup files that no property reaches. Pure.

Names are chosen by the cgroup hierarchy: with v1 controllers the names that systemd applies natively
there (CPUShares, MemoryLimit, BlockIO*), with v2 the new ones, which is all that systemd 258 and
later know. A file that has a property is never written: systemd would revert it at the next
daemon-reload.
"""

from __future__ import annotations

from sysbox.errors import SpecError
from sysbox.frozen import Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.host import HostFacts
    from sysbox.spec import Limits

INFINITY = (1 << 64) - 1  # systemd's "no limit" in a property of type t

_MIN_MEMORY = 6 << 20  # bytes; below, no process can start (docker's limit)
_PERIOD = 100_000  # microseconds, the kernel's default
_SECOND = 1_000_000  # microseconds
_PERCENT = _SECOND // 100
_MAX_CPU = 8191  # CONFIG_NR_CPUS never exceeds 8192
_KINDS = ("char-", "block-")


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

    Raises SpecError that names the flag and the range.
    """
    unified = facts.cgroup_mode == "v2"
    properties: list[Property] = []
    writes: list[CgroupWrite] = []
    _plan_cpu(limits, facts, properties, unified=unified)
    _plan_cpuset(limits, facts, properties, writes, unified=unified)
    _plan_memory(limits, properties, writes, unified=unified)
    _plan_pids(limits, properties)
    _plan_block_io(limits, properties, unified=unified)
    return tuple(properties), tuple(writes)


def _plan_cpu(limits: Limits, facts: HostFacts, out: list[Property], *, unified: bool) -> None:
    shares = limits.cpu_shares
    if shares:  # docker: 0 is the default weight
        _in_range("--cpu-shares", shares, 2, 262144)
        if unified:
            # systemd's own conversion, under which the two defaults (1024 and 100) are the same
            out.append(Property(name="CPUWeight", signature="t", value=weight_of_shares(shares)))
        else:
            out.append(Property(name="CPUShares", signature="t", value=shares))
    if limits.nano_cpus and (limits.cpu_quota is not None or limits.cpu_period is not None):
        other = "--cpu-quota" if limits.cpu_quota is not None else "--cpu-period"
        raise SpecError(f"--cpus and {other} set the same limit: give one of them")
    if limits.cpu_period:
        _in_range("--cpu-period", limits.cpu_period, 1000, 1_000_000, "microseconds")
        out.append(Property(name="CPUQuotaPeriodUSec", signature="t", value=limits.cpu_period))
    per_second = _quota(limits, facts)
    if per_second is not None:
        out.append(Property(name="CPUQuotaPerSecUSec", signature="t", value=per_second))


def weight_of_shares(shares: int) -> int:
    """cpu.weight for cpu.shares as systemd up to 257 converts it: linear, 1024 is 100."""
    return min(max(shares * 100 // 1024, 1), 10000)


def shares_of_weight(weight: int) -> int:
    """cpu.shares for cpu.weight, the other way round."""
    return min(max(weight * 1024 // 100, 2), 262144)


def _quota(limits: Limits, facts: HostFacts) -> int | None:
    """Microseconds of CPU per second, or None where no quota was asked.

    Rounded up to whole percents, since that is how systemd writes it into the unit's drop-in:
    anything finer would change at the next daemon-reload.
    """
    if limits.nano_cpus:
        available = len(parse_list("the host's CPUs", facts.cpus))
        if not 10_000_000 <= limits.nano_cpus <= available * 1_000_000_000:
            raise SpecError(
                f"--cpus {limits.nano_cpus / 1e9:g}: the range is 0.01 to {available}.00,"
                f" as there are only {available} CPUs available"
            )
        exact = -(-limits.nano_cpus // 1000)
    elif limits.cpu_quota is None or limits.cpu_quota == 0:
        return None
    elif limits.cpu_quota == -1:
        return INFINITY
    else:
        if limits.cpu_quota < 1000:
            raise SpecError(f"--cpu-quota {limits.cpu_quota}: at least 1000 microseconds, or -1")
        exact = -(-limits.cpu_quota * _SECOND // (limits.cpu_period or _PERIOD))
    return -(-exact // _PERCENT) * _PERCENT


def _plan_cpuset(
    limits: Limits,
    facts: HostFacts,
    out: list[Property],
    writes: list[CgroupWrite],
    *,
    unified: bool,
) -> None:
    for flag, asked, online, name, file in (
        ("--cpuset-cpus", limits.cpuset_cpus, facts.cpus, "AllowedCPUs", "cpuset.cpus"),
        (
            "--cpuset-mems",
            limits.cpuset_mems,
            facts.memory_nodes,
            "AllowedMemoryNodes",
            "cpuset.mems",
        ),
    ):
        if not asked:
            continue
        numbers = parse_list(flag, asked)
        if not set(numbers) <= set(parse_list("host", online)):
            raise SpecError(
                f"{flag} {asked}: not all of these are available here: the host has {online}"
            )
        if unified:
            out.append(Property(name=name, signature="ay", value=bitmask(numbers)))
        else:
            writes.append(CgroupWrite(controller="cpuset", file=file, value=format_list(numbers)))


def _plan_memory(
    limits: Limits, out: list[Property], writes: list[CgroupWrite], *, unified: bool
) -> None:
    memory, reservation = limits.memory or 0, limits.memory_reservation or 0
    _check_memory(memory, reservation, limits.memory_swap or 0)
    if memory:
        out.append(
            Property(name="MemoryMax" if unified else "MemoryLimit", signature="t", value=memory)
        )
        _plan_swap(memory, limits.memory_swap or 0, out, writes, unified=unified)
    if reservation and unified:
        out.append(Property(name="MemoryLow", signature="t", value=reservation))
    elif reservation:
        writes.append(
            CgroupWrite(
                controller="memory", file="memory.soft_limit_in_bytes", value=str(reservation)
            )
        )


def _check_memory(memory: int, reservation: int, swap: int) -> None:
    if memory and memory < _MIN_MEMORY:
        raise SpecError(f"--memory {memory}: at least 6m ({_MIN_MEMORY} bytes)")
    if reservation and reservation < _MIN_MEMORY:
        raise SpecError(f"--memory-reservation {reservation}: at least 6m ({_MIN_MEMORY} bytes)")
    if memory and reservation > memory:
        raise SpecError(
            f"--memory-reservation {reservation}: must not exceed --memory, which is {memory}"
        )
    if swap < -1:
        raise SpecError(f"--memory-swap {swap}: a size, or -1 for unlimited")
    if swap > 0 and not memory:
        raise SpecError(
            "--memory-swap: --memory must be given too; the swap is counted on top of it"
        )
    if 0 < swap < memory:
        raise SpecError(
            f"--memory-swap {swap}: must not be below --memory, which is {memory}:"
            " it is memory and swap together"
        )


def _plan_swap(
    memory: int, swap: int, out: list[Property], writes: list[CgroupWrite], *, unified: bool
) -> None:
    """Docker's arithmetic: `swap` is both together, twice the memory by default, -1 unlimited."""
    total = swap or 2 * memory
    if unified:
        value = INFINITY if total == -1 else total - memory
        out.append(Property(name="MemorySwapMax", signature="t", value=value))
    elif total != -1:
        # the kernel refuses a value below the memory limit, which systemd has set by then
        writes.append(
            CgroupWrite(
                controller="memory",
                file="memory.memsw.limit_in_bytes",
                value=str(total),
                optional=not swap,
            )
        )


def _plan_pids(limits: Limits, out: list[Property]) -> None:
    """Not asked leaves systemd's DefaultTasksMax, a share of the host's own limit."""
    if limits.pids is None:
        return
    if limits.pids < -1:
        raise SpecError(f"--pids-limit {limits.pids}: a number of processes, or -1 for unlimited")
    value = limits.pids if limits.pids > 0 else INFINITY
    out.append(Property(name="TasksMax", signature="t", value=value))


def _plan_block_io(limits: Limits, out: list[Property], *, unified: bool) -> None:
    weight = limits.blkio_weight
    if weight:  # docker: 0 is the default weight
        _in_range("--blkio-weight", weight, 10, 1000)
        if unified:
            # systemd's own conversion: the two defaults are 500 and 100
            out.append(Property(name="IOWeight", signature="t", value=max(weight * 100 // 500, 1)))
        else:
            out.append(Property(name="BlockIOWeight", signature="t", value=weight))
    for flag, devices, old, new in (
        ("--device-read-bps", limits.device_read_bps, "BlockIOReadBandwidth", "IOReadBandwidthMax"),
        (
            "--device-write-bps",
            limits.device_write_bps,
            "BlockIOWriteBandwidth",
            "IOWriteBandwidthMax",
        ),
    ):
        if not devices:
            continue
        for device, rate in devices:
            if rate <= 0:
                raise SpecError(f"{flag} {device}:{rate}: the rate must be above 0")
        out.append(Property(name=new if unified else old, signature="a(st)", value=list(devices)))


def plan_devices(rules: tuple[tuple[str, str], ...] | None) -> tuple[Property, ...]:
    """DevicePolicy and DeviceAllow for (path or `char-GROUP`, access) rules; None: privileged.

    Raises SpecError for a rule that is not systemd's (systemd.resource-control(5)).
    """
    if rules is None:
        return (Property(name="DevicePolicy", signature="s", value="auto"),)
    for what, access in rules:
        if not what.startswith(("/dev/", *_KINDS)) or any(char <= " " for char in what):
            raise SpecError(
                f"device rule {what!r}: a path below /dev, or char-GROUP or block-GROUP"
            )
        if not access or not set(access) <= set("rwm"):
            raise SpecError(f"device rule {what!r}: access {access!r} must be made of r, w, m")
    return (
        Property(name="DevicePolicy", signature="s", value="strict"),
        Property(name="DeviceAllow", signature="a(ss)", value=list(rules)),
    )


def parse_property(text: str, facts: HostFacts) -> Property:
    """`KEY=VALUE` of `--property`, typed and checked against an allowlist of resource properties.

    Raises SpecError. Nothing else gets through to systemd (CVE-2024-3154).
    """
    from sysbox.units import allowlist  # a table that only `--property` needs

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


def _in_range(flag: str, value: int, low: int, high: int, unit: str = "") -> None:
    if not low <= value <= high:
        suffix = f" {unit}" if unit else ""
        raise SpecError(f"{flag} {value}: the range is {low} to {high}{suffix}")
