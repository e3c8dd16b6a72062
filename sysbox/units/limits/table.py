"""The table of resource limits: for each flag its unit property and its cgroup file. Pure.

`docs/resources.md`, `sysbox explain`, `sysbox doctor` and `inspect` are made from TABLE. `plan_limits`
converts a limit's value; `change_writes` compares the writes of two plans and returns those that change a
running scope.
"""

from __future__ import annotations

from sysbox.base.frozen import Frozen
from sysbox.units.limits.properties import INFINITY, CgroupWrite, Property, everything

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.host import HostFacts


FILTER = "unified"  # `controller` of a setting that is BPF programs on a scope's cgroup, no file


class Setting(Frozen):
    """How one limit is set in one version of cgroups."""

    property: str = ""  # as in a unit file and a drop-in ("CPUQuota"); "" for none
    bus_name: str = ""  # the same on the bus ("CPUQuotaPerSecUSec")
    controller: str = ""
    file: str = ""  # in the scope's directory; {size} stands for a page size
    written: bool = False  # no property sets the file: sysbox writes it
    available: bool = True  # False: this version of cgroups has no such limit, see `note`
    note: str = ""


class Resource(Frozen):
    """One limit: one field of Limits, one flag of `run` and `update`."""

    field: str  # of Limits
    flag: str
    inspect: str  # key of docker's HostConfig; "" for none
    v1: Setting
    v2: Setting
    live: bool = True  # `update` changes it in a running container

    def setting(self, facts: HostFacts) -> Setting:
        """How this host sets the limit."""
        return self.v2 if facts.cgroup_mode == "v2" else self.v1


def _prop(name: str, controller: str, file: str, note: str = "", bus: str = "") -> Setting:
    return Setting(property=name, bus_name=bus or name, controller=controller, file=file, note=note)


def _written(controller: str, file: str, note: str = "") -> Setting:
    return Setting(controller=controller, file=file, written=True, note=note)


def _no(note: str) -> Setting:
    return Setting(available=False, note=note)


_WHOLE_PERCENTS = "rounded up to whole percents, as systemd keeps it"
_WHOLE_DISK = "the limit is the whole disk's, whatever path on it is named"
_NEEDS_BFQ = "needs BFQ on that disk"
_OWN_CGROUP = "systemd has no cgroups there: sysbox makes the container's"
_BPF = "BPF programs on the unified hierarchy; with --network host too"
_AT_CREATION = "from the next start on: systemd accepts it only for a new scope"

