"""Read what a cgroup uses now, and what a run has used, from the cgroup's files. Writes nothing.

The files: cgroups(7), the kernel's admin-guide/cgroup-v1/ (cpuacct, memory, blkio-controller) and
admin-guide/cgroup-v2. A hybrid host has a unified tree without controllers beside those of v1: it still
counts CPU time and pressure, and has a cgroup for every unit.
"""

from __future__ import annotations

import posix

from sysbox.base.frozen import Frozen
from sysbox.container.records import Usage
from sysbox.host import read_text
from sysbox.units.cgroup.files import BFQ_BYTES, THROTTLE_BYTES, report_files, unified_mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.host import HostFacts

UNKNOWN = -1
_CHUNK = 1 << 16
_RESOURCES = ("cpu", "memory", "io")
_NO_LIMIT = 1 << 62  # v1 shows "no limit" as more (a multiple of the page size below 2^63)
_THROTTLE_COUNT = "blkio.throttle.io_serviced_recursive"
_BFQ_COUNT = "blkio.bfq.io_serviced_recursive"


class DeviceUsage(Frozen):
    """Block I/O with one device."""

    device: str  # "major:minor"
    read_bytes: int = 0
    written_bytes: int = 0
    reads: int = 0
    writes: int = 0


class Pressure(Frozen):
    """Share of the last 10 s in which some, or all, processes waited for one resource (PSI), in percent."""

    resource: str  # cpu, memory, io
    some: float
    full: float
    stalled_us: int  # total of `some` since the cgroup exists, microseconds


class CgroupUsage(Frozen):
    """One reading of a cgroup, including all cgroups below it; -1 is unknown."""

    cpu_ns: int = UNKNOWN  # CPU time since it exists
    periods: int = UNKNOWN  # of the CPU quota
    throttled_periods: int = UNKNOWN  # those in which the quota was used up
    throttled_ns: int = UNKNOWN
    memory: int = UNKNOWN  # bytes, page cache included
    cache: int = UNKNOWN  # bytes of inactive page cache, which docker leaves out
    memory_limit: int = UNKNOWN  # bytes: the smallest of its own, its ancestors', the host's memory
    limited_by: str = ""  # the cgroup that has this limit; "" is the host
    swap: int = UNKNOWN  # bytes
    pids: int = UNKNOWN
    pids_limit: int = UNKNOWN  # the smallest of its own and its ancestors'; -1 is no limit
    devices: tuple[DeviceUsage, ...] | None = None
    pressure: tuple[Pressure, ...] = ()  # empty where the kernel keeps none

    @property
    def working_set(self) -> int:
        """Bytes of memory as docker counts them: without inactive page cache; -1 is unknown."""
        if self.memory < 0:
            return UNKNOWN
        return self.memory - self.cache if 0 <= self.cache < self.memory else self.memory

    @property
    def io(self) -> DeviceUsage:
        """The sum of all devices; all values are -1 if it is unknown."""
        if self.devices is None:
            return DeviceUsage(device="", read_bytes=-1, written_bytes=-1, reads=-1, writes=-1)
        return DeviceUsage(
            device="",
            read_bytes=sum(one.read_bytes for one in self.devices),
            written_bytes=sum(one.written_bytes for one in self.devices),
            reads=sum(one.reads for one in self.devices),
            writes=sum(one.writes for one in self.devices),
        )


