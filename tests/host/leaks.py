"""What a host test may not leave behind: the state of the host as a dictionary that can be compared."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from sysbox.base import paths

Snapshot = dict[str, set[str]]
# as the last test left the host: a look takes half a second where it is emulated
known: Snapshot | None = None

# systemd's own, what it starts when somebody asks for it on the bus, and what a file of tests restarts
SERVICES = re.compile(
    r"systemd|\(sd-\w+\)|systemd-\w+|dbus-daemon|dbus-broker.*|polkitd|agetty|firewalld|\(.*\)"
)
KERNEL_THREAD = 0x200000  # PF_KTHREAD of the kernel's linux/sched.h
# made at the first use and kept until the host stops: a bridge, chains that hold no container's rule
BASE_LINKS = {"sysbox0"}
BASE_RULES = re.compile(
    r":SYSBOX-|-A SYSBOX-(RAW|POSTROUTING|FORWARD|INPUT) |-A \w+ .*-j SYSBOX-|:\w+ (ACCEPT|-)|\*|COMMIT|#"
)
BASE_FILES = re.compile(
    r"(/network/(rules|sysctls|.*\.lock|leases|ports)|/lock|\.lock|/idmap/[^/]+|/apparmor/[^/]+)$"
)
UNIT_FILES = (
    "/etc/systemd/system", "/run/systemd/system", "/run/systemd/transient", "/run/systemd/units",
    "/run/systemd/system.control", "/etc/systemd/system.control",
)  # fmt: skip
BASE_DIRECTORIES = {
    paths.CONTAINERS,
    paths.NAMES,
    paths.NETWORKS,
    paths.VOLUMES,
}  # and those right below paths.RUN
# a slice stays when its last unit has gone: systemd's way. A health check's cgroup comes and goes with each
# check, if several tests use the container; it is in that of the container, which counts
BASE_UNITS = re.compile(
    r"\.slice$|^init\.scope$|\.mount$|systemd-|dbus|sysbox-clients$|^sysbox-check$"
)


def snapshot(kinds: Iterable[str] = ()) -> Snapshot:
    """What is compared, of these kinds or of all; each a set of one-line descriptions."""
    return {kind: set(SOURCES[kind]()) for kind in kinds or SOURCES}


def differences(before: Snapshot, after: Snapshot) -> dict[str, list[str]]:
    """A line for each thing that appeared or went, by kind; nothing for a kind that is as it was."""
    found = {}
    for kind, had in before.items():
        # a process that was there before may end
        gone = had - after[kind] if kind != "processes" else set[str]()
        lines = [f"{kind}: + {item}" for item in sorted(after[kind] - had)]
        if lines := lines + [f"{kind}: - {item}" for item in sorted(gone)]:
            found[kind] = lines
    return found


def _list(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return ""


def _processes() -> Iterator[str]:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        head, _, rest = _read(f"/proc/{pid}/stat").rpartition(")")
        fields = rest.split()
        if not fields or int(pid) == os.getpid() or int(fields[6]) & KERNEL_THREAD:
            continue
        name = head.partition("(")[2]
        if not SERVICES.fullmatch(name):
            command = _read(f"/proc/{pid}/cmdline").replace("\0", " ").strip()
            dead = ", a zombie" if fields[0] == "Z" else ""
            yield f"pid {pid} started at {fields[19]}: {command or name}{dead}"


def _mounts() -> Iterator[str]:
    for line in _read("/proc/1/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4]
        if not point.startswith("/run/credentials/"):
            yield f"{point} {' '.join(right.split()[:2])}"


def _rules() -> Iterator[str]:
    programs = {"ip_tables": "iptables-legacy-save", "ip6_tables": "ip6tables-legacy-save"}
    for name, program in programs.items():
        # what no table has been made for has no rules: saves a program
        for line in _output(program).splitlines() if _read(f"/proc/net/{name}_names") else ():
            rule = re.sub(r"\[\d+:\d+\]", "", line).strip()
            if not BASE_RULES.match(rule):
                yield f"{program}: {rule}"
    table = ""
    for line in _output("nft", "-s", "list", "ruleset").splitlines():
        table = line if line.startswith("table") else table
        # of sysbox's own table only what belongs to a container
        if table != "table inet sysbox {" or '"sysbox:' in line:
            yield f"nft: {table} {line.strip()}"


def _units() -> Iterator[str]:
    listed = _output("systemctl", "list-units", "--all", "--no-legend", "--plain", "--full")
    for line in listed.splitlines():
        unit, load, active, *_ = line.split()
        ours = re.match(r"(docker|sysbox|libpod|crio)-", unit) and not unit.endswith(".mount")
        # these stay, as any slice does
        ours = ours and unit not in ("sysbox-build.slice", "sysbox-pod.slice")
        if (ours or active == "failed") and load != "not-found":
            yield f"{unit} {active}"


def _cgroups() -> Iterator[str]:
    for directory, names, _ in os.walk("/sys/fs/cgroup"):
        for name in names:
            path = os.path.join(directory, name)
            if path.count("/") > 4 and not BASE_UNITS.search(name):
                yield path


def _leases() -> Iterator[str]:
    for name in _list(paths.NETWORK):
        if name in ("leases", "ports"):
            for line in _read(f"{paths.NETWORK}/{name}").splitlines():
                # the first line may be a cursor: a lease names its container by 64 hex digits
                if re.search(r"[0-9a-f]{64}", line):
                    yield f"{name}: {line}"


def _files() -> Iterator[str]:
    for top in (
        paths.RUN,
        paths.CONTAINERS,
        paths.NAMES,
        paths.NETWORKS,
        paths.VOLUMES,
        f"{paths.STATE}/ids",
    ):
        for directory, _, names in os.walk(top):
            base = directory in BASE_DIRECTORIES or os.path.dirname(directory) == paths.RUN
            if directory != top and not base:
                yield directory
            for name in names:
                path = os.path.join(directory, name)
                if not BASE_FILES.search(path):
                    yield path


def _unit_files() -> Iterator[str]:
    """Files, links and drop-ins of containers' units, and what journald is to add to their lines."""
    for top in UNIT_FILES:
        for directory, names, files in os.walk(top):
            for name in (*names, *files):
                if re.search(r"(docker|sysbox)-([a-z]+-)?[0-9a-f]{64}\.", name):
                    yield f"{directory}/{name}"


def _devices() -> Iterator[str]:
    for name in _list("/dev"):
        try:
            status = os.lstat(f"/dev/{name}")
        except FileNotFoundError:
            continue  # it went meanwhile
        yield f"/dev/{name} {status.st_mode:o} {status.st_uid}:{status.st_gid} {status.st_rdev:x}"


SOURCES: dict[str, Callable[[], Iterator[str]]] = {
    "processes": _processes,
    "mounts of PID 1": _mounts,
    "links": lambda: iter(set(os.listdir("/sys/class/net")) - BASE_LINKS),
    "named network namespaces": lambda: iter(_list("/run/netns")),
    "firewall rules": _rules,
    "units": _units,
    "cgroups": _cgroups,
    "leases and ports": _leases,
    "files": _files,
    "unit files": _unit_files,
    "device nodes": _devices,
}
