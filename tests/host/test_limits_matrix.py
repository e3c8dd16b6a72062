"""Every limit that sysbox itself writes on cgroup v1, and rules for devices: in force, and after a reload.

In the guest: v2 has other limits, and refuses or explains those that it lacks.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from containers import V1, Container, Containers, eventually, systemctl
from lane import Sysbox

from sysbox.host import probe
from sysbox.parse.limits import page_size_name

on_v1 = pytest.mark.v1_only("the files are those of the v1 controllers; tests/vm has those of v2")
MIB = 1 << 20


def number(disk: str) -> str:
    """MAJOR:MINOR."""
    device = os.stat(disk).st_rdev
    return f"{os.major(device)}:{os.minor(device)}"


def files(one: Container, wanted: dict[str, str]) -> dict[str, str]:
    """What is in the cgroup files that are named CONTROLLER/FILE."""
    return {name: one.limit(*name.split("/")) for name in wanted}


def holds(one: Container, wanted: dict[str, str]) -> None:
    """The files have these values, and after a daemon-reload too."""
    assert files(one, wanted) == wanted
    systemctl("daemon-reload")
    assert files(one, wanted) == wanted


@on_v1
def test_of_cpu_and_memory(containers: Containers) -> None:
    one = containers(
        "--cpu-idle", "-m", "64m", "--memory-reservation", "32m", "--memory-swappiness", "7",
        "--oom-kill-disable", "--cpuset-cpus", "0", "--cpuset-mems", "0",
    )  # fmt: skip
    holds(
        one,
        {
            "cpu/cpu.idle": "1",
            "memory/memory.limit_in_bytes": str(64 * MIB),
            "memory/memory.memsw.limit_in_bytes": str(128 * MIB),
            "memory/memory.soft_limit_in_bytes": str(32 * MIB),
            "memory/memory.swappiness": "7",
            "memory/memory.oom_control": "oom_kill_disable 1\nunder_oom 0\noom_kill 0",
            "cpuset/cpuset.cpus": "0",
            "cpuset/cpuset.mems": "0",
        },
    )
    config = one.inspect("HostConfig")
    assert (config["MemorySwappiness"], config["OomKillDisable"]) == (7, True)


@on_v1
def test_of_operations_on_a_disk(containers: Containers, disk: str) -> None:
    one = containers(
        "--device-read-iops", f"{disk}:50", "--device-write-iops", f"{disk}:60",
        "--device-read-bps", f"{disk}:1m", "--device-write-bps", f"{disk}:2m",
    )  # fmt: skip
    holds(
        one,
        {
            "blkio/blkio.throttle.read_iops_device": f"{number(disk)} 50",
            "blkio/blkio.throttle.write_iops_device": f"{number(disk)} 60",
            "blkio/blkio.throttle.read_bps_device": f"{number(disk)} {MIB}",
            "blkio/blkio.throttle.write_bps_device": f"{number(disk)} {2 * MIB}",
        },
    )


def test_operations_are_held(containers: Containers, disk: str) -> None:
    """40 direct reads at 20 a second take two seconds; the first come through at once."""
    one = containers("--device", disk, "--device-read-iops", f"{disk}:20")
    clock = "read -r seconds _ </proc/uptime; echo $seconds"
    said = one.sh(
        f"{clock}; dd if={disk} of=/dev/null iflag=direct bs=4k count=40 2>/dev/null; {clock}"
    )
    start, end = map(float, said.split())
    assert end - start > 1.5


@pytest.fixture
def weighed(disk: str) -> Iterator[str]:
    """A disk that BFQ schedules."""
    scheduler = Path(f"/sys/block/{disk.removeprefix('/dev/')}/queue/scheduler")
    before = scheduler.read_text(encoding="ascii")
    scheduler.write_text("bfq", encoding="ascii")
    yield disk
    scheduler.write_text(before.partition("[")[2].partition("]")[0], encoding="ascii")


@on_v1
def test_of_weight_on_a_disk(containers: Containers, weighed: str) -> None:
    """By systemd's own scale for BFQ; it stays whoever sets the weight of the whole."""
    one = containers("--blkio-weight-device", f"{weighed}:300", "--blkio-weight", "1000")

    def weights() -> str:
        return one.limit("blkio", "blkio.bfq.weight_device")

    device = number(weighed)
    assert weights() == f"default 181\n{device} 118"
    for _ in range(2):  # systemd sets the whole again, which takes it away for a moment
        systemctl("daemon-reload")
        eventually(lambda: weights() == f"default 181\n{device} 118", "the weight of the disk")
    one("update", "--blkio-weight", "200", "--blkio-weight-device", f"{weighed}:400")
    assert weights() == f"default 109\n{device} 127"
    systemctl("set-property", one.scope, "BlockIOWeight=1000")
    eventually(lambda: weights() == f"default 181\n{device} 127", "the weight of the disk")
    assert one.inspect("HostConfig.BlkioWeightDevice") == [{"Path": weighed, "Weight": 400}]
    one("update", "--blkio-weight-device", "unset")
    assert weights() == "default 181"
    systemctl("daemon-reload")
    assert weights() == "default 181"
    one("restart", "-t", "0")
    one("rm", "-f")
    units = ("list-units", "--all", "--plain", "--no-legend", f"sysbox-weights-{one.id}.*")
    eventually(lambda: systemctl(*units) == "", "what kept it is gone")


