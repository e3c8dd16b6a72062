"""The rows of `explain`: per limit what was asked, the property, the file, its value, and who set it."""

from __future__ import annotations

import time

from sysbox.base.errors import SysboxError
from sysbox.base.frozen import Frozen
from sysbox.container import store
from sysbox.docker.live import read_live
from sysbox.host import probe
from sysbox.lifecycle import update_plan
from sysbox.linux import process
from sysbox.netns import list_filter
from sysbox.run import service_settings, tuned
from sysbox.units.cgroup import packets
from sysbox.units.cgroup.blockdev import disks_of
from sysbox.units.limits import dropins, readback, table
from sysbox.units.limits.properties import INFINITY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.container.store import Record
    from sysbox.docker.live import Live
    from sysbox.units.limits.properties import CgroupWrite, Property
    from sysbox.units.limits.table import Resource, Setting

# properties whose infinity means "not set", as `systemctl show` prints it, and not "no limit"
_NOT_SET = ("CPUShares", "CPUWeight", "CPUQuotaPeriodSec", "BlockIOWeight", "IOWeight")
_LOWEST_COUNTS = ("memory", "pids", "cpu")  # controllers where an ancestor's limit holds too


class Row(Frozen):
    """One limit."""

    limit: str  # the flag, or the property if it has no flag
    asked: str
    property: str  # KEY=VALUE as systemd has it
    file: str  # CONTROLLER/FILE
    now: str  # what the kernel has
    set_by: str
    drift: str = ""  # how the property and the file differ
    words: tuple[str, ...] = ()  # names of it that `explain CONTAINER LIMIT` takes


class _Case:
    """Everything that is read about one container's limits."""

    def __init__(self, record: Record, pid: int) -> None:
        self.facts = probe()
        self.record = record
        self.pid = pid
        self.live: Live | None = read_live(record, pid) if pid else None
        self.drop_ins = tuned.drop_ins(record.id) if self.live else ()
        self.tuned, self.not_kept = tuned.collect(record, self.facts)
        self.of_service = self._of_service()
        self.path_of: dict[str, tuned.DropIn] = {}
        for one in self.drop_ins:
            for key, _ in dropins.assignments(one.text):
                self.path_of[key] = one
        planned: dict[str, Property] = {}
        self.writes: tuple[CgroupWrite, ...] = ()
        try:
            disks = disks_of(record.spec, self.facts)
            planned, self.writes = update_plan.wanted(record.spec, self.tuned, self.facts, disks)
        except SysboxError:
            pass  # ignoring: the next start reports what is wrong
        # what systemd has, or gets at the next start
        self.properties: dict[str, Any] = (
            {one.name: one.value for one in planned.values()}
            if self.live is None
            else self.live.properties
        )

    def _of_service(self) -> dict[str, str]:
        """Where its service has a limit, by all names of its property."""
        found = service_settings.origins(self.record, self.tuned) if self.live else {}
        return {one: where for key, where in found.items() for one in dropins.spellings(key)}

    def text(self, key: str) -> str:
        """The value that the drop-in sets for a property, "" if none does."""
        return dropins.merge([self.path_of[key].text]).get(key, "") if key in self.path_of else ""

    def set_by(self, keys: tuple[str, ...], field: str, *, asked: bool) -> str:
        """Who set a limit: `field` is its name in the record, `keys` its property's names in a drop-in."""
        if where := next((self.of_service[key] for key in keys if key in self.of_service), ""):
            unit = self.record.spec.unit
            return unit if where == unit else f"{unit}, systemctl set-property, {where}"
        if any(key in (*self.tuned, *self.not_kept) for key in keys):
            # where sysbox has set a limit again by its other name, the first name is reset: look at it last
            there = [key for key in keys if key in self.path_of]
            for key in sorted(there, key=lambda key: dropins.is_neutral(key, self.text(key))):
                one = self.path_of[key]
                ends = "; not kept: it ends with this run" if key in self.not_kept else ""
                return f"systemctl set-property, {_time(one.changed)}, {one.path}{ends}"
        if any(key in self.tuned for key in keys):
            return "systemctl set-property, in an earlier run"
        updated = next(
            (self.record.updated[one] for one in (field, *keys) if one in self.record.updated), 0
        )
        if updated:
            return f"update, {_time(updated / 1e9)}"
        return "run" if asked else ""


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def rows(record: Record, pid: int) -> list[Row]:
    """A row for each limit that this host has; `pid` is 0 for a container that does not run."""
    case = _Case(record, pid)
    found = []
    shown: set[str] = set()
    for resource in table.TABLE:
        setting = resource.setting(case.facts)
        if setting.available:
            found.append(_row(case, resource, setting))
            shown.update(dropins.spellings(setting.property))
    more = [text.partition("=")[0].strip() for text in record.spec.properties]
    others = dict.fromkeys((*more, *case.tuned, *case.not_kept))
    found += [_other(case, key) for key in others if key not in shown]
    return found + [_ulimit(case, one.name, one.soft, one.hard) for one in record.spec.ulimits]


