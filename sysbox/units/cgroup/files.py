"""The files of a cgroup that tell what a run has used: read when it becomes empty, by whoever supervises it.

What they say is usage.py's to read.
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
    """Where the unified tree is mounted, which has every unit; "" without one."""
    if facts.cgroup_mode == "v2":
        return facts.controllers["name=systemd"]
    return _HYBRID if exists(f"{_HYBRID}/cgroup.procs") else ""


def events_file(path: str, facts: HostFacts) -> str:
    """The file that wakes poll(2) when the cgroup becomes empty; "" where the kernel has none (v1 alone)."""
    directory = unified_mount(facts)
    return directory and f"{directory}{path}/cgroup.events"


def report_files(path: str, facts: HostFacts) -> tuple[str, ...]:
    """The files that tell what a cgroup has used; those that this kernel lacks are among them."""
    if facts.cgroup_mode == "v2":
        directory = facts.controllers["name=systemd"] + path
        return tuple(f"{directory}/{file}" for file in ("memory.peak", "cpu.stat", "io.stat"))
    files = {  # in the order in which they are read: first those that systemd removes
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