def test_of_weight_on_a_disk_without_weights(sysbox: Sysbox, image: str, disk: str) -> None:
    """A disk that nothing shares by weight is a clear no, with what to do."""
    scheduler = Path(f"/sys/block/{disk.removeprefix('/dev/')}/queue/scheduler")
    scheduler.write_text("none", encoding="ascii")
    done = sysbox("run", "--rm", "--blkio-weight-device", f"{disk}:300", image, "true")
    assert done.returncode == 125
    assert f"--blkio-weight-device {disk}: the I/O scheduler" in done.stderr
    assert f"echo bfq >{scheduler}" in done.stderr


@on_v1
def test_of_packets_and_huge_pages(containers: Containers, requires: Any) -> None:
    controllers, sizes = probe().controllers, [page_size_name(size) for size in probe().huge_pages]
    requires({"net_cls", "hugetlb"} <= set(controllers), "the controllers net_cls and hugetlb")
    requires(sizes, "huge pages")
    limits = [word for size in sizes for word in ("--hugetlb", f"{size}=4g")]
    one = containers("--net-cls", "10:1", *limits)
    holds(
        one,
        {"net_cls/net_cls.classid": str(0x100001)}
        | {f"hugetlb/hugetlb.{size}.limit_in_bytes": str(4 << 30) for size in sizes},
    )
    one("update", "--net-cls", "0x100002", "--hugetlb", f"{sizes[0]}=unset")
    assert one.limit("net_cls", "net_cls.classid") == str(0x100002)
    unlimited = one.limit("hugetlb", f"hugetlb.{sizes[0]}.limit_in_bytes")
    assert int(unlimited) > 1 << 62


def test_rules_for_devices(containers: Containers) -> None:
    """docker's rules: a number, all of a major, none but those, as the kernel applies them; a reload keeps
    them.
    """
    rules = ("c 10:237 r", "b 7:* r", "c 1:3 r")  # loop-control, loop devices, null
    flags = [word for rule in rules for word in ("--device-cgroup-rule", rule)]
    one = containers("--userns", "host", "--cap-add", "mknod", *flags)
    one.sh("cd /tmp; mknod control c 10 237; mknod loop b 7 0; mknod fuse c 10 229")
    for _ in range(2):
        one.sh("cd /tmp; head -c 0 control loop")
        one.sh("echo >/dev/null")  # it may be written to as before: rules add up
        refused = one.sh(
            "cd /tmp; (: >control) 2>&1 || true; (: >loop) 2>&1 || true; head -c 0 fuse 2>&1 || true"
        )
        assert refused.count("Operation not permitted") == 3, refused
        systemctl("daemon-reload")
    if V1:
        listed = one.limit("devices", "devices.list").splitlines()
        assert {"c 10:237 r", "b 7:* r", "c 1:3 rwm"} <= set(listed)


