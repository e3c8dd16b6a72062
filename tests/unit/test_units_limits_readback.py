"""What the kernel's files say, in the terms of the properties: on directories that stand for a cgroup."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hostfacts import on_directories

from sysbox.host import HostFacts
from sysbox.units.limits import readback, table
from sysbox.units.limits.properties import INFINITY, CgroupWrite

PATH = "/system.slice/docker-1.scope"


@pytest.fixture(params=["v1", "v2"])
def facts(request: pytest.FixtureRequest, tmp_path: Path) -> HostFacts:
    """A host whose hierarchies are below a directory of the test's own."""
    return on_directories(request.param, tmp_path, PATH)


def put(facts: HostFacts, controller: str, file: str, text: str) -> None:
    Path(facts.controllers[controller] + PATH, file).write_text(text + "\n", encoding="ascii")


# mode, field, files and their texts, value
KERNEL: list[tuple[str, str, dict[str, str], Any]] = [
    ("v1", "cpu_shares", {"cpu.shares": "512"}, 512),
    ("v2", "cpu_shares", {"cpu.weight": "50"}, 50),
    ("v1", "nano_cpus", {"cpu.cfs_quota_us": "25000", "cpu.cfs_period_us": "50000"}, 500_000),
    ("v1", "nano_cpus", {"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, INFINITY),
    ("v2", "nano_cpus", {"cpu.max": "25000 50000"}, 500_000),
    ("v2", "nano_cpus", {"cpu.max": "max 100000"}, INFINITY),
    ("v2", "cpu_period", {"cpu.max": "max 50000"}, 50_000),
    ("v1", "memory", {"memory.limit_in_bytes": "9223372036854771712"}, INFINITY),
    ("v1", "memory", {"memory.limit_in_bytes": "67108864"}, 67108864),
    ("v2", "memory", {"memory.max": "max"}, INFINITY),
    ("v2", "pids", {"pids.max": "40"}, 40),
    ("v1", "pids", {}, None),
    ("v1", "cpuset_cpus", {"cpuset.cpus": "0-1,3"}, (0, 1, 3)),
    ("v2", "cpuset_cpus", {"cpuset.cpus": ""}, ()),
    ("v1", "blkio_weight", {"blkio.bfq.weight": "118"}, 118),
    ("v1", "blkio_weight", {"blkio.weight": "300"}, 300),
    ("v1", "device_read_bps", {"blkio.throttle.read_bps_device": "8:16 5\n8:0 1000"},
     (("8:0", 1000), ("8:16", 5))),
    ("v1", "device_read_bps", {"blkio.throttle.read_bps_device": ""}, ()),
    ("v2", "device_read_bps", {"io.max": "8:0 rbps=max wbps=7 riops=max wiops=max"}, ()),
    ("v2", "device_write_bps", {"io.max": "8:0 rbps=max wbps=7 riops=max wiops=max"}, (("8:0", 7),)),
    ("v1", "oom_kill_disable", {"memory.oom_control": "oom_kill_disable 1\nunder_oom 0"}, 1),
]  # fmt: skip


@pytest.mark.parametrize(("mode", "field", "files", "value"), KERNEL)
def test_kernel(tmp_path: Path, mode: str, field: str, files: dict[str, str], value: Any) -> None:
    facts = on_directories(mode, tmp_path, PATH)
    setting = table.by_field(field).setting(facts)
    for file, text in files.items():
        put(facts, setting.controller, file, text)
    assert readback.read_kernel(setting, PATH, facts) == value


def drift(facts: HostFacts, field: str, live: dict[str, Any], text: str) -> str:
    setting = table.by_field(field).setting(facts)
    put(facts, setting.controller, setting.file, text)
    if setting.file == "cpu.cfs_quota_us":
        put(facts, "cpu", "cpu.cfs_period_us", "100000")
    return readback.drift(setting, live, PATH, facts)


def test_the_kernel_rounds(tmp_path: Path) -> None:
    """Memory to pages, a quota to microseconds of its period, weights as the scheduler has them."""
    v1 = on_directories("v1", tmp_path, PATH)
    assert not drift(v1, "memory", {"MemoryLimit": 100_000_001}, "99999744")
    assert drift(v1, "memory", {"MemoryLimit": 100_000_001}, "99995648")
    assert not drift(v1, "nano_cpus", {"CPUQuotaPerSecUSec": 330_000}, "33000")
    assert drift(v1, "nano_cpus", {"CPUQuotaPerSecUSec": 330_000}, "34000")
    # half a percent, which is less than the shortest quota that systemd gives the kernel
    assert not drift(v1, "nano_cpus", {"CPUQuotaPerSecUSec": 5_000}, "1000")
    assert drift(v1, "nano_cpus", {"CPUQuotaPerSecUSec": 5_000}, "2000")
    assert not drift(v1, "blkio_weight", {"BlockIOWeight": 300}, "118")
    assert drift(v1, "blkio_weight", {"BlockIOWeight": 300}, "119")


def test_a_default_is_no_drift(facts: HostFacts) -> None:
    """Nobody has set it, and the kernel has what it begins with."""
    name, default = ("CPUShares", "1024") if facts.cgroup_mode == "v1" else ("CPUWeight", "100")
    assert not drift(facts, "cpu_shares", {name: INFINITY}, default)
    assert "has 99" in drift(facts, "cpu_shares", {name: INFINITY}, "99")
    assert drift(facts, "pids", {"TasksMax": INFINITY}, "7")
    assert drift(facts, "pids", {"TasksMax": 7}, "max")


def test_the_other_spelling_counts(tmp_path: Path) -> None:
    """CPUWeight is what systemd heeds where it is set, on v1 too."""
    v1 = on_directories("v1", tmp_path, PATH)
    assert not drift(v1, "cpu_shares", {"CPUShares": 700, "CPUWeight": 50}, "512")


@pytest.mark.parametrize(
    ("write", "text", "same"),
    [
        (CgroupWrite(controller="cpuset", file="cpuset.cpus", value="0,1,2"), "0-2", True),
        (CgroupWrite(controller="cpuset", file="cpuset.cpus", value="0"), "0-2", False),
        (CgroupWrite(controller="cpuset", file="cpuset.cpus", value="", inherit=True), "0-2", True),
        (CgroupWrite(controller="memory", file="memory.memsw.limit_in_bytes", value="100001"), "98304", True),
        (CgroupWrite(controller="memory", file="memory.memsw.limit_in_bytes", value="-1"),
         "9223372036854771712", True),
        (CgroupWrite(controller="memory", file="memory.swappiness", value="7"), "8", False),
        (CgroupWrite(controller="blkio", file="blkio.throttle.read_iops_device", value="8:0 5"),
         "8:16 3\n8:0 5", True),
    ],
)  # fmt: skip
def test_written(tmp_path: Path, write: CgroupWrite, text: str, same: bool) -> None:
    """What we have written ourselves."""
    v1 = on_directories("v1", tmp_path, PATH)
    put(v1, write.controller, write.file, text)
    assert (readback.write_drift(write, PATH, v1) == "") is same


def test_why_memory_was_refused(tmp_path: Path) -> None:
    v1 = on_directories("v1", tmp_path, PATH)
    setting = table.by_field("memory").setting(v1)
    put(v1, "memory", "memory.usage_in_bytes", "5000")
    put(v1, "memory", "memory.memsw.limit_in_bytes", "8000")
    assert "5000 bytes are in use" in readback.refusal_reason(setting, PATH, v1, 4000)
    assert "raise --memory-swap" in readback.refusal_reason(setting, PATH, v1, 9000)
    assert readback.refusal_reason(setting, PATH, v1, 6000) == ""
