"""Checks of each limit on this host, by the table of limits and a sample scope; and of the controllers."""

from __future__ import annotations

import posix

from sysbox.base.errors import KernelError
from sysbox.cli.doctor.check import IDLE, NO, WRITTEN, YES, Check, useful
from sysbox.host import exists, read_text
from sysbox.linux import bpf
from sysbox.parse.limits import page_size_name
from sysbox.units.cgroup.packets import LISTS
from sysbox.units.limits.network import ADVICE, LACK
from sysbox.units.limits.table import FILTER, TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.doctor.scope import Sample
    from sysbox.host import HostFacts
    from sysbox.units.limits.table import Resource, Setting

CONTROLLERS = {
    "v1": "blkio cpu cpuacct cpuset devices freezer hugetlb memory net_cls perf_event pids",
    "v2": "cpu cpuset hugetlb io memory pids",
}
_BLOCK = "/sys/block"
# file -> the file that takes the same value under another I/O scheduler
_OTHER_NAMES = {"blkio.bfq.weight": "blkio.weight", "blkio.bfq.weight_device": "blkio.weight_device",
              "io.bfq.weight": "io.weight"}  # fmt: skip


def limits(facts: HostFacts, sample: Sample) -> list[Check]:
    """One check for each flag that limits something."""
    return [_limit(one, facts, sample) for one in TABLE]


def _limit(one: Resource, facts: HostFacts, sample: Sample) -> Check:
    setting = one.setting(facts)

    def check(state: str, detail: str, advice: str = "") -> Check:
        return Check(area="limit", name=one.flag, state=state, detail=detail, advice=advice)

    if not setting.available:
        return check(NO, f"cgroup {facts.cgroup_mode} has no such limit", setting.note)
    if sample.failure:
        return check(NO, sample.failure)
    if setting.property and setting.bus_name not in sample.properties:
        return check(NO, f"this systemd does not know {setting.property} for a scope")
    missing = _missing(setting, facts, sample)
    if missing and setting.bus_name in LISTS:
        return check(YES, f"{setting.property}: filters of a container's own links ({missing[0]})")
    if missing:
        return check(NO, *missing)
    where = _file(setting, facts, sample)
    if where and facts.cgroup_mode == "v1":
        where = f"{setting.controller}/{where}"
    if "weight" in setting.file and setting.controller in ("blkio", "io") and not _weighing_disks():
        return check(
            # the kernel refuses the weight of a single disk, and takes that of all disks without effect
            NO if one.field.endswith("_device") else IDLE,
            "no disk's I/O scheduler shares by weight",
            "echo bfq >/sys/block/DISK/queue/scheduler",
        )
    if setting.written:
        return check(WRITTEN, where)
    return check(YES, f"{setting.property}: {where}" if where else setting.property)


def _missing(setting: Setting, facts: HostFacts, sample: Sample) -> tuple[str, str] | None:
    """(reason, advice) if the kernel lacks the controller or the file of a limit."""
    unified = facts.cgroup_mode == "v2"
    if setting.controller == "devices" and unified:
        reason = bpf.device_programs()
        return (f"no BPF programs for devices: {reason}", "") if reason else None
    if setting.controller == FILTER:
        return _no_filters(sample.directories.get("name=systemd" if unified else "unified", ""))
    if setting.controller not in facts.controllers:
        return no_controller(setting.controller, facts)
    if not setting.file or _file(setting, facts, sample):
        return None
    file = setting.file.replace("{size}", "SIZE")
    return f"this kernel has no {file}", _advice(setting.file)


def _no_filters(directory: str) -> tuple[str, str] | None:
    """(reason, advice) if systemd does not count the packets of the sample scope, whose cgroup this is."""
    if not directory:
        return LACK, ADVICE
    try:
        if all(bpf.filters(directory)):
            return None
    except KernelError as error:
        return str(error), ADVICE
    reason = bpf.packet_programs() or "systemd attaches none"
    return f"no BPF programs for packets: {reason}", "CONFIG_CGROUP_BPF=y, and systemd with BPF"


def _advice(file: str) -> str:
    if "memsw" in file or "swap.max" in file:
        return "boot with swapaccount=1"
    return ""


def _file(setting: Setting, facts: HostFacts, sample: Sample) -> str:
    """The name of a limit's file on this host; "" if there is none.

    A v2 controller that systemd does not know is enabled when the first container asks for it, so the sample
    scope does not have its files: they are taken to exist.
    """
    unasked = setting.written and "{size}" in setting.file and facts.cgroup_mode == "v2"
    for size in page_sizes(facts) or ["none"]:
        for template in (setting.file, _OTHER_NAMES.get(setting.file, "")):
            name = template.replace("{size}", size)
            if name and (sample.has(setting.controller, name) or (unasked and size != "none")):
                return name
    return ""


