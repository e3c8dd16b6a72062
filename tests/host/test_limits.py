"""Limits of running containers, as the kernel applies them (S1 to S5, S12).

In the guest: each limit is another file of v2, and a device's rate is held by another controller.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from containers import V1, Container, Containers, eventually, share_of_cpu, systemctl, within
from lane import IMAGE, SLOWNESS, Sysbox

from sysbox.host import probe
from sysbox.linux import cgroup
from sysbox.units.cgroup import blockdev

RATE = 2_000_000  # systemd's "2M" of a bandwidth
COUNT = 64  # blocks of 64 KiB: long enough that what the kernel lets through at first is little


def test_s1_the_scope_in_the_tree(containers: Containers) -> None:
    """S1: systemd-cgls shows docker-<id>.scope in system.slice, and its processes below it."""
    one = containers(command=("sleep", "4711"))
    tree = _tree()
    assert one.scope in tree
    assert "sleep 4711" in tree[tree.index(one.scope) :]
    assert systemctl("show", "-P", "ControlGroup", one.scope) == f"/system.slice/{one.scope}"
    assert systemctl("show", "-P", "Delegate", one.scope) == "yes"
    assert cgroup.path_of(one.pid, "memory") == f"/system.slice/{one.scope}"


def _tree(scope: str = "") -> str:
    """systemd-cgls of system.slice, or of a scope in it."""
    return subprocess.run(
        ["systemd-cgls", "--no-pager", "--full", f"/system.slice/{scope}"],
        capture_output=True, text=True, check=True, timeout=30 * SLOWNESS,
    ).stdout  # fmt: skip


def test_s1_a_systemd_inside(containers: Containers) -> None:
    """S1: a container whose PID 1 is systemd shows a system.slice of its own below the scope."""
    one = containers(
        "--privileged", "--stop-signal", "RTMIN+3", command=("/lib/systemd/systemd",), image="host"
    )
    journal = (
        one.cgroup("name=systemd" if V1 else "memory") / "system.slice/systemd-journald.service"
    )
    eventually(journal.is_dir, "a journal of its own")
    # the directory comes before the process, and systemd-cgls leaves out what is empty
    within = re.compile(r"system\.slice.*\n(.*\n)*.*systemd-journald\.service")
    eventually(lambda: within.search(_tree(one.scope)), "the container's units in the tree")
    one("stop", "-t", "30")
    assert one.inspect("State.ExitCode") in (0, 130)


@pytest.mark.v1_only("the files are those of the v1 controllers; tests/vm has those of v2")
def test_s2_s3_s4_as_in_the_seeds(containers: Containers) -> None:
    """S2, S3, S4: -c 512, --cpuset=0,1, -m 128m; changed live; and none of it undone by a reload."""
    one = containers(
        "-c", "512", "--cpuset=0,1" if (os.cpu_count() or 1) > 1 else "--cpuset=0", "-m", "128m"
    )

    def limits() -> list[str]:
        return [
            one.limit("cpu", "cpu.shares"),
            one.limit("cpuset", "cpuset.cpus"),
            one.limit("memory", "memory.limit_in_bytes"),
            one.limit("memory", "memory.memsw.limit_in_bytes"),
        ]

    cpus = "0-1" if (os.cpu_count() or 1) > 1 else "0"
    assert limits() == ["512", cpus, "134217728", "268435456"]
    systemctl("set-property", "--runtime", one.scope, "CPUShares=128")
    systemctl("daemon-reload")
    assert limits() == ["128", cpus, "134217728", "268435456"]
    assert one.inspect("HostConfig.CpuShares") == 128


# what others set, by the names that systemd has on both up to 257 -> what the first inspect after it shows
SET = {
    "CPUShares=256": ("CpuShares", 256),
    "MemoryLimit=96M": ("Memory", 96 << 20),
    "CPUQuota=30%": ("CpuQuota", 30_000),
    "TasksMax=71": ("PidsLimit", 71),
    "BlockIOWeight=200": ("BlkioWeight", 200),
    "BlockIOReadBandwidth=DISK 3M": ("BlkioDeviceReadBps", [{"Path": "DISK", "Rate": 3_000_000}]),
    "BlockIOWriteBandwidth=DISK 4M": ("BlkioDeviceWriteBps", [{"Path": "DISK", "Rate": 4_000_000}]),
}


@pytest.mark.guest("other properties on v2")
def test_inspect_shows_what_others_set(containers: Containers, disk: str) -> None:
    """A set-property from outside is in the very next `inspect`."""
    one = containers()
    for setting, (key, expected) in SET.items():
        systemctl("set-property", one.scope, setting.replace("DISK", disk))
        shown = one.inspect(f"HostConfig.{key}")
        if isinstance(expected, list):
            expected = [{**expected[0], "Path": disk}]
        assert shown == expected, setting


@pytest.mark.v1_only("the files are those of the v1 controllers; tests/vm has those of v2")
def test_s2_s4_defaults(containers: Containers) -> None:
    """S2, S4: 1024 shares, and unlimited memory and swap."""
    one = containers()
    assert one.limit("cpu", "cpu.shares") == "1024"
    assert int(one.limit("memory", "memory.limit_in_bytes")) > 1 << 62
    assert int(one.limit("memory", "memory.memsw.limit_in_bytes")) > 1 << 62


@pytest.mark.parametrize("direction", ["Write", "Read"])
def test_s5_block_io(containers: Containers, disk: str, direction: str) -> None:
    """S5: set-property BlockIOWriteBandwidth and ...ReadBandwidth hold a direct-I/O dd in the container."""
    one = containers("--device", disk)
    systemctl("set-property", "--runtime", one.scope, f"BlockIO{direction}Bandwidth={disk} 2M")
    number = os.stat(disk).st_rdev
    shown = f"{os.major(number)}:{os.minor(number)} "
    # systemd answers before it writes
    if V1:
        file = f"blkio.throttle.{direction.lower()}_bps_device"
        eventually(lambda: one.limit("blkio", file) == f"{shown}{RATE}", "the limit is written")
    else:
        eventually(lambda: one.limit("io", "io.max").startswith(shown), "the limit is written")
    words = {
        "Write": f"if=/dev/zero of={disk} oflag=direct",
        "Read": f"if={disk} of=/dev/null iflag=direct",
    }[direction]
    within(lambda: dd_rate(one, words), 0.85 * RATE / SLOWNESS, 1.15 * RATE)


def dd_rate(one: Container, words: str) -> float:
    """Bytes per second of a dd in the container, by the clock in there."""
    clock = "read -r seconds _ </proc/uptime; echo $seconds"
    said = one.sh(f"{clock}; dd {words} bs=64k count={COUNT} 2>/dev/null; {clock}")
    start, end = map(float, said.split())
    return (COUNT << 16) / (end - start)


def test_s5_the_flags_of_run(containers: Containers, disk: str) -> None:
    """S5: --device-write-bps and --device-read-bps set the same."""
    one = containers("--device-write-bps", f"{disk}:1mb", "--device-read-bps", f"{disk}:2mb")
    number = os.stat(disk).st_rdev
    shown = f"{os.major(number)}:{os.minor(number)}"
    if V1:
        assert one.limit("blkio", "blkio.throttle.write_bps_device") == f"{shown} {1 << 20}"
        assert one.limit("blkio", "blkio.throttle.read_bps_device") == f"{shown} {2 << 20}"
    else:
        assert one.limit("io", "io.max").startswith(f"{shown} rbps={2 << 20} wbps={1 << 20}")


def test_s5_the_disk_that_inspect_finds(containers: Containers, requires: Any) -> None:
    """S5: the device below the container's root, from `inspect`, is throttled for its own writes."""
    one = containers()
    upper = one.inspect("GraphDriver.Data.UpperDir")
    device = blockdev.disk_of(upper).node
    requires(device, "a disk below the containers' roots")
    systemctl("set-property", "--runtime", one.scope, f"BlockIOWriteBandwidth={device} 2M")
    words = "if=/dev/zero of=/file oflag=direct"
    within(lambda: dd_rate(one, words), 0.85 * RATE / SLOWNESS, 1.15 * RATE)