TABLE: tuple[Resource, ...] = (
    Resource(
        field="cpu_shares", flag="--cpu-shares", inspect="CpuShares",
        v1=_prop("CPUShares", "cpu", "cpu.shares"),
        v2=_prop("CPUWeight", "cpu", "cpu.weight", "shares × 100 / 1024, from 1 to 10000"),
    ),
    Resource(
        field="cpu_idle", flag="--cpu-idle", inspect="",
        v1=_written("cpu", "cpu.idle", "Linux 5.15; instead of shares"),
        v2=_prop("CPUWeight", "cpu", "cpu.idle", "CPUWeight=idle: systemd 252; instead of shares"),
    ),
    Resource(
        field="nano_cpus", flag="--cpus", inspect="NanoCpus",
        v1=_prop("CPUQuota", "cpu", "cpu.cfs_quota_us", _WHOLE_PERCENTS, "CPUQuotaPerSecUSec"),
        v2=_prop("CPUQuota", "cpu", "cpu.max", _WHOLE_PERCENTS, "CPUQuotaPerSecUSec"),
    ),
    Resource(
        field="cpu_quota", flag="--cpu-quota", inspect="CpuQuota",
        v1=_prop("CPUQuota", "cpu", "cpu.cfs_quota_us", _WHOLE_PERCENTS, "CPUQuotaPerSecUSec"),
        v2=_prop("CPUQuota", "cpu", "cpu.max", _WHOLE_PERCENTS, "CPUQuotaPerSecUSec"),
    ),
    Resource(
        field="cpu_period", flag="--cpu-period", inspect="CpuPeriod",
        v1=_prop("CPUQuotaPeriodSec", "cpu", "cpu.cfs_period_us", bus="CPUQuotaPeriodUSec"),
        v2=_prop("CPUQuotaPeriodSec", "cpu", "cpu.max", bus="CPUQuotaPeriodUSec"),
    ),
    Resource(
        field="cpuset_cpus", flag="--cpuset-cpus", inspect="CpusetCpus",
        v1=_written("cpuset", "cpuset.cpus", _OWN_CGROUP),
        v2=_prop("AllowedCPUs", "cpuset", "cpuset.cpus"),
    ),
    Resource(
        field="cpuset_mems", flag="--cpuset-mems", inspect="CpusetMems",
        v1=_written("cpuset", "cpuset.mems", _OWN_CGROUP),
        v2=_prop("AllowedMemoryNodes", "cpuset", "cpuset.mems"),
    ),
    Resource(
        field="memory", flag="--memory", inspect="Memory",
        v1=_prop("MemoryLimit", "memory", "memory.limit_in_bytes"),
        v2=_prop("MemoryMax", "memory", "memory.max"),
    ),
    Resource(
        field="memory_swap", flag="--memory-swap", inspect="MemorySwap",
        v1=_written("memory", "memory.memsw.limit_in_bytes", "needs swap accounting"),
        v2=_prop("MemorySwapMax", "memory", "memory.swap.max", "swap alone: less --memory"),
    ),
    Resource(
        field="memory_reservation", flag="--memory-reservation", inspect="MemoryReservation",
        v1=_written("memory", "memory.soft_limit_in_bytes"),
        v2=_prop("MemoryLow", "memory", "memory.low"),
    ),
    Resource(
        field="memory_high", flag="--memory-high", inspect="",
        v1=_no("use --memory, or --memory-reservation to be reclaimed first"),
        v2=_prop("MemoryHigh", "memory", "memory.high"),
    ),
    Resource(
        field="memory_min", flag="--memory-min", inspect="",
        v1=_no("use --memory-reservation"),
        v2=_prop("MemoryMin", "memory", "memory.min", "no more than its slice has"),
    ),
    Resource(
        field="memory_swappiness", flag="--memory-swappiness", inspect="MemorySwappiness",
        v1=_written("memory", "memory.swappiness"),
        v2=_no("use --memory-swap, or vm.swappiness of the host"),
    ),
    Resource(
        field="oom_kill_disable", flag="--oom-kill-disable", inspect="OomKillDisable",
        v1=_written("memory", "memory.oom_control", "its processes then wait for memory"),
        v2=_no("use --memory-high, and --oom-policy"),
    ),
    Resource(
        field="oom_policy", flag="--oom-policy", inspect="", live=False,
        v1=_prop("OOMPolicy", "memory", "", _AT_CREATION + "; sysbox acts on it, systemd learns of no kill"),
        v2=_prop("OOMPolicy", "memory", "memory.oom.group", _AT_CREATION),
    ),
    Resource(
        field="pids", flag="--pids-limit", inspect="PidsLimit",
        v1=_prop("TasksMax", "pids", "pids.max"),
        v2=_prop("TasksMax", "pids", "pids.max"),
    ),
    Resource(
        field="blkio_weight", flag="--blkio-weight", inspect="BlkioWeight",
        v1=_prop("BlockIOWeight", "blkio", "blkio.bfq.weight", "systemd narrows 10..1000 to 10..181"),
        v2=_prop("IOWeight", "io", "io.bfq.weight", "weight × 100 / 500; io.weight with a cost model"),
    ),
    Resource(
        field="blkio_weight_device", flag="--blkio-weight-device", inspect="BlkioWeightDevice",
        v1=_written("blkio", "blkio.bfq.weight_device", _NEEDS_BFQ + "; narrowed alike"),
        v2=_prop("IODeviceWeight", "io", "io.bfq.weight", _NEEDS_BFQ + ", or a cost model (io.weight)"),
    ),
    Resource(
        field="device_read_bps", flag="--device-read-bps", inspect="BlkioDeviceReadBps",
        v1=_prop("BlockIOReadBandwidth", "blkio", "blkio.throttle.read_bps_device", _WHOLE_DISK),
        v2=_prop("IOReadBandwidthMax", "io", "io.max", _WHOLE_DISK),
    ),
    Resource(
        field="device_write_bps", flag="--device-write-bps", inspect="BlkioDeviceWriteBps",
        v1=_prop("BlockIOWriteBandwidth", "blkio", "blkio.throttle.write_bps_device", _WHOLE_DISK),
        v2=_prop("IOWriteBandwidthMax", "io", "io.max", _WHOLE_DISK),
    ),
    Resource(
        field="device_read_iops", flag="--device-read-iops", inspect="BlkioDeviceReadIOps",
        v1=_written("blkio", "blkio.throttle.read_iops_device", _WHOLE_DISK),
        v2=_prop("IOReadIOPSMax", "io", "io.max", _WHOLE_DISK),
    ),
    Resource(
        field="device_write_iops", flag="--device-write-iops", inspect="BlkioDeviceWriteIOps",
        v1=_written("blkio", "blkio.throttle.write_iops_device", _WHOLE_DISK),
        v2=_prop("IOWriteIOPSMax", "io", "io.max", _WHOLE_DISK),
    ),
    Resource(
        field="device_rules", flag="--device-cgroup-rule", inspect="DeviceCgroupRules", live=False,
        v1=_prop("DeviceAllow", "devices", "devices.list", "from the next start on"),
        v2=_prop("DeviceAllow", "devices", "", "a BPF program; from the next start on"),
    ),
    Resource(
        field="net_cls", flag="--net-cls", inspect="",
        v1=_written("net_cls", "net_cls.classid", _OWN_CGROUP),
        v2=_no("match the cgroup: nft `socket cgroupv2`, iptables `-m cgroup --path`, or tc on its veth"),
    ),
    Resource(
        field="hugetlb", flag="--hugetlb", inspect="",
        v1=_written("hugetlb", "hugetlb.{size}.limit_in_bytes", _OWN_CGROUP),
        v2=_written("hugetlb", "hugetlb.{size}.max", "systemd does not know the controller"),
    ),
    *(
        Resource(
            field=field, flag=f"--{field.replace('_', '-')}", inspect="",
            v1=_prop(name, FILTER, "", _BPF), v2=_prop(name, FILTER, "", _BPF),
        )
        for field, name in (
            ("ip_allow", "IPAddressAllow"),
            ("ip_deny", "IPAddressDeny"),
            ("ip_accounting", "IPAccounting"),
        )
    ),
)  # fmt: skip