def no_controller(name: str, facts: HostFacts) -> tuple[str, str]:
    """(reason, advice) for a controller that containers cannot have."""
    for line in read_text("/proc/cgroups").splitlines():
        fields = line.split()
        if fields[0] != name or len(fields) != 4:
            continue
        if fields[3] == "0":
            return (
                f"the controller {name} is switched off",
                f"boot without cgroup_disable={name}",
            )
        if facts.cgroup_mode == "v2":
            return f"the controller {name} belongs to a v1 hierarchy", f"unmount the v1 {name}"
        return (
            f"the controller {name} is not mounted",
            f"mount -t cgroup -o {name} cgroup /sys/fs/cgroup/{name}",
        )
    return f"this kernel has no controller {name}", ""


def controllers(facts: HostFacts) -> list[Check]:
    """One check for each controller that some flag needs."""
    checks = []
    for name in CONTROLLERS[facts.cgroup_mode].split():
        where = facts.controllers.get(name, "")
        problem, advice = ("", "") if where else no_controller(name, facts)
        checks.append(useful("controller", name, problem, where, advice))
    return checks


def _weighing_disks() -> list[str]:
    """Disks on which weights count: those scheduled by bfq, and on v2 those with a cost model."""
    found = []
    costs = read_text("/sys/fs/cgroup/io.cost.qos")
    for disk in _names(_BLOCK):
        number = read_text(f"{_BLOCK}/{disk}/dev").strip()
        enabled = any(
            line.startswith(f"{number} ") and "enable=1" in line for line in costs.splitlines()
        )
        if enabled or "[bfq]" in read_text(f"{_BLOCK}/{disk}/queue/scheduler"):
            found.append(disk)
    return found


def page_sizes(facts: HostFacts) -> list[str]:
    """The kernel's huge pages by the names that cgroup files have: "2MB", "1GB"."""
    return [page_size_name(size) for size in facts.huge_pages]


def features(facts: HostFacts, sample: Sample) -> list[Check]:
    """What `pause`, `stats` and the limits need besides the controllers."""
    unified = facts.cgroup_mode == "v2"
    swap = (
        sample.has("memory", "memory.swap.max")
        if unified
        else sample.has("memory", "memory.memsw.limit_in_bytes")
    )
    tree = "name=systemd" if unified else "unified"
    frozen = [
        file
        for where, file in (("freezer", "freezer.state"), (tree, "cgroup.freeze"))
        if sample.has(where, file)
    ]
    throttle = sample.has("io", "io.max") or sample.has("blkio", "blkio.throttle.read_bps_device")
    weight = any(
        sample.has(controller, file)
        for controller, file in (("io", "io.bfq.weight"), ("blkio", "blkio.bfq.weight"))
    )
    disks = ", ".join(_weighing_disks())
    sizes = page_sizes(facts)
    return [
        useful("kernel", "freezer", "" if frozen else "no freezer", ", ".join(frozen)),
        useful("kernel", "swap accounting", "" if swap else "not switched on", _swap(),
               "boot with swapaccount=1"),
        useful("kernel", "throttling of I/O", "" if throttle else "built without it"),
        useful("kernel", "bfq", "" if weight else "not built in, or its module is not loaded",
               f"in charge of {disks or 'no disk'}", "modprobe bfq"),
        useful("kernel", "huge pages", "" if sizes else "none", ", ".join(sizes)),
        _pressure(sample.has(tree, "memory.pressure")),
        *([_device_filter()] if unified else []),
    ]  # fmt: skip


def _device_filter() -> Check:
    reason = bpf.device_programs()
    # without it systemd starts the scope unfiltered, and the container could use every device
    return useful("kernel", "device filter", reason, "BPF programs", "CONFIG_CGROUP_BPF=y")


def _pressure(own: bool) -> Check:  # noqa: FBT001 (one fact)
    problem = "" if read_text("/proc/pressure/memory") else "not built in, or switched off"
    reach = "of each container" if own else "of the whole host only"
    return useful("kernel", "pressure (PSI)", problem, reach, "boot with psi=1")


def _swap() -> str:
    areas = read_text("/proc/swaps").splitlines()[1:]
    return f"{len(areas)} areas in use" if areas else "no swap is in use"


def _names(directory: str) -> list[str]:
    return sorted(posix.listdir(directory)) if exists(directory) else []
