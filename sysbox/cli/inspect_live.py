"""The limits of a running container as they are now: from systemd's properties, and the cgroup's files.

Whoever ran `systemctl set-property` sees it in `inspect` at once, since nothing here is remembered.
"""

from __future__ import annotations

from sysbox import scope
from sysbox.errors import SysboxError
from sysbox.host import probe, read_text
from sysbox.linux import cgroup
from sysbox.units import names
from sysbox.units.bus import Bus
from sysbox.units.cgroups import cgroup_path
from sysbox.units.properties import INFINITY, plan_limits, shares_of_weight

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.host import HostFacts
    from sysbox.state import Record

_COMMON = ("ControlGroup", "Slice", "TasksMax", "CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec")
_V1 = (
    "CPUShares",
    "BlockIOWeight",
    "BlockIOReadBandwidth",
    "BlockIOWriteBandwidth",
)
_V2 = ("CPUWeight", "IOWeight", "IOReadBandwidthMax", "IOWriteBandwidthMax")
_PERIOD = 100_000  # microseconds, the kernel's default
_V1_INFINITY = 0x7FFFFFFFFFFFF000  # what a v1 memory file reads without a limit (4 KiB pages)


def live_limits(record: Record, pid: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """(HostConfig entries, the `Sysbox` entry) of a running container.

    Both are empty when systemd cannot be asked or the container has just gone.
    """
    facts = probe()
    unit = names.scope_unit(record.id)
    try:
        bus = Bus.connect()
        try:
            # the names of v1 are asked for on v2 too: systemd up to 257 translates what is set by them
            wanted = _COMMON + _V1 + (_V2 if facts.cgroup_mode == "v2" else ())
            found = scope.properties(bus, unit, scope.INTERFACES[".scope"], wanted)
        finally:
            bus.close()
        path = cgroup_path(pid, facts)
    except (SysboxError, KeyError):
        return {}, {}
    if facts.cgroup_mode == "v2":
        config = _v2(found, facts.controllers["name=systemd"] + found["ControlGroup"])
    else:
        config = _v1(found, facts, path)
    config |= _cpu_quota(found, in_cpus=bool(record.spec.limits.nano_cpus))
    config["PidsLimit"] = _limit(found.get("TasksMax")) or None
    _, writes = plan_limits(record.spec.limits, facts)
    own = {
        "Scope": unit,
        "ControlGroup": found.get("ControlGroup", path),
        "Slice": found.get("Slice", ""),
        # these have no systemd property: sysbox itself wrote them
        "WrittenDirectly": [f"{one.controller}/{one.file}={one.value}" for one in writes],
    }
    return config, own


def _limit(value: Any) -> int:
    """docker's spelling: 0 is no limit."""
    return 0 if value is None or value == INFINITY else int(value)


def _cpu_quota(found: dict[str, Any], *, in_cpus: bool) -> dict[str, Any]:
    """docker shows the one limit under the flag that set it: --cpus, or --cpu-quota and --cpu-period."""
    per_second = _limit(found.get("CPUQuotaPerSecUSec"))
    period = _limit(found.get("CPUQuotaPeriodUSec"))
    if in_cpus:
        return {"CpuPeriod": 0, "CpuQuota": 0, "NanoCpus": per_second * 1000}
    quota = per_second * (period or _PERIOD) // 1_000_000
    return {"CpuPeriod": period, "CpuQuota": quota, "NanoCpus": 0}


def _rates(devices: Any) -> list[dict[str, Any]]:
    return [{"Path": path, "Rate": rate} for path, rate in devices or ()]


def _v1(found: dict[str, Any], facts: HostFacts, path: str) -> dict[str, Any]:
    def file(controller: str, name: str) -> str:
        try:
            directory = cgroup.directory(facts, controller, path)
        except SysboxError:
            return ""
        return read_text(f"{directory}/{name}").strip()

    def size(name: str) -> int:
        text = file("memory", name)
        return int(text) if text.isdigit() and int(text) < _V1_INFINITY else 0

    return {
        "CpuShares": _limit(found.get("CPUShares")),
        "Memory": size("memory.limit_in_bytes"),
        "MemorySwap": size("memory.memsw.limit_in_bytes"),
        "MemoryReservation": size("memory.soft_limit_in_bytes"),
        "BlkioWeight": _limit(found.get("BlockIOWeight")),
        "BlkioDeviceReadBps": _rates(found.get("BlockIOReadBandwidth")),
        "BlkioDeviceWriteBps": _rates(found.get("BlockIOWriteBandwidth")),
        "CpusetCpus": file("cpuset", "cpuset.cpus"),
        "CpusetMems": file("cpuset", "cpuset.mems"),
    }


def _v2(found: dict[str, Any], directory: str) -> dict[str, Any]:
    def file(name: str) -> str:
        return read_text(f"{directory}/{name}").strip()

    def size(name: str) -> int:
        text = file(name)
        return int(text) if text.isdigit() else 0

    def rates(new: str, old: str) -> list[dict[str, Any]]:
        return _rates(found.get(new) or found.get(old))

    memory, swap = size("memory.max"), file("memory.swap.max")
    weight, io_weight = _limit(found.get("CPUWeight")), _limit(found.get("IOWeight"))
    return {
        "CpuShares": shares_of_weight(weight) if weight else _limit(found.get("CPUShares")),
        "Memory": memory,
        "MemorySwap": 0 if not memory else memory + int(swap) if swap.isdigit() else -1,
        "MemoryReservation": size("memory.low"),
        "BlkioWeight": io_weight * 500 // 100 or _limit(found.get("BlockIOWeight")),
        "BlkioDeviceReadBps": rates("IOReadBandwidthMax", "BlockIOReadBandwidth"),
        "BlkioDeviceWriteBps": rates("IOWriteBandwidthMax", "BlockIOWriteBandwidth"),
        "CpusetCpus": file("cpuset.cpus"),
        "CpusetMems": file("cpuset.mems"),
    }