class Reader:
    """Reads many cgroups at one moment: the limits of ancestors that they share are read once."""

    def __init__(self, facts: HostFacts) -> None:
        self._v2 = facts.cgroup_mode == "v2"
        self._mounts = facts.controllers
        self._unified = unified_mount(facts)
        self._limits: dict[str, tuple[int, str]] = {}  # file and cgroup -> smallest limit, whose
        self._total = host_memory()
        self._bfq = bool(parse_blkio(self._v1("blkio", "", BFQ_BYTES) or ""))

    def cpu_ns(self, path: str) -> int:
        """CPU time since the cgroup exists, in ns; -1 when it is gone."""
        if self._unified:
            micro = parse_flat_keyed(_read(f"{self._unified}{path}/cpu.stat")).get("usage_usec")
            if micro is not None:
                return micro * 1000
        return _number(self._v1("cpuacct", path, "cpuacct.usage"))

    def has_quota(self, path: str) -> bool:
        """Whether a CPU quota, its own or an ancestor's, may throttle it for most of a period."""
        file = "cpu.max" if self._v2 else "cpu.cfs_quota_us"
        return self._smallest("cpu", path, file)[0] >= 0

    def brief(self, path: str) -> CgroupUsage:
        """What docker shows, without CPU time; all unknown when the cgroup is gone."""
        values = self._memory(path)
        limit = values.pop("limit", UNKNOWN)
        if limit < 0:
            limit = self._memory_limit(path)[0]
        return CgroupUsage(
            memory_limit=min(limit, self._total),
            pids=_number(self._file("pids", path, "pids.current")),
            devices=self._devices(path, counts=False),
            **values,
        )

    def read(self, path: str) -> CgroupUsage:
        """Everything about one cgroup; all unknown when it is gone."""
        values = self._memory(path) | self._cpu(path)
        values.pop("limit", 0)
        limit, by = self._memory_limit(path)
        return CgroupUsage(
            memory_limit=limit,
            limited_by=by,
            pids=_number(self._file("pids", path, "pids.current")),
            pids_limit=self._smallest("pids", path, "pids.max")[0],
            devices=self._devices(path, counts=True),
            pressure=self._pressure(path),
            **values,
        )

    def _v1(self, controller: str, path: str, file: str) -> str | None:
        mount = self._mounts.get(controller)
        return None if mount is None or self._v2 else _read(f"{mount}{path}/{file}")

    def _file(self, controller: str, path: str, file: str) -> str | None:
        mount = self._mounts.get(controller)
        return None if mount is None else _read(f"{mount}{path}/{file}")

    def _cpu(self, path: str) -> dict[str, Any]:
        stat = parse_flat_keyed(self._file("cpu", path, "cpu.stat"))
        in_us = stat.get("throttled_usec", -1)
        return {
            "cpu_ns": stat["usage_usec"] * 1000 if "usage_usec" in stat else self.cpu_ns(path),
            "periods": stat.get("nr_periods", UNKNOWN),
            "throttled_periods": stat.get("nr_throttled", UNKNOWN),
            "throttled_ns": in_us * 1000 if in_us >= 0 else stat.get("throttled_time", UNKNOWN),
        }

    def _memory(self, path: str) -> dict[str, Any]:
        stat = self._file("memory", path, "memory.stat") or ""
        if self._v2:
            return {
                "memory": _number(self._file("memory", path, "memory.current")),
                "cache": _field(stat, "inactive_file"),
                "swap": _number(self._file("memory", path, "memory.swap.current")),
            }
        return {
            "memory": _number(self._file("memory", path, "memory.usage_in_bytes")),
            "cache": _field(stat, "total_inactive_file"),
            "swap": _field(stat, "total_swap"),
            "limit": _field(stat, "hierarchical_memory_limit"),
        }

    def _memory_limit(self, path: str) -> tuple[int, str]:
        file = "memory.max" if self._v2 else "memory.limit_in_bytes"
        limit, by = self._smallest("memory", path, file)
        return (limit, by) if 0 <= limit <= self._total else (self._total, "")

    def _smallest(self, controller: str, path: str, file: str) -> tuple[int, str]:
        """The smallest limit of a cgroup and its ancestors, and which of them has it; (-1, "") for none."""
        key = f"{file}:{path}"
        known = self._limits.get(key)
        if known is not None:
            return known
        words = (self._file(controller, path, file) or "").split()
        own = int(words[0]) if words and words[0].isdigit() else UNKNOWN
        found = (own, path or "/") if 0 <= own < _NO_LIMIT else (UNKNOWN, "")
        if path:
            above = self._smallest(controller, path.rpartition("/")[0], file)
            if found[0] < 0 or 0 <= above[0] < found[0]:
                found = above
        self._limits[key] = found
        return found

    def _devices(self, path: str, *, counts: bool) -> tuple[DeviceUsage, ...] | None:
        if self._v2:
            text = self._file("io", path, "io.stat")
            return None if text is None else parse_io_stat(text)
        files = (THROTTLE_BYTES, _THROTTLE_COUNT)
        in_bytes = self._v1("blkio", path, files[0])
        if in_bytes is None:
            return None
        if self._bfq and not _by_device(in_bytes):
            # some kernels count I/O without a limit only in the scheduler's files
            files = (BFQ_BYTES, _BFQ_COUNT)
            in_bytes = self._v1("blkio", path, files[0]) or ""
        operations = self._v1("blkio", path, files[1]) if counts else None
        return parse_blkio(in_bytes, operations or "")

    def _pressure(self, path: str) -> tuple[Pressure, ...]:
        if not self._unified:
            return ()
        texts = ((one, _read(f"{self._unified}{path}/{one}.pressure")) for one in _RESOURCES)
        return tuple(parse_pressure(one, text) for one, text in texts if text)