def test_s12_resource_limits(containers: Containers) -> None:
    """S12: number of processes and of open files, of the first process and of an exec."""
    one = containers("--ulimit", "nofile=512:1024", "--ulimit", "nproc=64", "--ulimit", "core=0")
    script = "ulimit -Sn; ulimit -Hn; ulimit -Su; ulimit -c"
    assert one.sh(script).split() == ["512", "1024", "64", "0"]
    table = Path(f"/proc/{one.pid}/limits").read_text(encoding="ascii")
    assert re.search(r"Max open files +512 +1024 ", table)
    assert re.search(r"Max processes +64 +64 ", table)


def test_pids_limit_bounds_a_fork_bomb(containers: Containers) -> None:
    """S12, S18: --pids-limit holds a fork bomb, and all of it ends with its container."""
    one = containers("--pids-limit", "20")
    assert one.limit("pids", "pids.max") == "20"
    one.sh("(bomb() { bomb | bomb & }; bomb) >/dev/null 2>&1 &")
    eventually(lambda: one.limit("pids", "pids.events") != "max 0", "the limit is reached")
    assert int(one.limit("pids", "pids.current")) <= 20
    one("rm", "-f")


def test_an_exec_that_finds_no_room(containers: Containers, sysbox: Sysbox) -> None:
    """At --pids-limit the kernel says "temporarily unavailable": the advice says what to raise."""
    one = containers("--pids-limit", "1")
    done = sysbox("exec", one.id, "true")
    assert done.returncode == 125
    assert "--pids-limit" in done.stderr


