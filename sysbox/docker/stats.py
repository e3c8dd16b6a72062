"""One line of `sysbox stats`: docker's texts, sysbox's own, and the numbers behind them."""

from __future__ import annotations

import posix

from sysbox.base.frozen import Frozen
from sysbox.container.records import Traffic
from sysbox.docker.human import human_size
from sysbox.docker.ip_rules import by_name
from sysbox.units.cgroup.usage import CgroupUsage, DeviceUsage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.container.records import Usage

COLUMNS = (
    ("CONTAINER ID", "ID"),
    ("NAME", "Name"),
    ("CPU %", "CPUPerc"),
    ("MEM USAGE / LIMIT", "MemUsage"),
    ("MEM %", "MemPerc"),
    ("NET I/O", "NetIO"),
    ("BLOCK I/O", "BlockIO"),
    ("PIDS", "PIDs"),
)
HEADERS = {
    **{key: header for header, key in COLUMNS},
    "Container": "CONTAINER",
    "CPUTime": "CPU TIME",
    "Devices": "DEVICES",
    "IPIO": "IP I/O",
    "LimitedBy": "LIMITED BY",
    "MemCache": "CACHE",
    "MemLimit": "LIMIT",
    "MemTotal": "MEM + CACHE",
    "PIDsLimit": "PIDS LIMIT",
    "Pressure": "PRESSURE",
    "Swap": "SWAP",
    "Throttled": "THROTTLED",
}
_UNKNOWN = "--"
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
# as docker shows a container that does not run
NOT_COUNTED = Traffic()
NOTHING = CgroupUsage(cpu_ns=0, memory=0, cache=0, memory_limit=0, swap=0, pids=0, devices=())


class Shown(Frozen):
    """The values of one line."""

    id: str  # of a container; "" for another unit
    name: str
    given: str  # the name or id that the user gave
    usage: CgroupUsage
    percent: float | None  # of one CPU; None is unknown
    network: tuple[int, int] | None  # bytes received and sent
    traffic: Traffic = NOT_COUNTED


def row(shown: Shown, *, full: bool, details: bool) -> dict[str, Any]:
    """Texts by the names that columns and templates use; with `details`, sysbox's own too."""
    usage = shown.usage
    received, sent = shown.network or (-1, -1)
    texts: dict[str, Any] = {
        "Container": shown.given,
        "ID": shown.id if full else shown.id[:12],
        "Name": shown.name,
        "CPUPerc": _UNKNOWN if shown.percent is None else f"{shown.percent:.2f}%",
        "MemUsage": f"{binary_size(usage.working_set)} / {binary_size(usage.memory_limit)}",
        "MemPerc": _share(usage.working_set, usage.memory_limit),
        "NetIO": _pair(received, sent),
        "BlockIO": _pair(usage.io.read_bytes, usage.io.written_bytes),
        "PIDs": _number(usage.pids),
    }
    return texts | _further(shown) if details else texts


def _further(shown: Shown) -> dict[str, Any]:
    usage = shown.usage
    pressure = [f"{one.resource} {one.some:.2f}%" for one in usage.pressure]
    devices = [
        f"{_device(one)} {_pair(one.read_bytes, one.written_bytes)}" for one in usage.devices or ()
    ]
    return {
        "CPUTime": _seconds(usage.cpu_ns),
        "Devices": ", ".join(devices) or _UNKNOWN,
        "IPIO": _pair(shown.traffic.received, shown.traffic.sent),
        "LimitedBy": usage.limited_by or "host",
        "MemCache": binary_size(usage.cache),
        "MemLimit": binary_size(usage.memory_limit),
        "MemTotal": binary_size(usage.memory),
        "PIDsLimit": "max" if usage.pids_limit < 0 else str(usage.pids_limit),
        "Pressure": ", ".join(pressure) or _UNKNOWN,
        "Swap": binary_size(usage.swap),
        "Throttled": _throttled(usage),
        "Sysbox": _numbers(shown),
    }


