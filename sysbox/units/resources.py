"""The one table of resource limits: which flag is which unit property and which cgroup file. Pure.

`docs/resources.md`, `sysbox explain`, `sysbox doctor` and `inspect` are made from TABLE. What a limit's
value becomes is `plan_limits`' to say; `plan_change` makes of two of its plans what a running scope
has to be told.
"""

from __future__ import annotations

from sysbox.frozen import Frozen
from sysbox.units.properties import INFINITY, CgroupWrite, Property, plan_limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.host import HostFacts
    from sysbox.spec import Limits


class Way(Frozen):
    """How one limit gets to the kernel in one version of cgroups."""

    property: str = ""  # as in a unit file and a drop-in ("CPUQuota"); "": there is none
    bus_name: str = ""  # the same on the bus ("CPUQuotaPerSecUSec")
    controller: str = ""
    file: str = ""  # in the scope's directory; {size} stands for a page size
    written: bool = False  # no property reaches the file: sysbox writes it
    available: bool = True  # else this version of cgroups has no such limit: see the note
    note: str = ""


class Resource(Frozen):
    """One limit: one field of Limits, one flag of `run` and `update`."""

    field: str  # of Limits
    flag: str
    inspect: str  # key of docker's HostConfig; "": docker has none
    v1: Way
    v2: Way
    live: bool = True  # `update` reaches a running container

    def way(self, facts: HostFacts) -> Way:
        """How it works on this host."""
        return self.v2 if facts.cgroup_mode == "v2" else self.v1


def _prop(name: str, controller: str, file: str, note: str = "", bus: str = "") -> Way:
    return Way(property=name, bus_name=bus or name, controller=controller, file=file, note=note)


def _written(controller: str, file: str, note: str = "") -> Way:
    return Way(controller=controller, file=file, written=True, note=note)


TABLE: tuple[Resource, ...] = (
    Resource(
        field="cpu_shares", flag="--cpu-shares", inspect="CpuShares",
        v1=_prop("CPUShares", "cpu", "cpu.shares"),
        v2=_prop("CPUWeight", "cpu", "cpu.weight", "shares × 100 / 1024"),
    ),
    Resource(
        field="nano_cpus", flag="--cpus", inspect="NanoCpus",
        v1=_prop("CPUQuota", "cpu", "cpu.cfs_quota_us", bus="CPUQuotaPerSecUSec"),
        v2=_prop("CPUQuota", "cpu", "cpu.max", bus="CPUQuotaPerSecUSec"),
    ),
    Resource(
        field="cpu_quota", flag="--cpu-quota", inspect="CpuQuota",
        v1=_prop("CPUQuota", "cpu", "cpu.cfs_quota_us", bus="CPUQuotaPerSecUSec"),
        v2=_prop("CPUQuota", "cpu", "cpu.max", bus="CPUQuotaPerSecUSec"),
    ),
    Resource(
        field="cpu_period", flag="--cpu-period", inspect="CpuPeriod",
        v1=_prop("CPUQuotaPeriodSec", "cpu", "cpu.cfs_period_us", bus="CPUQuotaPeriodUSec"),
        v2=_prop("CPUQuotaPeriodSec", "cpu", "cpu.max", bus="CPUQuotaPeriodUSec"),
    ),
    Resource(
        field="cpuset_cpus", flag="--cpuset-cpus", inspect="CpusetCpus",
        v1=_written("cpuset", "cpuset.cpus"),
        v2=_prop("AllowedCPUs", "cpuset", "cpuset.cpus"),
    ),
    Resource(
        field="cpuset_mems", flag="--cpuset-mems", inspect="CpusetMems",
        v1=_written("cpuset", "cpuset.mems"),
        v2=_prop("AllowedMemoryNodes", "cpuset", "cpuset.mems"),
    ),
    Resource(
        field="memory", flag="--memory", inspect="Memory",
        v1=_prop("MemoryLimit", "memory", "memory.limit_in_bytes"),
        v2=_prop("MemoryMax", "memory", "memory.max"),
    ),
    Resource(
        field="memory_swap", flag="--memory-swap", inspect="MemorySwap",
        v1=_written("memory", "memory.memsw.limit_in_bytes", "memory and swap together"),
        v2=_prop("MemorySwapMax", "memory", "memory.swap.max", "less --memory"),
    ),
    Resource(
        field="memory_reservation", flag="--memory-reservation", inspect="MemoryReservation",
        v1=_written("memory", "memory.soft_limit_in_bytes"),
        v2=_prop("MemoryLow", "memory", "memory.low"),
    ),
    Resource(
        field="pids", flag="--pids-limit", inspect="PidsLimit",
        v1=_prop("TasksMax", "pids", "pids.max"),
        v2=_prop("TasksMax", "pids", "pids.max"),
    ),
    Resource(
        field="blkio_weight", flag="--blkio-weight", inspect="BlkioWeight",
        v1=_prop("BlockIOWeight", "blkio", "blkio.bfq.weight", "or blkio.weight"),
        v2=_prop("IOWeight", "io", "io.weight", "weight × 100 / 500; io.bfq.weight"),
    ),
    Resource(
        field="device_read_bps", flag="--device-read-bps", inspect="BlkioDeviceReadBps",
        v1=_prop("BlockIOReadBandwidth", "blkio", "blkio.throttle.read_bps_device"),
        v2=_prop("IOReadBandwidthMax", "io", "io.max"),
    ),
    Resource(
        field="device_write_bps", flag="--device-write-bps", inspect="BlkioDeviceWriteBps",
        v1=_prop("BlockIOWriteBandwidth", "blkio", "blkio.throttle.write_bps_device"),
        v2=_prop("IOWriteBandwidthMax", "io", "io.max"),
    ),
)  # fmt: skip

