"""The content of `sysbox info`: docker's keys of API 1.41, and sysbox's own below `Sysbox`."""

from __future__ import annotations

import posix
import time

from sysbox.base import paths, program
from sysbox.base.errors import SysboxError, Unsupported
from sysbox.conf import files
from sysbox.conf.table import KEYS
from sysbox.docker.shapes import Map, NullList, NullMap, Struct, listed
from sysbox.host import exists, probe, read_text
from sysbox.run import apparmor
from sysbox.security.apparmor import decide
from sysbox.spec import Security

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sysbox.host import HostFacts
    from sysbox.netns.firewall_mark import Mark

_RUNTIME = "sysbox"


def collect(states: Sequence[str]) -> dict[str, Any]:
    """Containers by their states, images, and what this host can do.

    Raises FormatError, SpecError for sysbox.conf.
    """
    facts = probe()
    release = _os_release()
    loaded = files.load()
    return Struct(
        {
            "ID": _machine(),
            **_containers(states),
            **_storage(),
            **_abilities(facts),
            **_state(loaded.settings.log_driver),
            "CgroupVersion": facts.cgroup_mode.removeprefix("v"),
            "KernelVersion": posix.uname().release,
            "OperatingSystem": release.get("PRETTY_NAME", "Linux"),
            "OSVersion": release.get("VERSION_ID", ""),
            "OSType": "linux",
            "Architecture": posix.uname().machine,
            **_nothing_remote(),
            "NCPU": posix.cpu_count() or 1,
            "MemTotal": _memory_total(),
            "GenericResources": NullList(),
            "DockerRootDir": paths.STATE,
            "Name": posix.uname().nodename,
            "Labels": [],
            "ExperimentalBuild": False,
            "ServerVersion": program.VERSION,
            **_programs(),
            "LiveRestoreEnabled": True,  # containers run without a daemon
            "Isolation": "",
            "SecurityOptions": _security(facts, loaded.settings.userns),
            "Warnings": listed(_warnings(facts)),
            "ClientInfo": _client(),
            "Sysbox": {**_own(facts), "Configuration": _configuration(loaded)},
        }
    )


def _client() -> dict[str, Any]:
    return {
        "Debug": program.debug,
        "Context": "default",
        "Plugins": [],
        "Warnings": NullList(),
    }


def _state(log_driver: str) -> dict[str, Any]:
    """docker's keys for the state of its daemon."""
    return {
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "ipvlan", "macvlan", "null"],
            "Authorization": NullList(),
            "Log": ["journald", "json-file", "none"],
        },
        "Debug": program.debug,
        "NFd": 0,
        "NGoroutines": 0,
        "SystemTime": _now(),
        "LoggingDriver": log_driver,
        "CgroupDriver": "systemd",
        "NEventsListener": 0,
    }


def _containers(states: Sequence[str]) -> dict[str, int]:
    running, paused = states.count("running"), states.count("paused")
    return {
        "Containers": len(states),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": len(states) - running - paused,
    }


def _storage() -> dict[str, Any]:
    from sysbox.fs.drivers.driver import DEFAULT
    from sysbox.image.store import Store

    return {
        "Images": len(Store().list()),
        "Driver": DEFAULT,
        "DriverStatus": [
            ["Backing Filesystem", _file_system(paths.STATE)],
            ["Supports d_type", "true"],  # overlayfs requires it
            ["userxattr", "false"],
        ],
    }


def _abilities(facts: HostFacts) -> dict[str, bool]:
    """docker's keys for the limits that this host supports."""
    have = facts.controllers
    v1 = facts.cgroup_mode == "v1"
    memory, cpu = "memory" in have, "cpu" in have
    return {
        "MemoryLimit": memory,
        "SwapLimit": memory and (not v1 or exists(f"{have['memory']}/memory.memsw.limit_in_bytes")),
        "KernelMemory": False,  # no flag sets it; the kernel has dropped this limit
        "KernelMemoryTCP": False,
        "CpuCfsPeriod": cpu and exists("/proc/sys/kernel/sched_cfs_bandwidth_slice_us"),
        "CpuCfsQuota": cpu and exists("/proc/sys/kernel/sched_cfs_bandwidth_slice_us"),
        "CPUShares": cpu,
        "CPUSet": "cpuset" in have,
        "PidsLimit": "pids" in have,
        "IPv4Forwarding": _switched_on("net/ipv4/ip_forward"),
        "BridgeNfIptables": _switched_on("net/bridge/bridge-nf-call-iptables"),
        "BridgeNfIp6tables": _switched_on("net/bridge/bridge-nf-call-ip6tables"),
        "OomKillDisable": memory and v1,
    }


def _switched_on(setting: str) -> bool:
    return read_text(f"/proc/sys/{setting}").strip() == "1"


def _nothing_remote() -> dict[str, Any]:
    """docker's keys for registries, proxies and a swarm, all empty."""
    return {
        "IndexServerAddress": "",
        "RegistryConfig": {
            "AllowNondistributableArtifactsCIDRs": [],
            "AllowNondistributableArtifactsHostnames": [],
            "InsecureRegistryCIDRs": [],
            "IndexConfigs": Map(),
            "Mirrors": [],
        },
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": NullList(),
        },
    }