def test_out_of_memory(containers: Containers) -> None:
    """S4: beyond -m the kernel ends it: 137, and the record says why, detached and in the foreground."""
    one = containers(
        "-m",
        "16m",
        "--memory-swap",
        "16m",
        command=("sh", "-c", "x=aaaaaaaa; while :; do x=$x$x; done"),
    )
    one.await_state("exited")
    assert one.inspect("State.OOMKilled") is True
    assert one.inspect("State.ExitCode") == 137
    if not V1:  # systemd hears of it through memory.events, which v1 has not
        assert systemctl("show", "-P", "Result", one.scope) == "oom-kill"


@pytest.mark.v1_only("there /proc shows a process that ends at the root of every hierarchy")
def test_memory_that_is_too_little_for_a_start(containers: Containers, sysbox: Sysbox) -> None:
    """A start that the kernel ends says so, and no limit of it goes to the root of a hierarchy."""
    root = Path(probe().controllers["memory"])
    files = [root / "memory.swappiness", root / "memory.soft_limit_in_bytes"]
    before = [file.read_text(encoding="ascii") for file in files]
    flags = ("--memory-swappiness", "13", "--memory-reservation", "33m", "--stop-timeout", "1")
    one = containers(*flags, "--network", "none", "--init", command=("sleep", "1000"))
    systemctl("set-property", "--runtime", one.scope, "MemoryMax=1", check=False)
    try:
        failed = [
            done.stderr.splitlines()
            for done in (sysbox("restart", "-t", "0", one.id) for _ in range(15))
            if done.returncode
        ]
        assert [file.read_text(encoding="ascii") for file in files] == before
    finally:
        for file, text in zip(files, before, strict=True):
            file.write_text(text, encoding="ascii")
    for what, hint in failed:
        assert what == "sysbox: its process was killed before its command ran"
        assert "--memory" in hint


def test_a_longest_time(containers: Containers, sysbox: Sysbox) -> None:
    """RuntimeMaxSec= of a scope: the container gets its stop signal, and SIGKILL after its --stop-timeout."""
    flags = ("--rm", "--init", "--network", "none", "--property", "RuntimeMaxSec=2", IMAGE)
    script = 'trap "echo asked; exit 5" TERM; while :; do sleep 0.1; done'
    done = sysbox("run", *flags, "sh", "-c", script)
    assert (done.returncode, done.stdout) == (5, "asked\n"), done.stderr
    script = 'trap "" TERM; while :; do sleep 0.1; done'
    done = sysbox("run", "--stop-timeout", "1", *flags, "sh", "-c", script)
    assert done.returncode == 137, done.stderr


# those of S18; on v2 the others are implicit, or there is no such thing
SUBSYSTEMS = ("blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "net_cls",
              "perf_event", "pids")  # fmt: skip


def test_s18_every_subsystem_has_the_containers_own_cgroup(containers: Containers) -> None:
    """S18: in each mounted hierarchy the scope's own, of the first process and of an exec; gone with it."""
    facts = probe()
    asked = ("--net-cls", "0x10001") if "net_cls" in facts.controllers else ()
    one = containers("--cpuset-cpus", "0", *asked)
    mounted = [name for name in SUBSYSTEMS if name in facts.controllers]
    assert len(mounted) >= (9 if V1 else 3)
    assert {cgroup.path_of(one.pid, name) for name in mounted} == {f"/system.slice/{one.scope}"}
    before = {name: set(one.limit(name, "cgroup.procs").split()) for name in mounted}
    one.exec("sleep", "1000", flags=("-d",))
    for name in mounted:
        assert len(set(one.limit(name, "cgroup.procs").split()) - before[name]) == 1, name
    directories = [one.cgroup(name) for name in mounted]
    one("rm", "-f")
    assert [str(directory) for directory in directories if directory.exists()] == []


