"""Limits of running containers outlive what systemd does to itself: daemon-reload, daemon-reexec (S2-S5)."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from containers import V1, Container, Containers, eventually, systemctl
from lane import Sysbox
from test_spellings import settled

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


def directories(group: list[Container], sysbox: Sysbox) -> list[Path]:
    """Every container's cgroup in every hierarchy."""
    facts = probe()
    pids = sysbox("inspect", "-f", "{{.State.Pid}}", *(one.id for one in group), check=True).stdout
    found = []
    for pid in map(int, pids.split()):
        paths = cgroup.paths_of(pid)
        own = {name: paths.get(name, paths[cgroup.UNIFIED]) for name in facts.controllers}
        found += [Path(cgroup.directory(facts, *one)) for one in own.items() if one[1] != "/"]
    return found


def limits(where: list[Path]) -> dict[str, str]:
    """Every setting there: file -> content."""
    return {str(file): _read(file) for one in where for file in one.iterdir() if _is_limit(file)}


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


def test_no_limit_changes(containers: Containers, sysbox: Sysbox, disk: str) -> None:
    """Twenty containers, every kind of limit, by flags and by set-property: all the same afterwards."""
    group = [containers(*QUICK, *words) for words in flags(disk)]
    group.append(tuned := containers(*QUICK))
    assert len(group) >= COUNT
    systemctl(
        "set-property", tuned.scope, "CPUShares=128", "MemoryLimit=80M", "TasksMax=55",
        "CPUQuota=30%", f"BlockIOWriteBandwidth={disk} 2M",
    )  # fmt: skip
    # on v1 systemd's files are what loses a limit of one direction when the other is set
    both = next(
        one
        for words, one in zip(flags(disk), group, strict=False)
        if {"--device-read-bps", "--device-write-bps"} <= {*words}
    )
    both("update", "--device-read-bps", f"{disk}:5mb")
    # its helper has done what follows from a change by hand
    eventually(lambda: settled(tuned), "nothing is left to be set by its other name")
    where = directories(group, sysbox)
    before = limits(where)
    assert len(before) > 20 * COUNT
    for verb in ("daemon-reload", "daemon-reexec", "daemon-reload"):
        systemctl(verb)
        # `is-system-running` would say "unknown" of one that does not answer
        eventually(lambda: systemctl("show", "-P", "Version", check=False), "systemd is back")
        after = limits(where)
        changed = [
            (verb, file, before.get(file), after.get(file))
            for file in before | after
            if before.get(file) != after.get(file)
        ]
        assert changed == []
    _still_managed(group)


def _still_managed(group: list[Container]) -> None:
    """systemd goes on to apply what is set, sysbox to show it, and a new process is held as well."""
    shares, quota, pinned, stopped = group[0], group[1], group[3], group[6]
    systemctl("set-property", shares.scope, "CPUShares=200" if V1 else "CPUWeight=20")
    assert shares.limit("cpu", "cpu.shares" if V1 else "cpu.weight") == ("200" if V1 else "20")
    assert shares.inspect("HostConfig.CpuShares") == (200 if V1 else 204)
    assert quota.inspect("HostConfig.NanoCpus") == 500_000_000
    assert "Cpus_allowed_list:\t0" in pinned.exec("grep", "Cpus_allowed_list", "/proc/self/status")
    systemctl("stop", stopped.scope)
    stopped.await_state("exited")
