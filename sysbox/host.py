"""HostFacts: what this host can do, found by read-only probes."""

from __future__ import annotations

import posix

from sysbox.base.frozen import Frozen
from sysbox.base.look import exists as exists
from sysbox.base.look import read_text as read_text
from sysbox.linux import lsm

_UNIFIED = "/sys/fs/cgroup/unified"


class HostFacts(Frozen):
    """What the pure planners know of the host."""

    cgroup_mode: str  # v1 (with or without a unified tree beside it) or v2
    # controller, or "name=systemd" -> its mount point; on v2 each has the mount point of the unified tree
    controllers: dict[str, str]
    systemd: bool  # PID 1 is systemd (sd_booted(3))
    effective_uid: int
    cpus: str  # "0-3": the CPUs that are online
    memory_nodes: str  # "0"
    selinux: bool
    apparmor: bool
    unified: str = ""  # on v1: mount point of a unified tree beside it ("hybrid")
    cgroup2_flags: tuple[str, ...] = ()  # mount options of cgroup v2 on this host, as nsdelegate
    huge_pages: tuple[int, ...] = ()  # bytes: the sizes that the kernel has, smallest first


def landlock_abi() -> int:
    """The version of Landlock's ABI in this kernel; 0 without Landlock."""
    from sysbox.linux import landlock  # few containers need it

    return landlock.abi()


_probed: HostFacts | None = None


def probe() -> HostFacts:
    """The facts of this host, looked up once: they do not change while a command runs."""
    global _probed
    if _probed is None:
        _probed = _probe_host()
    return _probed


def _probe_host() -> HostFacts:
    mounts = read_text("/proc/self/mountinfo")
    mode, controllers = cgroup_layout(mounts)
    return HostFacts(
        cgroup_mode=mode,
        controllers=controllers,
        systemd=booted(),
        effective_uid=posix.geteuid(),
        cpus=read_text("/sys/devices/system/cpu/online").strip() or "0",
        memory_nodes=read_text("/sys/devices/system/node/online").strip() or "0",
        selinux=lsm.has_selinux(),
        apparmor=lsm.has_apparmor(),
        unified=_UNIFIED if mode == "v1" and exists(f"{_UNIFIED}/cgroup.procs") else "",
        cgroup2_flags=cgroup2_flags(mounts),
        huge_pages=_huge_pages(),
    )


def _huge_pages() -> tuple[int, ...]:
    try:
        entries = posix.listdir("/sys/kernel/mm/hugepages")
    except OSError:
        return ()
    names = (name.removeprefix("hugepages-").removesuffix("kB") for name in entries)
    return tuple(sorted(int(name) << 10 for name in names))


def booted() -> bool:
    """sd_booted(3): whether PID 1 is systemd."""
    return exists("/run/systemd/system")


_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "i686": "386",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
}


def architecture() -> str:
    """The architecture of this machine, by Go's name."""
    machine = posix.uname().machine
    return _ARCHITECTURES.get(machine, machine)


def cgroup2_flags(mountinfo: str) -> tuple[str, ...]:
    """The flags of cgroup v2, from the text of /proc/self/mountinfo.

    They are those of all its mounts: one that is made in the host's cgroup namespace sets them anew
    (cgroup_get_tree() of the kernel's source), and without nsdelegate a container could lift its own limits.
    """
    options = mountinfo.partition(" - cgroup2 ")[2].partition("\n")[0].rpartition(" ")[2]
    return tuple(word for word in options.split(",") if word not in ("", "rw", "ro"))


# options of a v1 hierarchy that name no controller
_NO_CONTROLLERS = ("rw", "ro", "xattr", "clone_children", "noprefix", "favordynmods")


def cgroup_layout(mountinfo: str) -> tuple[str, dict[str, str]]:
    """The mode and the controllers' mount points, from the text of /proc/self/mountinfo.

    A unified tree beside v1 controllers ("hybrid") counts as v1: the controllers are what matters here. One
    that is mounted read-only, as inside a container, is left out: no cgroup can be made there.
    """
    v1: dict[str, str] = {}
    is_v1 = False
    unified = ""
    for line in mountinfo.splitlines():
        fields, _, tail = line.partition(" - ")
        target, flags = fields.split(" ")[4:6]
        kind, _, rest = tail.partition(" ")
        if not target.startswith("/sys/fs/cgroup"):
            continue
        if kind == "cgroup2" and target in ("/sys/fs/cgroup", _UNIFIED):
            unified = target  # inside a container a file of it is mounted too
        elif kind == "cgroup":
            for option in rest.rpartition(" ")[2].split(","):
                if option in _NO_CONTROLLERS:
                    continue
                named = option.startswith("name=")
                is_v1 = is_v1 or not named
                if named or not flags.startswith("ro"):
                    v1[option] = target
    if unified and not is_v1:
        names = read_text(f"{unified}/cgroup.controllers").split()
        return "v2", dict.fromkeys([*names, "name=systemd"], unified)
    return "v1", v1
