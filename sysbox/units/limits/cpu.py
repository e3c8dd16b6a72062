"""Plan the limits of CPU time, CPUs, memory nodes and processes; called by plan.py."""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.base.numbers import bitmask, format_list, parse_list
from sysbox.units.limits.properties import (
    INFINITY,
    CgroupWrite,
    Property,
    check_range,
    require_controller,
    weight_of_shares,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.host import HostFacts
    from sysbox.spec import Limits

_PERIOD = 100_000  # microseconds, the kernel's default
_SECOND = 1_000_000  # microseconds
_PERCENT = _SECOND // 100


def plan(
    limits: Limits, facts: HostFacts, properties: list[Property], writes: list[CgroupWrite]
) -> None:
    """Append properties and writes for the limits. Raises SpecError and Unsupported that name the flag."""
    _plan_weight(limits, facts, properties, writes)
    _plan_quota(limits, facts, properties)
    _plan_cpuset(limits, facts, properties, writes)
    _plan_pids(limits, facts, properties)


def _plan_weight(
    limits: Limits, facts: HostFacts, out: list[Property], writes: list[CgroupWrite]
) -> None:
    shares, unified = limits.cpu_shares, facts.cgroup_mode == "v2"
    if shares:  # docker: 0 is the default weight
        require_controller(facts, "cpu", "--cpu-shares")
        check_range("--cpu-shares", shares, 2, 262144)
        if limits.cpu_idle:
            raise SpecError("--cpu-idle and --cpu-shares set the same weight: give one of them")
        if unified:
            # converted as systemd does it: its default of 1024 shares is the default weight 100
            out.append(Property(name="CPUWeight", signature="t", value=weight_of_shares(shares)))
        else:
            out.append(Property(name="CPUShares", signature="t", value=shares))
    if limits.cpu_idle:
        require_controller(facts, "cpu", "--cpu-idle")
        if unified:
            out.append(Property(name="CPUWeight", signature="t", value=0))
        else:
            writes.append(CgroupWrite(controller="cpu", file="cpu.idle", value="1"))


def _plan_quota(limits: Limits, facts: HostFacts, out: list[Property]) -> None:
    if limits.nano_cpus and (limits.cpu_quota is not None or limits.cpu_period is not None):
        other = "--cpu-quota" if limits.cpu_quota is not None else "--cpu-period"
        raise SpecError(f"--cpus and {other} set the same limit: give one of them")
    if limits.cpu_period:
        require_controller(facts, "cpu", "--cpu-period")
        check_range("--cpu-period", limits.cpu_period, 1000, 1_000_000, "microseconds")
        out.append(Property(name="CPUQuotaPeriodUSec", signature="t", value=limits.cpu_period))
    per_second = _quota(limits, facts)
    if per_second is not None:
        require_controller(facts, "cpu", "--cpus" if limits.nano_cpus else "--cpu-quota")
        out.append(Property(name="CPUQuotaPerSecUSec", signature="t", value=per_second))


def _quota(limits: Limits, facts: HostFacts) -> int | None:
    """Microseconds of CPU per second, or None without a quota.

    Rounded up to whole percents: systemd writes whole percents into the unit's drop-in, so a finer value
    would change at the next daemon-reload.
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
    limits: Limits, facts: HostFacts, out: list[Property], writes: list[CgroupWrite]
) -> None:
    nodes = facts.memory_nodes
    for flag, asked, online, name, file in (
        ("--cpuset-cpus", limits.cpuset_cpus, facts.cpus, "AllowedCPUs", "cpuset.cpus"),
        ("--cpuset-mems", limits.cpuset_mems, nodes, "AllowedMemoryNodes", "cpuset.mems"),
    ):
        if not asked:
            continue
        require_controller(facts, "cpuset", flag)
        numbers = parse_list(flag, asked)
        if not set(numbers) <= set(parse_list("host", online)):
            raise SpecError(
                f"{flag} {asked}: not all of these are available here: the host has {online}"
            )
        if facts.cgroup_mode == "v2":
            out.append(Property(name=name, signature="ay", value=bitmask(numbers)))
        else:
            writes.append(CgroupWrite(controller="cpuset", file=file, value=format_list(numbers)))


def _plan_pids(limits: Limits, facts: HostFacts, out: list[Property]) -> None:
    """Without --pids-limit systemd's DefaultTasksMax applies, a share of the host's own limit."""
    if limits.pids is None:
        return
    require_controller(facts, "pids", "--pids-limit")
    if limits.pids < -1:
        raise SpecError(f"--pids-limit {limits.pids}: a number of processes, or -1 for unlimited")
    value = limits.pids if limits.pids > 0 else INFINITY
    out.append(Property(name="TasksMax", signature="t", value=value))