def _numbers(shown: Shown) -> dict[str, Any]:
    """The values as numbers, under systemd's names where it has one; null is unknown."""
    usage = shown.usage
    numbers = {
        "CPUUsageNSec": usage.cpu_ns,
        "CPUPeriods": usage.periods,
        "CPUThrottledPeriods": usage.throttled_periods,
        "CPUThrottledNSec": usage.throttled_ns,
        "MemoryCurrent": usage.memory,
        "MemoryCache": usage.cache,
        "MemoryWorkingSet": usage.working_set,
        "MemoryLimit": usage.memory_limit,
        "MemorySwapCurrent": usage.swap,
        "TasksCurrent": usage.pids,
        "TasksLimit": usage.pids_limit,
        "IOReadBytes": usage.io.read_bytes,
        "IOWriteBytes": usage.io.written_bytes,
        "IOReadOperations": usage.io.reads,
        "IOWriteOperations": usage.io.writes,
    }
    received, sent = shown.network or (None, None)
    return {
        **{
            name: None if number < 0 else number
            for name, number in (numbers | by_name(shown.traffic)).items()
        },
        "MemoryLimitedBy": usage.limited_by,
        "NetworkReceivedBytes": received,
        "NetworkSentBytes": sent,
        "Devices": [_device_numbers(one) for one in usage.devices or ()],
        "Pressure": {
            one.resource: {"Some": one.some, "Full": one.full, "StalledUSec": one.stalled_us}
            for one in usage.pressure
        },
    }


def _device_numbers(usage: DeviceUsage) -> dict[str, Any]:
    return {
        "Device": usage.device,
        "Name": _device(usage),
        "ReadBytes": usage.read_bytes,
        "WrittenBytes": usage.written_bytes,
        "Reads": usage.reads,
        "Writes": usage.writes,
    }


def report(usage: Usage) -> dict[str, str]:
    """The fields of `ps --format` for what a run has used."""
    return {
        "CPUTime": _seconds(usage.cpu_ns),
        "MemPeak": binary_size(usage.memory_peak),
        "BlockRead": _UNKNOWN if usage.read_bytes < 0 else human_size(usage.read_bytes),
        "BlockWritten": _UNKNOWN if usage.written_bytes < 0 else human_size(usage.written_bytes),
    }


def binary_size(size: float) -> str:
    """ "12.34MiB": binary units, four significant figures, as docker shows memory; "--" is unknown."""
    if size < 0:
        return _UNKNOWN
    for unit in _BINARY:
        if size < 1024 or unit == _BINARY[-1]:
            break
        size /= 1024
    return f"{size:.4g}{unit}"


def _pair(one: int, other: int) -> str:
    return _UNKNOWN if one < 0 or other < 0 else f"{human_size(one)} / {human_size(other)}"


def _number(number: int) -> str:
    return _UNKNOWN if number < 0 else str(number)


def _share(part: int, whole: int) -> str:
    if part < 0 or whole < 0:
        return _UNKNOWN
    return f"{part / whole * 100 if whole else 0:.2f}%"


def _seconds(ns: int) -> str:
    return _UNKNOWN if ns < 0 else f"{ns / 1e9:.3f}s"


def _throttled(usage: CgroupUsage) -> str:
    """ "1.250s (25 of 100 periods)"; without a quota there are no periods."""
    if usage.periods <= 0:
        return _UNKNOWN
    return f"{_seconds(usage.throttled_ns)} ({usage.throttled_periods} of {usage.periods} periods)"


_names: dict[str, str] = {}


def _device(usage: DeviceUsage) -> str:
    """The name of a block device, as below /dev; its MAJOR:MINOR where it no longer exists."""
    if usage.device not in _names:
        try:
            link = posix.readlink(f"/sys/dev/block/{usage.device}")
            _names[usage.device] = link.rpartition("/")[2]
        except OSError:
            return usage.device
    return _names[usage.device]