@pytest.mark.guest("memory.oom.group is of v2")
def test_oom_policy(containers: Containers) -> None:
    """--oom-policy is OOMPolicy= of the scope, and by default the rest goes too."""
    for flags, policy in (((), "kill"), (("--oom-policy", "continue"), "continue")):
        one = containers(*flags)
        assert systemctl("show", "-P", "OOMPolicy", one.scope) == policy


BAD = {
    "a rule without access": (("--device-cgroup-rule", "c 1:3"), "KIND MAJOR:MINOR ACCESS"),
    "a minor of every major": (("--device-cgroup-rule", "c *:3 r"), "one minor of every major"),
    "two weights": (("--cpu-idle", "--cpu-shares", "5"), "--cpu-idle and --cpu-shares"),
    "a quota twice": (("--cpus", "0.5", "--cpu-quota", "5000"), "--cpus and --cpu-quota"),
    "a swappiness": (("--memory-swappiness", "101"), "from 0 to 100"),
    "a class": (("--net-cls", "1:g"), "MAJOR:MINOR"),
    "pages": (("--hugetlb", "3MB=1g"), "not a page size"),
    "no such pages": (("--hugetlb", "512GB=1t"), "no huge pages of that size"),
    "a file system without a disk": (("--device-read-iops", "/proc:5"), "not on one block device"),
    "no device": (("--device-write-iops", "/dev/null:5"), "not a block device"),
    "no operations": (("--device-write-iops", "/dev/null:0"), "from 1 to 4294967295"),
    "a policy": (("--oom-policy", "reboot"), "continue, stop or kill"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(sysbox: Sysbox, image: str, case: str) -> None:
    """125, one clear line before anything is made, and what to do."""
    flags, words = BAD[case]
    done = sysbox("create", *flags, image, "true")
    assert done.returncode == 125, done.stdout
    assert words in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) <= 2


@pytest.mark.guest("other limits on v2")
def test_what_the_other_version_has(sysbox: Sysbox, image: str) -> None:
    """A limit that this version of cgroups lacks: what to use instead."""
    here = (
        {"--memory-high": "50m", "--memory-min": "5m"}
        if V1
        else {"--memory-swappiness": "5", "--net-cls": "1:1"}
    )
    for flag, value in here.items():
        done = sysbox("create", flag, value, image, "true")
        assert done.returncode == 125
        first, second = done.stderr.splitlines()
        assert flag in first
        assert "v2" in first
        assert second


def test_a_partition_or_a_file_stands_for_its_disk(containers: Containers, disk: str) -> None:
    """A file on a file system that is on the disk: the limit is the disk's."""
    subprocess.run(["mkfs.ext4", "-q", disk], check=True, capture_output=True)
    mounted = Path("/run/sysbox-test-disk")
    mounted.mkdir()
    subprocess.run(["mount", disk, mounted], check=True)
    try:
        one = containers("--device-read-iops", f"{mounted}/lost+found:50")
        if V1:
            shown = one.limit("blkio", "blkio.throttle.read_iops_device")
            assert shown == f"{number(disk)} 50"
        else:
            assert "riops=50" in one.limit("io", "io.max")
        containers.remove()
    finally:
        subprocess.run(["umount", mounted], check=True)
        mounted.rmdir()


def test_dry_run_shows_them(sysbox: Sysbox, image: str, disk: str) -> None:
    """`run --dry-run` prints each, as a property or as what is written."""
    flags = ("--cpu-idle", "--device-read-iops", f"{disk}:50", "--device-cgroup-rule", "b 8:* r",
             "--oom-policy", "stop")  # fmt: skip
    text = sysbox("run", "--dry-run", *flags, image, "true", check=True).stdout
    assert "block-8 r" in text
    assert "OOMPolicy=stop" in text
    if V1:
        assert "write cpu: cpu.idle = 1" in text
        assert f"write blkio: blkio.throttle.read_iops_device = {number(disk)} 50" in text
    else:
        assert "CPUWeight=0" in text
        assert f"IOReadIOPSMax={disk} 50" in text