def _read(path: str) -> str | None:
    """The text of a small kernel file; None if it is missing, or its cgroup is gone."""
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = posix.read(fd, _CHUNK)
        while len(data) % _CHUNK == 0 and (more := posix.read(fd, _CHUNK)):
            data += more
    except OSError:
        return None
    finally:
        posix.close(fd)
    return data.decode("ascii", "replace")


def _number(text: str | None) -> int:
    text = text.strip() if text else ""
    return int(text) if text.isdigit() else UNKNOWN


def _field(text: str, name: str) -> int:
    """One number of a long "flat keyed" file, found without parsing the other lines."""
    start = text.find(f"\n{name} ")
    return _number(text[start + len(name) + 2 :].partition("\n")[0]) if start >= 0 else UNKNOWN


def parse_flat_keyed(text: str | None) -> dict[str, int]:
    """The numbers of a "flat keyed" file by name: lines NAME NUMBER."""
    found = {}
    for line in (text or "").splitlines():
        name, _, number = line.partition(" ")
        if number.isdigit():
            found[name] = int(number)
    return found


def host_memory() -> int:
    """Bytes of memory of the host, from proc_meminfo(5); -1 if that cannot be read."""
    for line in read_text("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) << 10
    return UNKNOWN


def parse_io_stat(text: str) -> tuple[DeviceUsage, ...]:
    """v2: lines `8:0 rbytes=N wbytes=N rios=N wios=N dbytes=N dios=N`."""
    found = []
    for line in text.splitlines():
        device, _, rest = line.partition(" ")
        values = dict(part.split("=", 1) for part in rest.split() if "=" in part)
        if "rbytes" in values:
            found.append(
                DeviceUsage(
                    device=device,
                    read_bytes=int(values["rbytes"]),
                    written_bytes=int(values.get("wbytes", 0)),
                    reads=int(values.get("rios", 0)),
                    writes=int(values.get("wios", 0)),
                )
            )
    return tuple(found)


def parse_blkio(in_bytes: str, in_operations: str = "") -> tuple[DeviceUsage, ...]:
    """v1: lines `8:0 Read N`, `8:0 Write N` and others, of two files; `Total N` comes last."""
    size, count = _by_device(in_bytes), _by_device(in_operations)
    return tuple(
        DeviceUsage(
            device=device,
            read_bytes=kinds.get("Read", 0),
            written_bytes=kinds.get("Write", 0),
            reads=count.get(device, {}).get("Read", 0),
            writes=count.get(device, {}).get("Write", 0),
        )
        for device, kinds in size.items()
    )


def _by_device(text: str) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[2].isdigit():
            found.setdefault(words[0], {})[words[1]] = int(words[2])
    return found


def parse_pressure(resource: str, text: str) -> Pressure:
    """Lines `some avg10=0.00 avg60=0.00 avg300=0.00 total=N`, and `full ...` (accounting/psi)."""
    values: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        values[kind] = dict(part.split("=", 1) for part in rest.split() if "=" in part)
    some, full = values.get("some", {}), values.get("full", {})
    return Pressure(
        resource=resource,
        some=float(some.get("avg10", 0)),
        full=float(full.get("avg10", 0)),
        stalled_us=int(some.get("total", 0)),
    )


# What a run has used; the files are those of units/cgroup/files.py


def read_usage(path: str, facts: HostFacts) -> Usage:
    """What a cgroup has used so far; all unknown when it is gone."""
    texts = {file.rpartition("/")[2]: _read(file) for file in report_files(path, facts)}
    return parse_usage({name: text for name, text in texts.items() if text is not None})


def parse_usage(texts: dict[str, str]) -> Usage:
    """What a run has used, from the last texts of those files by name; unknown where a file is missing."""
    cpu = _number(texts.get("cpuacct.usage"))
    micro = parse_flat_keyed(texts.get("cpu.stat")).get("usage_usec")
    if "io.stat" in texts:
        devices: tuple[DeviceUsage, ...] | None = parse_io_stat(texts["io.stat"])
    elif THROTTLE_BYTES in texts:
        devices = parse_blkio(texts[THROTTLE_BYTES]) or parse_blkio(texts.get(BFQ_BYTES, ""))
    else:
        devices = None
    io = CgroupUsage(devices=devices).io
    return Usage(
        cpu_ns=cpu if micro is None else micro * 1000,
        memory_peak=_number(texts.get("memory.peak", texts.get("memory.max_usage_in_bytes"))),
        read_bytes=io.read_bytes,
        written_bytes=io.written_bytes,
    )
