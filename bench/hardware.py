"""The machine and the versions with which the measures were taken."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def load() -> float:
    """The load average of the last minute."""
    return os.getloadavg()[0]


def cpu_seconds() -> float:
    """CPU time in seconds of all visible cgroups; 0 if the kernel does not count it."""
    for path, unit in (("cpuacct/cpuacct.usage", 1e9), ("cpu,cpuacct/cpuacct.usage", 1e9)):
        if (CGROUPS / path).exists():
            return int((CGROUPS / path).read_text()) / unit
    stat = CGROUPS / "cpu.stat"
    fields = dict(line.split() for line in stat.read_text().splitlines()) if stat.exists() else {}
    return int(fields.get("usage_usec", 0)) / 1e6


def describe() -> dict[str, str]:
    """A table of facts: title -> value."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "CPU": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "disk": _output("findmnt", "-n", "-o", "FSTYPE", "--target", "/var/lib/sysbox"),
        "system": _system(),
        "kernel": platform.release(),
        "systemd": _output("systemctl", "--version").split("\n")[0].removeprefix("systemd "),
        "cgroups": _cgroups(),
        "python": platform.python_version(),
    }


def version(packages: tuple[str, ...]) -> str:
    """The versions of a peer's packages."""
    known = (_output("dpkg-query", "-W", "-f", "${Package} ${Version}", name) for name in packages)
    return ", ".join(filter(None, known))


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return "unknown"


def _cgroups() -> str:
    if (CGROUPS / "cgroup.controllers").exists():
        return "v2"
    return "hybrid" if (CGROUPS / "unified").exists() else "v1"


def _output(*argv: str) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
