"""The files of a cgroup that show what a run has used: the supervisor reads them when it becomes empty.

usage.py parses them.
"""

from __future__ import annotations

from sysbox.host import exists

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.host import HostFacts

THROTTLE_BYTES = "blkio.throttle.io_service_bytes_recursive"
BFQ_BYTES = "blkio.bfq.io_service_bytes_recursive"
_HYBRID = "/sys/fs/cgroup/unified"


def unified_mount(facts: HostFacts) -> str:
    """The mount point of the unified tree, which has a cgroup for every unit; "" without one."""
    if facts.cgroup_mode == "v2":
        return facts.controllers["name=systemd"]
    return _HYBRID if exists(f"{_HYBRID}/cgroup.procs") else ""


def events_file(path: str, facts: HostFacts) -> str:
    """The file that wakes poll(2) when the cgroup becomes empty; "" without a unified tree."""
    directory = unified_mount(facts)
    return directory and f"{directory}{path}/cgroup.events"


def report_files(path: str, facts: HostFacts) -> tuple[str, ...]:
    """The files that show what a cgroup has used, including those that this kernel lacks."""
    if facts.cgroup_mode == "v2":
        directory = facts.controllers["name=systemd"] + path
        return tuple(f"{directory}/{file}" for file in ("memory.peak", "cpu.stat", "io.stat"))
    files = {  # in the order in which they are read: first those whose cgroups systemd removes
        "memory": ("memory.max_usage_in_bytes",),
        "blkio": (THROTTLE_BYTES, BFQ_BYTES),
        "cpuacct": ("cpuacct.usage",),
    }
    return tuple(
        f"{facts.controllers[controller]}{path}/{file}"
        for controller, names in files.items()
        if controller in facts.controllers
        for file in names
    )
