"""Read a scope's cgroup files back, in the units of the property that sets each file.

"No limit" is INFINITY, a list of CPUs a tuple of numbers, values of devices are pairs (MAJOR:MINOR, value).
"""

from __future__ import annotations

import _stat
import posix

from sysbox.base.errors import SysboxError
from sysbox.base.numbers import parse_list
from sysbox.host import exists, read_text
from sysbox.linux import cgroup
from sysbox.units.limits.dropins import converted
from sysbox.units.limits.io import bfq_weight
from sysbox.units.limits.properties import INFINITY
from sysbox.units.limits.table import FILTER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.host import HostFacts
    from sysbox.units.limits.properties import CgroupWrite
    from sysbox.units.limits.table import Setting

_V1_INFINITY = 0x7FFFFFFFFFFFF000  # what a v1 memory file reads without a limit (4 KiB pages)
_HUGE = 1 << 62  # bytes: the kernel rounds "no limit" of huge pages, to a value above this
_PAGE = 4096
_PERIOD = 100_000  # microseconds, the kernel's default
_SECOND = 1_000_000
_SHORTEST = 1000  # microseconds: systemd sets no shorter quota
# the kernel's defaults
_DEFAULTS: dict[str, tuple[Any, ...]] = {
    "CPUShares": (1024,),
    "CPUWeight": (100,),
    "CPUQuotaPeriodUSec": (_PERIOD,),
    "BlockIOWeight": (500, 100, 136),
    "IOWeight": (100,),
}
# the same limit's file with another I/O scheduler
_ALSO = {
    "blkio.bfq.weight": "blkio.weight",
    "blkio.bfq.weight_device": "blkio.weight_device",
    "io.bfq.weight": "io.weight",
}
_NOT_COMPARED = ("devices.list", "memory.oom.group")
_WEIGHTS = ("cpu.shares", "cpu.weight")
_IDLE = 3  # what cpu.shares reads while cpu.idle is set (WEIGHT_IDLEPRIO)
_BFQ = ("BlockIOWeight", "IOWeight", "IODeviceWeight")
_IO_MAX = {
    "IOReadBandwidthMax": "rbps",
    "IOWriteBandwidthMax": "wbps",
    "IOReadIOPSMax": "riops",
    "IOWriteIOPSMax": "wiops",
}


def read_kernel(setting: Setting, path: str, facts: HostFacts) -> Any:
    """The kernel's value of one limit in the cgroup `path`; None if this kernel has no such file."""
    text = read_raw(setting, path, facts)
    if text is None:
        return None
    if "{size}" in setting.file:
        return _by_size(text)
    directory = cgroup.directory(facts, setting.controller, path)
    if setting.file == "cpu.cfs_quota_us":
        return _per_second(text, read_text(f"{directory}/cpu.cfs_period_us"))
    if setting.file == "cpu.max":
        quota, _, period = text.partition(" ")
        return (
            int(period) if setting.property == "CPUQuotaPeriodSec" else _per_second(quota, period)
        )
    if setting.file in ("cpuset.cpus", "cpuset.mems"):
        return tuple(parse_list(setting.file, text)) if text else ()
    if setting.file == "io.max":
        return _io_max(text, _IO_MAX.get(setting.property, ""))
    if setting.file.endswith("_device") or setting.property.endswith("DeviceWeight"):
        return _by_device(text)
    return _number(text)


def read_raw(setting: Setting, path: str, facts: HostFacts) -> str | None:
    """The text of a limit's file, without the last newline; None if there is none to compare with."""
    if not setting.file or setting.file in _NOT_COMPARED:
        return None
    try:
        directory = cgroup.directory(facts, setting.controller, path)
    except SysboxError:
        return None
    if "{size}" in setting.file:
        return _sizes(directory, setting.file)
    texts = [
        read_text(f"{directory}/{file}").strip()
        for file in dict.fromkeys((setting.file, _ALSO.get(setting.file, setting.file)))
        if exists(f"{directory}/{file}")
    ]
    # of two files for the weights of disks take the one with entries: the disk's scheduler decides which
    return next((text for text in texts if "\n" in text), texts[0]) if texts else None