_BY_FIELD = {one.field: one for one in TABLE}

# what a property has when nobody set it; of the others a list is emptied and a number is INFINITY,
# which systemd takes for "not set" as for "no limit"
_UNSET = {"MemoryLow": 0, "MemoryMin": 0, "AllowedCPUs": b"", "AllowedMemoryNodes": b""}
# what a written file has when nobody wrote it; "" is its parent's
_UNWRITTEN = {
    "cpuset.cpus": "",
    "cpuset.mems": "",
    "memory.memsw.limit_in_bytes": "-1",
    "memory.soft_limit_in_bytes": "-1",
}
_SWAP = "memory.memsw.limit_in_bytes"


def by_field(field: str) -> Resource:
    """The limit of one field of Limits."""
    return _BY_FIELD[field]


def unset(name: str, signature: str) -> Property:
    """The property (its name on the bus) as if nobody had set it."""
    value: Any = _UNSET.get(name, [] if signature.startswith("a") else INFINITY)
    return Property(name=name, signature=signature, value=value)


def plan_change(
    before: Limits, after: Limits, facts: HostFacts
) -> tuple[tuple[Property, ...], tuple[CgroupWrite, ...]]:
    """What a running scope has to be told so that `after` is in force where `before` was.

    Writes with `before` come ahead of the properties, the others after them. Raises SpecError for an
    `after` that cannot be.
    """
    old_properties, old_writes = plan_limits(before, facts)
    new_properties, new_writes = plan_limits(after, facts)
    had = {one.name: one for one in old_properties}
    kept = {one.name for one in new_properties}
    properties = [unset(one.name, one.signature) for one in old_properties if one.name not in kept]
    properties += [one for one in new_properties if had.get(one.name) != one]
    memory = before.memory or INFINITY
    return tuple(properties), change_writes(old_writes, new_writes, memory)


def change_writes(
    before: tuple[CgroupWrite, ...], after: tuple[CgroupWrite, ...], memory: int
) -> tuple[CgroupWrite, ...]:
    """What has to be written so that the values of `after` are in force; `memory` is the limit until now."""
    kept = {one.file for one in after}
    writes = [
        one.replace(value=_UNWRITTEN[one.file], inherit=not _UNWRITTEN[one.file])
        for one in before
        if one.file not in kept
    ]
    writes += [one for one in after if one not in before]
    return tuple(_in_order(one, memory) for one in writes)


def _in_order(one: CgroupWrite, memory: int) -> CgroupWrite:
    """Memory and swap together may never be below memory: raised first, lowered last."""
    if one.file != _SWAP:
        return one
    return one.replace(before=one.value == "-1" or int(one.value) >= memory)
