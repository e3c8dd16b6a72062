"""The limits that `inspect` shows of a running container: what the kernel has, in docker's terms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hostfacts import on_directories

from sysbox.docker import live
from sysbox.docker.live import Live
from sysbox.spec import Limits
from sysbox.units.limits.properties import INFINITY

PATH = "/system.slice/docker-1.scope"
MIB = 1 << 20
UNLIMITED = "9223372036854771712"  # a page less than 2 to the 63, as v1 writes it

# a cgroup for which nobody has asked anything, as the kernel makes it
V1_FILES = {
    "cpu/cpu.shares": "1024",
    "cpu/cpu.cfs_quota_us": "-1",
    "cpu/cpu.cfs_period_us": "100000",
    "cpuset/cpuset.cpus": "",
    "cpuset/cpuset.mems": "",
    "memory/memory.limit_in_bytes": UNLIMITED,
    "memory/memory.soft_limit_in_bytes": UNLIMITED,
    "memory/memory.memsw.limit_in_bytes": UNLIMITED,
    "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0",
    "memory/memory.swappiness": "60",
    "pids/pids.max": "max",
}
V2_FILES = {
    "cpu.weight": "100",
    "cpu.max": "max 100000",
    "cpuset.cpus": "",
    "cpuset.mems": "",
    "memory.max": "max",
    "memory.swap.max": "max",
    "memory.low": "0",
    "pids.max": "max",
    "io.max": "",
}


def shown(
    mode: str,
    root: Path,
    files: dict[str, str],
    properties: dict[str, Any] | None = None,
    tuned: dict[str, str] | None = None,
    **asked: Any,
) -> dict[str, Any]:
    """The entries of HostConfig for a cgroup whose files are these, over the kernel's own."""
    facts = on_directories(mode, root, PATH)
    for name, text in ({"v1": V1_FILES, "v2": V2_FILES}[mode] | files).items():
        controller, _, file = name.rpartition("/")
        (root / controller / PATH[1:] / file).write_text(text + "\n", encoding="ascii")
    if mode == "v1":  # what is above has the same, which is no wish of the container's
        above = root / "memory" / "system.slice" / "memory.swappiness"
        above.write_text("60\n", encoding="ascii")
    found = Live(facts=facts, path=PATH, properties=properties or {})
    return live.host_config(found, Limits(**asked), tuned or {})


@pytest.mark.parametrize("mode", ["v1", "v2"])
def test_without_a_limit(tmp_path: Path, mode: str) -> None:
    """docker's zeros: not the kernel's defaults, and not systemd's infinity."""
    found = shown(mode, tmp_path, {})
    for key in ("CpuShares", "NanoCpus", "CpuQuota", "CpuPeriod", "Memory", "MemorySwap"):
        assert found[key] == 0, key
    assert (found["CpusetCpus"], found["CpusetMems"]) == ("", "")
    assert found["PidsLimit"] is None
    if mode == "v1":
        assert found["MemorySwappiness"] is None
        assert found["OomKillDisable"] is False


