"""A snapshot of a host's processes, mounts and the like, to find what a crowd of containers left behind."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
STATE = (Path("/run"), Path("/var/lib/sysbox"))  # the peers' state is below these, too
LOGS = frozenset({"/run/log", "/run/systemd/journal", "/run/udev"})  # change without containers
_FILTERS = ("iptables-save", "iptables-legacy-save")
_COUNTERS = re.compile(r"\[\d+:\d+\]|^#.*$|^:\S+ ", re.MULTILINE)
_STEP = 0.2  # seconds

Snapshot = dict[str, frozenset[str]]  # kind -> names of that kind


def take() -> Snapshot:
    """Processes, mounts, links, cgroups, systemd's units, rules of the packet filter, and files."""
    return {
        "processes": frozenset(_processes()),
        "mounts": frozenset(_mounts()),
        "links": frozenset(os.listdir("/sys/class/net")),
        "cgroups": frozenset(_directories(CGROUPS)),
        "units": frozenset(_units()),
        "rules": frozenset(_rules()),
        "files": frozenset(name for root in STATE for name in _entries(root)),
    }


def leftovers(before: Snapshot, seconds: float) -> tuple[Snapshot, float]:
    """Wait until nothing is left beyond `before`, or for `seconds`: (what is left, seconds waited)."""
    begin = time.monotonic()
    while True:
        now = take()
        more = {kind: now[kind] - before[kind] for kind in before if now[kind] - before[kind]}
        took = time.monotonic() - begin
        if not more or took > seconds:
            return more, took
        time.sleep(_STEP)


def _processes() -> Iterator[str]:
    me = os.getpid()
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == me:
            continue
        try:
            name, _, rest = Path(f"/proc/{entry}/stat").read_text().rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        fields = rest.split()
        if fields[1] != "2":  # the parent of kernel threads
            yield f"{name}) since {fields[19]}"


def _mounts() -> Iterator[str]:
    for line in Path("/proc/1/mountinfo").read_text().splitlines():
        yield line.split()[4]


def _directories(root: Path) -> Iterator[str]:
    for path, names, _ in os.walk(root):
        yield from (f"{path}/{name}" for name in names)


def _entries(root: Path) -> Iterator[str]:
    for path, directories, files in os.walk(root):
        directories[:] = [name for name in directories if f"{path}/{name}" not in LOGS]
        yield from (f"{path}/{name}" for name in (*directories, *files))


def _units() -> list[str]:
    words = ["systemctl", "list-units", "--all", "--plain", "--no-legend", "--no-pager"]
    lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    return [line.split()[0] for line in lines if line]


def _rules() -> list[str]:
    found = []
    for program in _FILTERS:
        try:
            done = subprocess.run([program], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            continue
        found += [f"{program}: {line}" for line in _COUNTERS.sub("", done.stdout).splitlines()]
    return found
