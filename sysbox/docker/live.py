"""The limits of a running container in docker's terms: as the kernel has them, whichever program set them.

Nothing is cached: a change by `systemctl set-property`, or by a write to the cgroup's files, shows at once.
"""

from __future__ import annotations

from sysbox import scope
from sysbox.base.errors import SysboxError
from sysbox.base.frozen import Frozen
from sysbox.base.numbers import format_list
from sysbox.docker.ip_rules import ip_rules
from sysbox.host import probe, read_text
from sysbox.run import cgroup_watch, property_changes, tuned
from sysbox.units import names
from sysbox.units.bus import Bus
from sysbox.units.cgroup.blockdev import disks_of
from sysbox.units.cgroup.tree import scope_of
from sysbox.units.limits import readback, table
from sysbox.units.limits.dropins import other_spelling, spellings
from sysbox.units.limits.io import bfq_weight
from sysbox.units.limits.plan import plan_limits
from sysbox.units.limits.properties import (
    INFINITY,
    blkio_weight_of_io,
    io_weight_of_blkio,
    shares_of_weight,
    weight_of_shares,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.container.store import Record
    from sysbox.host import HostFacts
    from sysbox.spec import Limits
    from sysbox.units.limits.table import Resource, Setting

_PERIOD = 100_000  # microseconds, the kernel's default
_BLOCK_IO_WEIGHT = 500  # systemd's default of BlockIOWeight, where that of IOWeight is 100
_IO_WEIGHT = 100


class Live(Frozen):
    """The properties of a running container's scope, and the path of its cgroup."""

    facts: HostFacts
    path: str  # of the cgroup in each hierarchy
    properties: dict[str, Any]  # by their names on the bus, in both spellings


def read_live(record: Record, pid: int) -> Live | None:
    """Ask systemd about a running container; None when that fails, or the container has just ended."""
    facts = probe()
    try:
        property_changes.apply_missed(record, facts)
    except SysboxError:
        pass  # ignoring: the container has just ended; its limits are shown as they are
    asked = ["ControlGroup", "Slice"]
    for one in table.TABLE:
        name = one.setting(facts).bus_name
        asked += [each for each in (name, other_spelling(name)) if each]
    try:
        path = scope_of(pid, facts)
        with Bus.connect() as bus:
            found = scope.properties(
                bus,
                names.scope_unit(record.id),
                scope.INTERFACES[".scope"],
                tuple(dict.fromkeys(asked)),
            )
    except (SysboxError, KeyError):
        return None
    return Live(facts=facts, path=path, properties=found)


def was_short_of_memory(pid: int) -> bool:
    """Whether the kernel has killed a process in the container of `pid` for lack of memory."""
    facts = probe()
    mounted = facts.controllers.get("memory")
    try:
        path = scope_of(pid, facts)
    except (SysboxError, KeyError):
        return False
    return mounted is not None and cgroup_watch.kills(mounted + path, facts.cgroup_mode) > 0


def live_limits(record: Record, pid: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """(HostConfig entries, the `Sysbox` entry) of a running container; both empty if `read_live` fails."""
    live = read_live(record, pid)
    if live is None:
        return {}, {}
    disks = disks_of(record.spec, live.facts)
    _, writes = plan_limits(record.spec.limits, live.facts, disks)
    found, ignored = tuned.collect(record, live.facts)
    of_service = _of_service(record, found)
    its = {one for key in of_service for one in spellings(key)}
    own = {
        "Scope": names.scope_unit(record.id),
        "ControlGroup": live.properties.get("ControlGroup", live.path),
        "Slice": live.properties.get("Slice", ""),
        "Tuned": {key: value for key, value in found.items() if key not in its},
        "TunedUntilStop": list(ignored),
        "OfService": of_service,
        # these have no systemd property: sysbox itself wrote them
        **ip_rules(live.properties),
        "WrittenDirectly": [f"{one.controller}/{one.file}={one.value}" for one in writes],
    }
    return host_config(live, record.spec.limits, found), own


def _of_service(record: Record, found: dict[str, str]) -> dict[str, str]:
    """Where the service of a declared container has the limits that are its own."""
    if not record.spec.unit:
        return {}
    from sysbox.run import service_settings  # most containers are not declared

    try:
        return service_settings.origins(record, found)
    except SysboxError:
        return {}  # ignoring: what the file of the run says is about to be written again


def host_config(live: Live, asked: Limits, tuned: dict[str, str]) -> dict[str, Any]:
    """docker's HostConfig entries for all limits that docker knows."""
    shares = tuned.get("CPUShares", "")
    if shares.isdigit():  # the exact number that was set: a weight is rounded
        asked = asked.replace(cpu_shares=int(shares))
    found: dict[str, Any] = {}
    for resource in table.TABLE:
        setting = resource.setting(live.facts)
        if resource.inspect and setting.available and setting.file:
            value = _in_force(setting, live)
            if value is not None:
                found[resource.inspect] = _in_docker(resource, setting, value, live, asked)
    return found | _cpu_quota(live, asked)


def _in_force(setting: Setting, live: Live) -> Any:
    """The kernel's value; INFINITY for a default that was never set."""
    have = readback.read_kernel(setting, live.path, live.facts)
    want = readback.systemd_value(setting, live.properties)
    if want in (None, INFINITY) and readback.values_agree(setting, want, have):
        return INFINITY if isinstance(have, int) else have
    return want if "IO" in setting.bus_name and readback.values_agree(setting, want, have) else have


def _in_docker(resource: Resource, setting: Setting, value: Any, live: Live, asked: Limits) -> Any:
    """A value in docker's units and types. No limit is 0, but null for the number of processes."""
    if isinstance(value, tuple):
        if resource.field in ("cpuset_cpus", "cpuset_mems"):
            return format_list(list(value))
        if resource.field == "blkio_weight_device":
            return [
                {"Path": path, "Weight": _block_weight(setting, weight, asked)}
                for path, weight in _with_paths(setting, value, live)
            ]
        return [{"Path": path, "Rate": rate} for path, rate in _with_paths(setting, value, live)]
    if resource.field == "pids":
        return None if value == INFINITY else value
    if resource.field == "memory_swap":
        memory = readback.read_kernel(
            table.by_field("memory").setting(live.facts), live.path, live.facts
        )
        limited = isinstance(memory, int) and memory != INFINITY
        if value == INFINITY:
            return -1 if limited or asked.memory_swap == -1 else 0
        return value if setting.written else memory + value if limited else 0
    if resource.field == "memory_swappiness" and asked.memory_swappiness is None:
        above = readback.read_kernel(setting, live.path.rpartition("/")[0] or "/", live.facts)
        return None if value == above else value
    if resource.field == "oom_kill_disable":
        return value == 1
    if value == INFINITY:
        return 0
    if setting.bus_name == "CPUWeight":
        return _shares(value, (asked.cpu_shares, live.properties.get("CPUShares")))
    if setting.bus_name == "IOWeight":
        return value * _BLOCK_IO_WEIGHT // _IO_WEIGHT
    return value


def _block_weight(setting: Setting, weight: int, asked: Limits) -> int:
    """The weight asked for a disk, if it converts to `weight` (or BFQ's); else `weight` converted."""
    for _, one in asked.blkio_weight_device:
        own = io_weight_of_blkio(one) if setting.bus_name == "IODeviceWeight" else one
        if weight in (own, bfq_weight(own)):
            return one
    return blkio_weight_of_io(weight) if setting.bus_name == "IODeviceWeight" else weight


def _shares(weight: int, candidates: tuple[int | None, ...]) -> int:
    """The CPU shares for a weight: those that were asked for, if they convert to it."""
    for one in candidates:
        if one not in (None, INFINITY) and weight_of_shares(one or 0) == weight:
            return one or 0
    return shares_of_weight(weight)


def _with_paths(setting: Setting, value: tuple[Any, ...], live: Live) -> list[tuple[str, int]]:
    """(path, rate) for (MAJOR:MINOR, rate): the path that the user gave, else the kernel's name."""
    given: dict[str, str] = {}
    for name in (setting.bus_name, other_spelling(setting.bus_name)):
        for path, _ in live.properties.get(name) or ():
            given[readback.device_number(path)] = path
    return [(given.get(number) or _node(number), rate) for number, rate in value]


def _node(number: str) -> str:
    for line in read_text(f"/sys/dev/block/{number}/uevent").splitlines():
        if line.startswith("DEVNAME="):
            return f"/dev/{line.removeprefix('DEVNAME=')}"
    return number


def _cpu_quota(live: Live, asked: Limits) -> dict[str, Any]:
    """docker shows the one limit under the flag that set it: --cpus, or --cpu-quota and --cpu-period.

    Without a quota the period is read from the property: systemd writes it to the kernel only with a quota.
    """
    quota_setting = table.by_field("cpu_quota").setting(live.facts)
    period_setting = table.by_field("cpu_period").setting(live.facts)
    per_second = readback.read_kernel(quota_setting, live.path, live.facts)
    if not isinstance(per_second, int) or per_second == INFINITY:
        period = readback.systemd_value(period_setting, live.properties)
        kept = 0 if period in (None, INFINITY) or asked.nano_cpus else period
        return {"CpuPeriod": kept, "CpuQuota": -1 if asked.cpu_quota == -1 else 0, "NanoCpus": 0}
    period = readback.read_kernel(period_setting, live.path, live.facts)
    shown = 0 if _in_force(period_setting, live) == INFINITY else period
    if asked.nano_cpus:
        return {"CpuPeriod": 0, "CpuQuota": 0, "NanoCpus": per_second * 1000}
    quota = per_second * (period or _PERIOD) // 1_000_000
    return {"CpuPeriod": shown, "CpuQuota": quota, "NanoCpus": 0}