def _programs() -> dict[str, Any]:
    unknown = {"ID": "", "Expected": ""}
    return {
        "Runtimes": Map({_RUNTIME: {"path": program.launcher, "runtimeArgs": NullList()}}),
        "DefaultRuntime": _RUNTIME,
        "InitBinary": "sysbox-init",
        "ContainerdCommit": unknown,
        "RuncCommit": unknown,
        "InitCommit": unknown,
        "ProductLicense": "",
        "DefaultAddressPools": NullList(),
        "SystemStatus": NullMap(),
    }


def _own(facts: HostFacts) -> dict[str, Any]:
    from sysbox.linux import namespace

    spaces = namespace.probe()
    return {
        "Controllers": sorted(facts.controllers),
        "SystemdVersion": systemd()["Version"],
        "Namespaces": sorted(kind for kind, there in spaces.items() if there),
        "SELinux": facts.selinux,
        "AppArmor": facts.apparmor,
        "Firewall": _firewall(),
    }


def _firewall() -> dict[str, Any]:
    """The packet filter that has the rules of containers' networks, and the host's sysctls that they need."""
    from sysbox.netns import firewall_mark, forwarding

    try:
        mark = firewall_mark.read()
        changed = forwarding.changed()
    except SysboxError:
        mark, changed = None, {}  # only root may look
    return {
        "Backend": mark.backend if mark else "",  # "" before the first container on a network
        "Reason": mark.why if mark else "",
        "InPlace": mark is not None and _in_place(mark),
        "HostFirewall": mark.host if mark else "",  # firewalld, ufw, "" without one
        "Ports": "ask" if mark and mark.ask else "open",
        "Bridges": [policy.bridge for policy in mark.policies] if mark else [],
        # path below /proc/sys -> its value before sysbox changed it
        "Sysctls": Map(changed),
    }


def _in_place(mark: Mark) -> bool:
    from sysbox.netns import firewall_mark

    try:
        return firewall_mark.in_place(mark)
    except SysboxError:
        return False  # only root may look


def _configuration(loaded: files.Loaded) -> dict[str, Any]:
    """The files of sysbox.conf(5), and each key: as written, or its default in words."""
    sections: dict[str, Any] = {"Files": list(loaded.files)}
    for key in KEYS:
        value = loaded.texts.get(key.title, key.default)
        sections.setdefault(key.section, {})[key.name] = value
    return sections


def systemd() -> dict[str, str]:
    """systemd's description of itself (`manager.describe`); Version is "not running" without a systemd."""
    from sysbox.units import manager

    try:
        return manager.describe()
    except Unsupported:
        return {"Version": "not known"}
    except SysboxError:
        return {"Version": "not running"}


def _machine() -> str:
    """An id of this machine, a hash of its machine-id(5): that page says not to expose the id itself."""
    import hashlib
    import hmac

    secret = read_text("/etc/machine-id").strip()
    digest = hmac.new(secret.encode(), b"sysbox info", hashlib.sha256).hexdigest()
    return "-".join((digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:32]))


def _now() -> str:
    from sysbox.docker.inspect import timestamp

    return timestamp(time.time())


def _file_system(path: str) -> str:
    """The type of the file system that a directory is on, from /proc/self/mountinfo."""
    while path != "/" and not exists(path):
        path = path.rpartition("/")[0] or "/"
    device = posix.stat(path).st_dev
    number = f"{device >> 8 & 0xFFF}:{device & 0xFF | device >> 12 & 0xFFF00}"
    for entry in read_text("/proc/self/mountinfo").splitlines():
        fields, _, rest = entry.partition(" - ")
        if fields.split(" ")[2] == number:
            return rest.split(" ")[0]
    return "unknown"


def _security(facts: HostFacts, userns: str) -> list[str]:
    """docker's SecurityOptions: what applies to containers by default."""
    seccomp = "Seccomp:" in read_text("/proc/self/status")
    profile = decide(Security(), apparmor.look(facts), mounts=False)
    return [
        *(["name=apparmor"] if profile else []),
        *(["name=seccomp,profile=default"] if seccomp else []),
        *(["name=selinux"] if facts.selinux else []),
        *(["name=userns"] if userns == "auto" else []),
        "name=cgroupns",
    ]


def _warnings(facts: HostFacts) -> list[str]:
    found = []
    if not _switched_on("net/ipv4/ip_forward"):
        found.append("WARNING: IPv4 forwarding is disabled")
    if "memory" not in facts.controllers:
        found.append("WARNING: No memory limit support")
    return found


def _os_release() -> dict[str, str]:
    pairs = (entry.partition("=") for entry in read_text("/etc/os-release").splitlines())
    return {key: value.strip("\"'") for key, _, value in pairs}


def _memory_total() -> int:
    for entry in read_text("/proc/meminfo").splitlines():
        key, _, value = entry.partition(":")
        if key == "MemTotal":
            return int(value.split()[0]) * 1024
    return 0
