"""`sysbox info`: what sysbox found on this host."""

from __future__ import annotations

import posix

from sysbox import paths, program
from sysbox.cli.current import all_containers
from sysbox.cli.output import line, print_inspect
from sysbox.errors import SysboxError
from sysbox.host import probe, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.cli.options import Values


def main(values: Values) -> int:
    """0."""
    found = collect()
    if values.format:
        print_inspect([found], values.format)
        return 0
    for key, value in found.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        line(f"{key}: {'yes' if shown is True else 'no' if shown is False else shown}")
    return 0


def collect() -> dict[str, Any]:
    """Containers, images, and what this host can do; docker's names where docker has them."""
    from sysbox.image.store import Store
    from sysbox.linux import namespace

    facts = probe()
    states = [status.state for _, status in all_containers()]
    spaces = namespace.probe()
    return {
        "Containers": len(states),
        "ContainersRunning": states.count("running"),
        "ContainersPaused": states.count("paused"),
        "ContainersStopped": len(states) - states.count("running") - states.count("paused"),
        "Images": len(Store().list()),
        "Driver": "overlay",
        "RootDir": paths.STATE,
        "CgroupVersion": facts.cgroup_mode.removeprefix("v"),
        "CgroupDriver": "systemd",
        "Controllers": sorted(facts.controllers),
        "SystemdVersion": systemd_version(),
        "Namespaces": sorted(kind for kind, there in spaces.items() if there),
        "SecurityOptions": _security(facts.selinux, facts.apparmor),
        "KernelVersion": posix.uname().release,
        "Architecture": posix.uname().machine,
        "OperatingSystem": _system_name(),
        "NCPU": posix.cpu_count() or 1,
        "MemTotal": _memory_total(),
        "Name": posix.uname().nodename,
        "ServerVersion": program.VERSION,
    }


def systemd_version() -> str:
    """As systemd itself says it; "not running" where there is none."""
    from sysbox.units.bus import MANAGER, MANAGER_PATH, PROPERTIES, Bus

    try:
        with Bus.connect() as bus:
            (version,) = bus.call(MANAGER_PATH, PROPERTIES, "Get", "ss", (MANAGER, "Version"))
    except SysboxError:
        return "not running"
    return str(version)


def _security(selinux: bool, apparmor: bool) -> list[str]:  # noqa: FBT001 (two facts, in a row)
    found = ["seccomp"] if "Seccomp:" in read_text("/proc/self/status") else []
    return found + ["selinux"] * selinux + ["apparmor"] * apparmor


def _system_name() -> str:
    for entry in read_text("/etc/os-release").splitlines():
        key, _, value = entry.partition("=")
        if key == "PRETTY_NAME":
            return value.strip("\"'")
    return "Linux"


def _memory_total() -> int:
    for entry in read_text("/proc/meminfo").splitlines():
        key, _, value = entry.partition(":")
        if key == "MemTotal":
            return int(value.split()[0]) * 1024
    return 0