def _row(case: _Case, resource: Resource, setting: Setting) -> Row:
    asked = _asked(resource.field, getattr(case.record.spec.limits, resource.field))
    keys = dropins.spellings(setting.property) if setting.property else ()
    texts = [text for text in case.record.spec.properties if text.partition("=")[0].strip() in keys]
    live = case.live
    now, drift, further = "", "", ""
    if live is not None:
        have = readback.read_kernel(setting, live.path, live.facts)
        text = readback.read_raw(setting, live.path, live.facts)
        now = "" if text is None else "infinity" if have == INFINITY else text.replace("\n", ", ")
        if setting.property:
            drift = readback.drift(setting, live.properties, live.path, live.facts)
        else:
            drift = _written_drift(case, setting, live)
        further = _ancestor(setting, have, live)
        if setting.controller == table.FILTER:
            now, drift = _programs(case.record, setting, live)
    set_by = case.set_by(keys, resource.field, asked=bool(asked or texts))
    if resource.field == "memory_swap" and not set_by and case.record.spec.limits.memory:
        set_by = "follows --memory"
    if drift and live is not None:
        set_by = _drifted(setting, live, set_by, drift)
    return Row(
        limit=resource.flag,
        asked=", ".join([*([asked] if asked else []), *texts]),
        property=_as_set(setting, case.properties) if setting.property else "(written)",
        file=f"{setting.controller}/{setting.file}".replace("{size}", "SIZE")
        if setting.file
        else "",
        now=now,
        set_by="; ".join(filter(None, (set_by, further))),
        drift=drift,
        words=(
            *(resource.field, resource.flag, resource.flag[2:]),
            *(*keys, setting.bus_name, setting.file),
        ),
    )


def _programs(record: Record, setting: Setting, live: Live) -> tuple[str, str]:
    """(what the kernel has for a property of packets, what it lacks)."""
    if not readback.systemd_value(setting, live.properties):
        return "", ""
    reason = packets.lack(live.path, live.facts)
    if _at_links(record, setting):
        # what the links of its own have, where systemd's programs are missing or do not see everything
        return ("filters of its links" if reason else "BPF programs, filters of its links"), ""
    return ("", reason) if reason else ("BPF programs", "")


def _at_links(record: Record, setting: Setting) -> bool:
    runtime = store.runtime(record.id)
    if runtime is None or setting.bus_name not in packets.LISTS:
        return False
    attached = [one for one in runtime.attachments() if one.host_link]
    try:
        return bool(attached) and list_filter.in_place(attached)
    except SysboxError:
        return False  # ignoring: it has just ended


def _drifted(setting: Setting, live: Live, set_by: str, drift: str) -> str:
    """Why the kernel has another value: it refused that of `set_by`, or something else wrote the file."""
    if setting.controller == table.FILTER:
        return f"{set_by}, without effect: {drift}"
    value = readback.systemd_value(setting, live.properties)
    why = readback.refusal_reason(setting, live.path, live.facts, value)
    if why:
        return f"{set_by}, and the kernel refused it ({drift}): {why}"
    return f"the file was written by something else ({drift})"