_BY_FIELD = {one.field: one for one in TABLE}

# a property's value when nobody set it. Of the others a list becomes empty, and a number INFINITY, which
# systemd takes for "not set" and for "no limit". A mask of CPUs or nodes gets all bits: systemd does not
# write an empty one to the kernel, which would refuse it while the cgroup has processes
_UNSET = {"MemoryLow": 0, "MemoryMin": 0}
# a written file's value when nobody wrote it; "" is its parent's
_UNWRITTEN = {
    "cpu.idle": "0",
    "cpuset.cpus": "",
    "cpuset.mems": "",
    "memory.memsw.limit_in_bytes": "-1",
    "memory.soft_limit_in_bytes": "-1",
    "memory.swappiness": "",
    "memory.oom_control": "0",
    "net_cls.classid": "0",
}
_OF_A_DEVICE = "_device"
_UNWRITTEN_DEVICE = {"blkio.bfq.weight_device": "default"}  # in the other files 0 is no limit
_SWAP = "memory.memsw.limit_in_bytes"


def by_field(field: str) -> Resource:
    """The limit of one field of Limits."""
    return _BY_FIELD[field]


def writes_to(setting: Setting, write: CgroupWrite) -> bool:
    """Whether the write sets the limit's file."""
    before, size, after = setting.file.partition("{size}")
    if size:
        return write.file.startswith(before) and write.file.endswith(after)
    return (write.controller, write.file) == (setting.controller, setting.file)


def unset(name: str, signature: str, facts: HostFacts) -> Property:
    """The property `name` (D-Bus name) with the value it has when nobody set it."""
    value: Any = False if signature == "b" else everything(name, facts)
    if value is None:
        value = _UNSET.get(name, [] if signature.startswith("a") else INFINITY)
    return Property(name=name, signature=signature, value=value)


def change_writes(
    before: tuple[CgroupWrite, ...], after: tuple[CgroupWrite, ...], memory: int
) -> tuple[CgroupWrite, ...]:
    """The writes that replace the values of `before` by those of `after`; `memory` is the limit until now.

    A write whose field `before` is set must be made before the properties change, the others after.
    """
    kept = {_place(one) for one in after}
    writes = [_unwritten(one) for one in before if _place(one) not in kept]
    # the kernel drops the weights of devices when the scope's own is set, so they are written again
    writes += [one for one in after if one not in before or one.file in _UNWRITTEN_DEVICE]
    return tuple(_in_order(one, memory) for one in writes)


def _place(one: CgroupWrite) -> tuple[str, str]:
    """What a write sets, and a later write to the same place replaces: a file, or a device's line of it."""
    device = one.value.partition(" ")[0] if one.file.endswith(_OF_A_DEVICE) else ""
    return one.file, device


def _unwritten(one: CgroupWrite) -> CgroupWrite:
    """The write that resets what `one` has set."""
    file, device = _place(one)
    if device:
        return one.replace(value=f"{device} {_UNWRITTEN_DEVICE.get(file, '0')}")
    if file.startswith("hugetlb."):
        return one.replace(value="max" if file.endswith(".max") else "-1")
    value = _UNWRITTEN[file]
    # the kernel refuses a weight while cpu.idle is set: reset it before the properties
    return one.replace(value=value, inherit=not value, before=file == "cpu.idle")


def _in_order(one: CgroupWrite, memory: int) -> CgroupWrite:
    """The kernel refuses memory and swap together below memory: raise that limit first, lower it last."""
    if one.file != _SWAP:
        return one
    return one.replace(before=one.value == "-1" or int(one.value) >= memory)
