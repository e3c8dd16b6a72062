"""Limits of running containers outlive what systemd does to itself: daemon-reload, daemon-reexec (S2-S5)."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from containers import V1, Container, Containers, eventually, systemctl

from sysbox.host import probe
from sysbox.linux import cgroup

COUNT = 20  # containers
QUICK = ("--network", "none", "--stop-signal", "KILL")
# writable, and no setting
NO_LIMIT = {
    "cgroup.event_control", "cgroup.procs", "cgroup.threads", "cpuacct.usage", "devices.allow",
    "devices.deny", "memory.force_empty", "memory.pressure_level", "memory.reclaim", "tasks",
}  # fmt: skip
COUNTERS = ("failcnt", "max_usage_in_bytes", ".pressure", ".peak", "reset_stats", ".kill")
# read-only, and a setting after all
READ_ONLY = ("devices.list",)


def flags(disk: str) -> list[list[str]]:
    """One list of flags for each container: every kind of limit, alone and beside others."""
    return [
        ["-c", "512"],
        ["--cpus", "0.5"],
        ["--cpu-period", "50000", "--cpu-quota", "20000"],
        ["--cpuset-cpus", "0"],
        ["--cpuset-cpus", "0", "--cpuset-mems", "0", "-c", "300"],
        ["-m", "64m"],
        ["-m", "64m", "--memory-swap", "96m"],
        ["-m", "96m", "--memory-swap", "-1"],
        ["-m", "64m", "--memory-reservation", "32m"],
        ["--memory-reservation", "48m"],
        ["--pids-limit", "33"],
        ["--pids-limit", "-1"],
        ["--blkio-weight", "300"],
        ["--device-read-bps", f"{disk}:2mb"],
        ["--device-write-bps", f"{disk}:1mb"],
        ["--device-read-bps", f"{disk}:3mb", "--device-write-bps", f"{disk}:4mb"],
        ["--device", disk],
        ["--privileged"],
        ["--property", "TasksMax=44", "--property", "CPUWeight=50"],
        *([
            ["--memory-swappiness", "10", "--device-read-iops", f"{disk}:100"],
            ["--oom-kill-disable", "-m", "32m", "--device-write-iops", f"{disk}:200"],
            ["--cpu-idle", "--device-cgroup-rule", "c 10:229 rwm"],
        ] if V1 else [
            ["--memory-high", "48m", "--device-read-iops", f"{disk}:100"],
            ["--memory-min", "8m", "--device-write-iops", f"{disk}:200"],
            ["--cpu-idle", "--device-cgroup-rule", "c 10:229 rwm"],
        ]),
    ]  # fmt: skip


def limits(containers: list[Container]) -> dict[str, str]:
    """Every setting of every container, in every hierarchy: file -> content."""
    facts = probe()
    found = {}
    for one in containers:
        paths = cgroup.paths_of(one.pid)
        for controller in facts.controllers:
            path = paths.get(controller, paths[cgroup.UNIFIED])
            if path == "/":
                continue
            directory = Path(cgroup.directory(facts, controller, path))
            found |= {str(file): _read(file) for file in directory.iterdir() if _is_limit(file)}
    return found


def _is_limit(file: Path) -> bool:
    if file.name in READ_ONLY:
        return True
    mode = file.lstat().st_mode
    readable_and_writable = stat.S_ISREG(mode) and mode & 0o600 == 0o600
    return readable_and_writable and file.name not in NO_LIMIT and not file.name.endswith(COUNTERS)


def _read(file: Path) -> str:
    try:
        text = file.read_text(encoding="ascii")
    except OSError as error:  # memory.kmem.slabinfo and others that need a kernel option
        return os.strerror(error.errno or 0)
    # a set of rules: systemd gives it again from the last to the first
    return "".join(sorted(text.splitlines(True))) if file.name == "devices.list" else text


@pytest.mark.parametrize("verb", ["daemon-reload", "daemon-reexec"])
def test_no_limit_changes(containers: Containers, disk: str, verb: str) -> None:
    """Twenty containers, every kind of limit, by flags and by set-property: all the same afterwards."""
    group = [containers(*QUICK, *words) for words in flags(disk)]
    group.append(tuned := containers(*QUICK))
    assert len(group) >= COUNT
    systemctl(
        "set-property", tuned.scope, "CPUShares=128", "MemoryLimit=80M", "TasksMax=55",
        "CPUQuota=30%", f"BlockIOWriteBandwidth={disk} 2M",
    )  # fmt: skip
    before = limits(group)
    assert len(before) > 20 * COUNT
    systemctl(verb)
    if verb == "daemon-reexec":
        eventually(lambda: systemctl("is-system-running", check=False), "systemd is back")
    after = limits(group)
    changed = {file: (before.get(file), after.get(file))
               for file in before | after if before.get(file) != after.get(file)}  # fmt: skip
    assert changed == {}
    _still_managed(group, disk)


def _still_managed(group: list[Container], disk: str) -> None:
    """systemd goes on to apply what is set, sysbox to show it, and a new process is held as well."""
    shares, quota = group[0], group[1]
    systemctl("set-property", shares.scope, "CPUShares=200" if V1 else "CPUWeight=20")
    assert shares.limit("cpu", "cpu.shares" if V1 else "cpu.weight") == ("200" if V1 else "20")
    assert shares.inspect("HostConfig.CpuShares") == (200 if V1 else 204)
    assert quota.inspect("HostConfig.NanoCpus") == 500_000_000
    pinned = group[3]
    assert "Cpus_allowed_list:\t0" in pinned.exec("grep", "Cpus_allowed_list", "/proc/self/status")
    member = next(words for words, one in zip(flags(disk), group, strict=False) if one is group[5])
    assert member == ["-m", "64m"]
    systemctl("stop", group[6].scope)
    group[6].await_state("exited")
