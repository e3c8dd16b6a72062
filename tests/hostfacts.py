"""Facts of hosts that there need not be: what a planner is given, or a reader of cgroup files."""

from __future__ import annotations

from pathlib import Path

from sysbox.host import HostFacts

TOP = "/sys/fs/cgroup"
CONTROLLERS = {
    "v1": "blkio cpu cpuacct cpuset devices freezer hugetlb memory net_cls perf_event pids",
    "v2": "cpu cpuset hugetlb io memory pids",
}


def facts(
    mode: str = "v1", controllers: dict[str, str] | None = None, *, unified: str = ""
) -> HostFacts:
    """A host with two CPUs and huge pages of 2 MB and 1 GB.

    By default it has each controller that limits use, mounted by itself.
    """
    if controllers is None:
        controllers = {name: f"{TOP}/{name}" for name in CONTROLLERS[mode].split()}
        controllers["name=systemd"] = f"{TOP}/systemd"
    return HostFacts(
        cgroup_mode=mode, controllers=controllers, systemd=True, effective_uid=0, cpus="0-1",
        memory_nodes="0", selinux=False, apparmor=False, unified=unified, huge_pages=(2 << 20, 1 << 30),
    )  # fmt: skip


def on_directories(mode: str, root: Path, path: str) -> HostFacts:
    """A host whose hierarchies are below `root`; the cgroup `path` is made in each."""
    names = ("cpu", "cpuset", "memory", "pids", "blkio", "io", "hugetlb", "net_cls")
    mounts = {name: str(root / name if mode == "v1" else root) for name in names}
    for mount in mounts.values():
        Path(mount + path).mkdir(parents=True, exist_ok=True)
    return facts(mode, mounts)