def _asked(field: str, value: Any) -> str:
    """A value in the syntax of its flag; "" for none."""
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if field == "nano_cpus":
        return f"{value / 1e9:g}"
    if isinstance(value, tuple):
        return ", ".join(
            f"{one[0]}:{one[1]}" if isinstance(one, tuple) else str(one) for one in value
        )
    return str(value)


def _as_set(setting: Setting, properties: dict[str, Any]) -> str:
    """The property in the syntax of set-property; its name alone if nothing is set."""
    want = readback.systemd_value(setting, properties)
    if want is None:
        return setting.property
    text = readback.format_value(want)
    if want == INFINITY:
        text = "[not set]" if setting.property in _NOT_SET else text
    elif setting.property == "CPUQuota":
        text = f"{want / 10000:g}%"
    elif setting.property == "CPUQuotaPeriodSec":
        text = f"{want / 1000:g}ms"
    elif setting.property == "DeviceAllow":
        text = f"({len(want)} rules)"
    return f"{setting.property}={text}"


def _written_drift(case: _Case, setting: Setting, live: Live) -> str:
    """How a file without a property differs from what sysbox wrote, or from its default; "" if not."""
    own = [write for write in case.writes if table.writes_to(setting, write)]
    for write in own:
        drift = readback.write_drift(write, live.path, live.facts)
        if drift:
            return drift
    if own:
        return ""
    have = readback.read_kernel(setting, live.path, live.facts)
    above = readback.read_kernel(setting, live.path.rpartition("/")[0] or "/", live.facts)
    if have in (None, (), INFINITY, 0, above):
        return ""
    return f"{setting.controller}/{setting.file} has {readback.format_value(have)}, which was not asked for"


def _ancestor(setting: Setting, have: Any, live: Live) -> str:
    """The slice above with the lowest limit, if that is lower than `have`; "" for none."""
    if (
        setting.controller not in _LOWEST_COUNTS
        or not _is_ceiling(setting)
        or not isinstance(have, int)
    ):
        return ""
    lowest, where = have, ""
    path = live.path.rpartition("/")[0]
    while path:
        above = readback.read_kernel(setting, path, live.facts)
        if isinstance(above, int) and above < lowest:
            lowest, where = above, path
        path = path.rpartition("/")[0]
    return f"{where.rpartition('/')[2]} has only {readback.format_value(lowest)}" if where else ""


def _is_ceiling(setting: Setting) -> bool:
    return setting.bus_name in (
        "MemoryLimit",
        "MemoryMax",
        "MemoryHigh",
        "TasksMax",
        "CPUQuotaPerSecUSec",
    )


def _other(case: _Case, key: str) -> Row:
    """The row of a property that has no flag."""
    texts = [one for one in case.record.spec.properties if one.partition("=")[0].strip() == key]
    set_by = case.set_by(dropins.spellings(key), "", asked=bool(texts))
    found = case.tuned.get(key) or case.text(key)
    value = found or (texts[-1].partition("=")[2] if texts else "")
    return Row(
        limit=key,
        asked=", ".join(texts),
        property=f"{key}={value}".replace("\n", ", "),
        file="",
        now="",
        set_by=set_by,
        words=(key,),
    )


def _ulimit(case: _Case, name: str, soft: int, hard: int) -> Row:
    now = process.rlimit_of(case.pid, name) if case.pid else None
    updated = case.record.updated.get(f"ulimit {name}", 0)
    return Row(
        limit=f"--ulimit {name}",
        asked=f"{soft}:{hard}",
        property="",
        file="/proc/PID/limits",
        now=f"{now[0]}:{now[1]}" if now else "",
        set_by=f"update, {_time(updated / 1e9)}" if updated else "run",
        words=("ulimit", "--ulimit", name),
    )