def _sizes(directory: str, file: str) -> str | None:
    """ "SIZE VALUE" lines, one for each size of huge pages; None if there is none."""
    before, _, after = file.partition("{size}")
    try:
        names = sorted(posix.listdir(directory))
    except OSError:
        return None
    lines = []
    for name in names:
        size = name[len(before) : len(name) - len(after)]
        if name == f"{before}{size}{after}" and "." not in size:
            lines.append(f"{size} {read_text(f'{directory}/{name}').strip()}")
    return "\n".join(lines) if lines else None


def _by_size(text: str) -> tuple[tuple[str, int], ...]:
    pairs = (
        (line.partition(" ")[0], _number(line.partition(" ")[2])) for line in text.splitlines()
    )
    return tuple((size, value) for size, value in pairs if isinstance(value, int) and value < _HUGE)


def _number(text: str) -> int | str:
    word = text.partition("\n")[0].removeprefix("default ").removeprefix("oom_kill_disable ")
    if word in ("max", "-1"):
        return INFINITY
    if not word.isdigit():
        return word
    return INFINITY if int(word) >= _V1_INFINITY else int(word)


def _per_second(quota: str, period: str) -> int:
    """Microseconds of CPU per second."""
    if not quota.isdigit():
        return INFINITY
    return int(quota) * _SECOND // (int(period) or _PERIOD)


def _by_device(text: str) -> tuple[tuple[str, int], ...]:
    pairs = (line.split() for line in text.splitlines() if not line.startswith("default"))
    return tuple(sorted((pair[0], int(pair[1])) for pair in pairs if len(pair) == 2))


def _io_max(text: str, key: str) -> tuple[tuple[str, int], ...]:
    found = []
    for line in text.splitlines():
        number, *settings = line.split()
        for setting in settings:
            name, _, value = setting.partition("=")
            if name == key and value.isdigit():
                found.append((number, int(value)))
    return tuple(sorted(found))


def systemd_value(setting: Setting, live: dict[str, Any]) -> Any:
    """systemd's value of the limit, in `read_kernel`'s form; `live` has the scope's properties by name."""
    value = converted(setting.bus_name, live)
    if setting.controller == FILTER:
        return _networks(value) if isinstance(value, list) else value
    if isinstance(value, bytes):
        return tuple(
            8 * at + bit for at, byte in enumerate(value) for bit in range(8) if byte & (1 << bit)
        )
    if isinstance(value, list | tuple):
        return tuple(sorted((device_number(path), rate) for path, rate in value))
    return value


def _networks(value: list[Any]) -> tuple[str, ...]:
    if not value:
        return ()
    from sysbox.parse.addresses import network_text, reduce  # which few containers need

    return tuple(network_text(one) for one in reduce(value))


def device_number(path: str) -> str:
    """MAJOR:MINOR of a device node, or of the file system of another file; the path if it is missing."""
    try:
        status = posix.stat(path)
    except OSError:
        return path
    number = status.st_rdev if _stat.S_ISBLK(status.st_mode) else status.st_dev
    return f"{posix.major(number)}:{posix.minor(number)}"