def test_cpu_quota_holds(containers: Containers) -> None:
    """S18: --cpus 0.2 for a process that takes all it gets."""
    one = containers("--cpus", "0.2", command=("sh", "-c", "while :; do :; done"))
    pid = one.pid
    assert 0.1 < share_of_cpu(one.cgroup("cpu"), lambda: _cpu_seconds(pid)) < 0.3


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_slice_and_property(containers: Containers) -> None:
    """The scope below a slice of the user's own, with a property that no flag has."""
    one = containers("--slice", "sysboxtest.slice", "--property", "TasksMax=77")
    assert systemctl("show", "-P", "Slice", one.scope) == "sysboxtest.slice"
    assert systemctl("show", "-P", "TasksMax", one.scope) == "77"
    directory = cgroup.directory(probe(), "pids", f"/sysboxtest.slice/{one.scope}")
    assert (Path(directory) / "pids.max").read_text(encoding="ascii") == "77\n"
    one("rm", "-f")
    systemctl("stop", "sysboxtest.slice")


def test_memory_as_a_property_beside_the_flag(containers: Containers) -> None:
    """--property overrides -m; the kernel takes no lower limit of memory and swap together (v1)."""
    for text, limit in (
        ("MemoryMax=1G", 1 << 30),
        ("MemoryMax=infinity", None),
        ("MemoryMax=50%", None),
    ):
        one = containers("-m", "10m", "--property", text)
        if limit is not None and V1:
            assert one.limit("memory", "memory.limit_in_bytes") == str(limit)
            assert one.limit("memory", "memory.memsw.limit_in_bytes") == str(limit)
        assert one.inspect("State.Running") is True
        one("rm", "-f")


MIB = 1 << 20
# flags -> what docker shows then, running or not; a later update -> the same
UNLIMITED = (
    (("-m", "64m", "--memory-swap", "-1"), {"Memory": 64 * MIB, "MemorySwap": -1}),
    (("--memory-swap", "-1"), {"Memory": 0, "MemorySwap": -1}),
    (("-m", "64m"), {"MemorySwap": 128 * MIB}),
    (("--cpu-quota", "-1"), {"CpuQuota": -1, "CpuPeriod": 0, "NanoCpus": 0}),
    (("--cpu-period", "200000"), {"CpuQuota": 0, "CpuPeriod": 200_000}),
    (("--cpu-period", "200000", "--cpu-quota", "-1"), {"CpuQuota": -1, "CpuPeriod": 200_000}),
    (("-m", "0", "-c", "0", "--cpus", "0", "--blkio-weight", "0", "--memory-reservation", "0"),
     {"Memory": 0, "MemorySwap": 0, "CpuShares": 0, "NanoCpus": 0, "BlkioWeight": 0,
      "MemoryReservation": 0, "CpusetCpus": ""}),
    (("--pids-limit", "-1"), {"PidsLimit": None, "OomKillDisable": False}),
)  # fmt: skip


def test_no_limit_is_shown_as_docker_has_it(containers: Containers) -> None:
    """-1 where it was asked for or is what docker makes of it, else 0, and null where docker has null."""
    for flags, shown in UNLIMITED:
        one = containers("--network", "none", *flags, verb=("create",))
        for _ in range(2):
            config = json.loads(one("inspect"))[0]["HostConfig"]
            assert {key: config[key] for key in shown} == shown, flags
            assert config["MemorySwappiness"] is None
            one("start")


def test_the_period_of_a_quota_that_is_lifted(containers: Containers, sysbox: Sysbox) -> None:
    """It is kept for the next one, though the kernel has its own meanwhile."""
    one = containers("--cpu-period", "200000", "--cpu-quota", "50000", "-m", "64m")
    for flags, shown in (
        (("--cpu-quota", "-1"), {"CpuQuota": -1, "CpuPeriod": 200_000}),
        (("--cpu-period", "100000"), {"CpuQuota": -1, "CpuPeriod": 100_000}),
        (("--cpu-quota", "30000"), {"CpuQuota": 30_000, "CpuPeriod": 100_000}),
        (("--cpu-quota", "0"), {"CpuQuota": 0, "CpuPeriod": 100_000}),
        (("--cpu-period", "0"), {"CpuQuota": 0, "CpuPeriod": 0}),
        (("--memory-swap", "-1"), {"MemorySwap": -1, "Memory": 64 * MIB}),
        (("-m", "80m"), {"MemorySwap": -1, "Memory": 80 * MIB}),
        (("--pids-limit", "-1"), {"PidsLimit": None}),
    ):
        one("update", *flags)
        config = json.loads(one("inspect"))[0]["HostConfig"]
        assert {key: config[key] for key in shown} == shown, flags
        assert sysbox("explain", one.id).returncode == 0