@pytest.mark.parametrize(
    ("mode", "files", "expected"),
    [
        ("v1", {"cpu/cpu.shares": "512"}, {"CpuShares": 512}),
        ("v2", {"cpu.weight": "50"}, {"CpuShares": 512}),
        ("v1", {"cpuset/cpuset.cpus": "0-1,3"}, {"CpusetCpus": "0-1,3"}),
        ("v2", {"cpuset.mems": "0"}, {"CpusetMems": "0"}),
        ("v1", {"pids/pids.max": "40"}, {"PidsLimit": 40}),
        ("v2", {"pids.max": "40"}, {"PidsLimit": 40}),
        ("v1", {"memory/memory.limit_in_bytes": str(64 * MIB)},
         {"Memory": 64 * MIB, "MemorySwap": -1}),
        ("v1", {"memory/memory.limit_in_bytes": str(64 * MIB),
                "memory/memory.memsw.limit_in_bytes": str(96 * MIB)},
         {"Memory": 64 * MIB, "MemorySwap": 96 * MIB}),
        # of v2 it is swap alone
        ("v2", {"memory.max": str(64 * MIB), "memory.swap.max": str(32 * MIB)},
         {"Memory": 64 * MIB, "MemorySwap": 96 * MIB}),
        ("v2", {"memory.max": str(64 * MIB)}, {"Memory": 64 * MIB, "MemorySwap": -1}),
        ("v2", {"memory.swap.max": str(32 * MIB)}, {"Memory": 0, "MemorySwap": 0}),
        ("v2", {"memory.low": str(16 * MIB)}, {"MemoryReservation": 16 * MIB}),
        ("v1", {"memory/memory.soft_limit_in_bytes": str(16 * MIB)}, {"MemoryReservation": 16 * MIB}),
        ("v1", {"memory/memory.swappiness": "10"}, {"MemorySwappiness": 10}),
        ("v1", {"memory/memory.oom_control": "oom_kill_disable 1\nunder_oom 0"},
         {"OomKillDisable": True}),
        ("v2", {"io.max": "8:0 rbps=7 wbps=max riops=max wiops=9"},
         {"BlkioDeviceReadBps": [{"Path": "8:0", "Rate": 7}], "BlkioDeviceWriteBps": [],
          "BlkioDeviceReadIOps": [], "BlkioDeviceWriteIOps": [{"Path": "8:0", "Rate": 9}]}),
    ],
)  # fmt: skip
def test_what_the_kernel_has(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    files: dict[str, str],
    expected: dict[str, Any],
) -> None:
    monkeypatch.setattr(live, "_node", lambda number: number)  # whatever disks there are here
    found = shown(mode, tmp_path, files)
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("mode", "files"),
    [
        ("v1", {"cpu/cpu.cfs_quota_us": "25000", "cpu/cpu.cfs_period_us": "50000"}),
        ("v2", {"cpu.max": "25000 50000"}),
    ],
)
def test_a_quota_is_shown_under_the_flag_that_asked_for_it(
    tmp_path: Path, mode: str, files: dict[str, str]
) -> None:
    def quota(**asked: Any) -> tuple[int, int, int]:
        found = shown(mode, tmp_path, files, {"CPUQuotaPeriodUSec": 50_000}, **asked)
        return found["NanoCpus"], found["CpuQuota"], found["CpuPeriod"]

    assert quota(nano_cpus=500_000_000) == (500_000_000, 0, 0)
    assert quota(nano_cpus=100_000_000) == (500_000_000, 0, 0)  # another has changed it since
    assert quota(cpu_quota=25_000, cpu_period=50_000) == (0, 25_000, 50_000)
    assert quota() == (0, 25_000, 50_000)


def test_a_period_is_kept_until_there_is_a_quota(tmp_path: Path) -> None:
    period = {"CPUQuotaPeriodUSec": 50_000}
    found = shown("v2", tmp_path, {}, period, cpu_period=50_000)
    assert (found["CpuPeriod"], found["CpuQuota"]) == (50_000, 0)
    found = shown("v2", tmp_path, {}, period, cpu_quota=-1, cpu_period=50_000)
    assert (found["CpuPeriod"], found["CpuQuota"]) == (50_000, -1)
    found = shown("v2", tmp_path, {}, {"CPUQuotaPeriodUSec": INFINITY})
    assert (found["CpuPeriod"], found["CpuQuota"]) == (0, 0)


@pytest.mark.parametrize(
    ("weight", "asked", "tuned", "shares"),
    [
        ("50", 512, {}, 512),
        ("50", 515, {}, 515),  # comes to the same weight
        ("50", 1024, {}, 512),  # another has changed it since
        ("50", None, {"CPUShares": "514"}, 514),
        ("10000", None, {}, 102400),
    ],
)
def test_shares_are_those_that_were_asked_where_they_come_to_the_weight(
    tmp_path: Path, weight: str, asked: int | None, tuned: dict[str, str], shares: int
) -> None:
    found = shown("v2", tmp_path, {"cpu.weight": weight}, {}, tuned, cpu_shares=asked)
    assert found["CpuShares"] == shares


def test_unlimited_swap_was_asked_for(tmp_path: Path) -> None:
    assert shown("v1", tmp_path, {}, memory_swap=-1)["MemorySwap"] == -1
    assert shown("v2", tmp_path, {}, memory_swap=-1)["MemorySwap"] == -1


def test_a_swappiness_that_was_asked_for_is_shown_where_it_is_the_slice_s(tmp_path: Path) -> None:
    assert shown("v1", tmp_path, {}, memory_swappiness=60)["MemorySwappiness"] == 60