def values_agree(setting: Setting, want: Any, have: Any, period: Any = None) -> bool:
    """Whether the kernel's value `have` is the property's value `want`, but for the kernel's rounding.

    `period` is the CPU period in microseconds.
    """
    if want == have or have is None:
        return True
    if isinstance(want, str):
        return True
    if setting.file == "cpu.idle" and setting.property:
        return bool(have) is bool(want == 0)
    if want in (None, INFINITY) and have in _DEFAULTS.get(setting.bus_name, ()):
        return True
    if setting.file in _WEIGHTS and (want == 0 or have == _IDLE):
        return True  # while cpu.idle is set the weight has no effect
    if setting.bus_name in _BFQ and isinstance(want, tuple) and isinstance(have, tuple):
        return bool(have == tuple((number, bfq_weight(weight)) for number, weight in want))
    if not isinstance(want, int) or not isinstance(have, int) or INFINITY in (want, have):
        return False
    if setting.controller == "memory":
        return want // _PAGE == have // _PAGE
    if setting.bus_name == "CPUQuotaPerSecUSec":
        step = period if isinstance(period, int) and period != INFINITY else _PERIOD
        shortest = _SHORTEST * _SECOND // step
        return abs(max(want, shortest) - have) <= _SECOND // step + 1
    return setting.bus_name in _BFQ and have == bfq_weight(want)


def drift(setting: Setting, live: dict[str, Any], path: str, facts: HostFacts) -> str:
    """How the kernel's file differs from systemd's property; "" where it does not."""
    want, have = systemd_value(setting, live), read_kernel(setting, path, facts)
    if setting.bus_name == "CPUQuotaPeriodUSec" and not _has_quota(setting, path, facts):
        return ""  # systemd writes no period before there is a quota
    if values_agree(setting, want, have, live.get("CPUQuotaPeriodUSec")):
        return ""
    file = f"{setting.controller}/{setting.file}"
    return f"{setting.property} is {format_value(want)}, {file} has {format_value(have)}"


def _has_quota(setting: Setting, path: str, facts: HostFacts) -> bool:
    text = read_raw(
        setting.replace(file="cpu.cfs_quota_us") if facts.cgroup_mode == "v1" else setting,
        path,
        facts,
    )
    return not (text or "").startswith(("max", "-1"))


def format_value(value: Any) -> str:
    """A value of this module as text."""
    if value == INFINITY:
        return "infinity"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(
            f"{one[0]} {one[1]}" if isinstance(one, tuple) else str(one) for one in value
        )
    return "" if value is None else str(value)


def write_drift(write: CgroupWrite, path: str, facts: HostFacts) -> str:
    """How a file differs from what sysbox wrote to it; "" where it does not."""
    try:
        directory = cgroup.directory(facts, write.controller, path)
    except SysboxError:
        return ""
    if write.inherit:
        return ""
    text = read_text(f"{directory}/{write.file}").strip()
    if not text or _same_text(write, text):
        return ""
    return f"{write.controller}/{write.file} has {text}, not {write.value}"


def _same_text(write: CgroupWrite, text: str) -> bool:
    lines = [line.split() for line in text.splitlines()]
    words = write.value.split()
    if text == write.value or words in lines:
        return True
    if len(words) == 2 and words[1] in ("0", "default"):
        # the device's limit was removed, and with it its line
        return all(line[0] != words[0] for line in lines)
    want, have = _number(write.value), _number(text)
    if write.file.startswith("cpuset."):
        return parse_list(write.file, write.value) == parse_list(write.file, text)
    if isinstance(want, int) and isinstance(have, int):
        same_page = write.file.endswith("_in_bytes") and want // _PAGE == have // _PAGE
        return want == have or same_page or (want == INFINITY and have > _HUGE)
    return False


def refusal_reason(setting: Setting, path: str, facts: HostFacts, want: Any) -> str:
    """Why the kernel refused a limit, and what to do; "" if the reason is unknown."""
    if setting.file != "memory.limit_in_bytes" or not isinstance(want, int):
        return ""
    directory = cgroup.directory(facts, "memory", path)
    both = _number(read_text(f"{directory}/memory.memsw.limit_in_bytes"))
    if isinstance(both, int) and both < want:
        return f"memory and swap together are limited to {both}: raise --memory-swap too"
    used = _number(read_text(f"{directory}/memory.usage_in_bytes"))
    if isinstance(used, int) and used > want:
        return f"{used} bytes are in use, and not so much of it can be reclaimed"
    return ""
