"""Every limit on the unified hierarchy: on the file that the kernel reads, and biting (S2-S5, S12, S18)."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
from containers import Container, Containers, eventually, share_of_cpu, systemctl, within
from lane import SLOWNESS, SYSBOX, Sysbox

from sysbox.units.limits.table import TABLE

pytestmark = pytest.mark.smp("limits name two CPUs")

MIB = 1 << 20
DISK = "/dev/vdb"  # the guest's empty one
NUMBER = Path("/sys/class/block/vdb/dev").read_text(encoding="ascii").strip()

# flags -> the files of the scope's cgroup and what they read
FILES = {
    "numbers": (
        f"-c 512 --cpus 0.5 --cpuset=0,1 -m 128m --pids-limit 20 --blkio-weight 1000"
        f" --device-write-bps {DISK}:1mb --device-read-bps {DISK}:2mb".split(),
        {
            "cpu.weight": "50",
            "cpu.max": "50000 100000",
            "cpuset.cpus": "0-1",
            "memory.max": str(128 * MIB),
            "memory.swap.max": str(128 * MIB),
            "pids.max": "20",
            "io.weight": "default 200",
            "io.max": f"{NUMBER} rbps={2 * MIB} wbps={MIB} riops=max wiops=max",
        },
    ),
    "other spellings": (
        "--cpu-shares 2 --cpu-quota 20000 --cpu-period 50000 --cpuset-cpus 1 --cpuset-mems 0"
        " -m 32m --memory-swap 48m --memory-reservation 16m --pids-limit -1".split(),
        {
            "cpu.weight": "1",
            "cpu.max": "20000 50000",
            "cpuset.cpus": "1",
            "cpuset.mems": "0",
            "memory.max": str(32 * MIB),
            "memory.swap.max": str(16 * MIB),
            "memory.low": str(16 * MIB),
            "pids.max": "max",
        },
    ),
    "unlimited swap": ("-m 64m --memory-swap -1".split(), {"memory.swap.max": "max"}),
    "what v1 has not": (
        f"--cpu-idle -m 64m --memory-high 50m --memory-min 8m --device-read-iops {DISK}:100"
        f" --device-write-iops {DISK}:200 --hugetlb 2MB=64m".split(),
        {
            "cpu.idle": "1",
            "memory.high": str(50 * MIB),
            "memory.min": str(8 * MIB),
            "hugetlb.2MB.max": str(64 * MIB),
            "io.max": f"{NUMBER} rbps=max wbps=max riops=100 wiops=200",
            "memory.oom.group": "1",
        },
    ),
    # systemd translates these up to 257; sysbox does so itself, always
    "old properties": (
        [
            "--property=CPUShares=256", "--property=MemoryLimit=96M", "--property=BlockIOWeight=250",
            f"--property=BlockIOReadBandwidth={DISK} 3M",
        ],
        {
            "cpu.weight": "25",
            "memory.max": str(96 * MIB),
            "io.weight": "default 50",
            "io.max": f"{NUMBER} rbps=3000000 wbps=max riops=max wiops=max",
        },
    ),
    "new properties": (
        ["--property=MemoryHigh=50M", f"--property=IOWriteIOPSMax={DISK} 100", "--property=TasksMax=30"],
        {
            "memory.high": str(50 * MIB),
            "io.max": f"{NUMBER} rbps=max wbps=max riops=max wiops=100",
            "pids.max": "30",
        },
    ),
}  # fmt: skip


def limit(one: Container, file: str) -> str:
    """A file of the scope's cgroup."""
    return (
        Path(f"/sys/fs/cgroup/system.slice/{one.scope}", file).read_text(encoding="ascii").strip()
    )


@pytest.mark.parametrize("name", FILES)
def test_each_flag_on_its_file(containers: Containers, name: str) -> None:
    """What each flag asks for is in the file that the kernel acts on."""
    flags, wanted = FILES[name]
    one = containers(*flags)
    assert {file: limit(one, file) for file in wanted} == wanted


def test_each_is_taken_away(containers: Containers) -> None:
    """`update` leads from one to the other and back to what nobody asked for, and a reload stays with it."""
    asked = (
        f"--cpu-idle --memory-high 50m --memory-min 8m --hugetlb 2MB=64m --pids-limit 20 --cpuset-cpus 1"
        f" --device-read-iops {DISK}:100 --device-write-bps {DISK}:1m --memory-reservation 9m".split()
    )
    files = (
        "cpu.idle",
        "memory.high",
        "memory.min",
        "memory.low",
        "hugetlb.2MB.max",
        "cpuset.cpus",
        "io.max",
    )
    one = containers(*asked)
    flags = [
        word.partition("=")[0] for word in asked if word.startswith("--") and word != "--cpu-idle"
    ]
    one("update", "--cpu-idle=false", *(word for flag in flags for word in (flag, "unset")))
    systemctl("daemon-reload")
    assert [limit(one, file) for file in files] == ["0", "max", "0", "0", "max", "0-1", ""]
    one("update", *asked)
    systemctl("daemon-reload")
    assert [limit(one, file) for file in files] == [
        "1", str(50 * MIB), str(8 * MIB), str(9 * MIB), str(64 * MIB), "1",
        f"{NUMBER} rbps=max wbps={MIB} riops=100 wiops=max",
    ]  # fmt: skip


def test_weights_of_a_disk(containers: Containers) -> None:
    """By whatever shares the disk: BFQ, or a cost model."""
    costs, scheduler = Path("/sys/fs/cgroup/io.cost.qos"), Path("/sys/block/vdb/queue/scheduler")
    costs.write_text(f"{NUMBER} enable=1", encoding="ascii")
    try:
        one = containers("--blkio-weight-device", f"{DISK}:300")
        assert limit(one, "io.weight") == f"default 100\n{NUMBER} 60"
        assert one.inspect("HostConfig.BlkioWeightDevice") == [{"Path": DISK, "Weight": 300}]
    finally:
        costs.write_text(f"{NUMBER} enable=0", encoding="ascii")
    subprocess.run(["modprobe", "bfq"], check=True)
    scheduler.write_text("bfq", encoding="ascii")
    try:
        one = containers("--blkio-weight-device", f"{DISK}:300")
        assert limit(one, "io.bfq.weight") == f"default 100\n{NUMBER} 60"
    finally:
        scheduler.write_text("none", encoding="ascii")


def test_rules_for_devices(containers: Containers) -> None:
    """docker's rules end in systemd's program in the kernel."""
    major = NUMBER.partition(":")[0]
    one = containers(
        "--userns", "host", "--cap-add", "mknod", "--device-cgroup-rule", f"b {major}:* r"
    )
    one.sh(f"mknod /tmp/disk b {NUMBER.replace(':', ' ')}; head -c 512 /tmp/disk | wc -c")
    assert "Operation not permitted" in one.sh("(: >/tmp/disk) 2>&1 || true")


def test_the_files_of_the_table(containers: Containers) -> None:
    """What sysbox's own table names, and so reads, explains and documents, is a file of the kernel's."""
    subprocess.run(["modprobe", "bfq"], check=True)
    flags = "-c 9 --cpuset 0 -m 64m --pids-limit 9 --blkio-weight 10"
    one = containers(*flags.split())
    there = {path.name for path in Path(f"/sys/fs/cgroup/system.slice/{one.scope}").iterdir()}
    # hugetlb is not systemd's: test_units_limits.py has it
    named = {each.v2.file for each in TABLE if each.v2.controller != "hugetlb"}
    assert named - there == {""}


def test_defaults(containers: Containers) -> None:
    """Without a flag nothing is limited (S2, S4)."""
    one = containers()
    files = ("cpu.weight", "cpu.max", "memory.max", "memory.swap.max", "cpuset.cpus", "io.max")
    assert [limit(one, file) for file in files] == ["100", "max 100000", "max", "max", "", ""]


def test_old_names_beside_new_ones(containers: Containers) -> None:
    """BlockIO* with IO* in one unit, where systemd by itself drops the old ones without a word."""
    one = containers(
        "--blkio-weight", "1000", "--device-read-bps", f"{DISK}:2mb",
        "--property", f"BlockIOWriteBandwidth={DISK} 1M", "--property", "IOAccounting=yes",
    )  # fmt: skip
    assert limit(one, "io.max") == f"{NUMBER} rbps={2 * MIB} wbps=1000000 riops=max wiops=max"
    assert limit(one, "io.weight") == "default 200"


def test_tuned_live(containers: Containers) -> None:
    """set-property acts at once, outlives a reload, and `inspect` shows it (S2)."""
    one = containers("-c", "512", "-m", "64m", "--pids-limit", "50")
    changes = ["CPUWeight=20", "MemoryMax=80M", "TasksMax=60", "AllowedCPUs=1", "CPUQuota=30%"]
    changes.append(f"IOWriteBandwidthMax={DISK} 1M")
    systemctl("set-property", "--runtime", one.scope, *changes)
    systemctl("daemon-reload")
    files = ("cpu.weight", "memory.max", "pids.max", "cpuset.cpus", "cpu.max")
    assert [limit(one, file) for file in files] == ["20", str(80 * MIB), "60", "1", "30000 100000"]
    assert limit(one, "io.max") == f"{NUMBER} rbps=max wbps=1000000 riops=max wiops=max"
    config = json.loads(one("inspect"))[0]["HostConfig"]
    shown = {
        key: config[key] for key in ("CpuShares", "Memory", "PidsLimit", "CpusetCpus", "CpuQuota")
    }
    assert shown == {
        "CpuShares": 204, "Memory": 80 * MIB, "PidsLimit": 60, "CpusetCpus": "1", "CpuQuota": 30000,
    }  # fmt: skip
    assert config["BlkioDeviceWriteBps"] == [{"Path": DISK, "Rate": 1_000_000}]


def test_tuned_live_by_old_names(containers: Containers) -> None:
    """S2 and S5 by the names of the seeds, on a scope that has none of the new: systemd translates."""
    one = containers()
    changes = ["CPUShares=128", "MemoryLimit=64M", f"BlockIOWriteBandwidth={DISK} 1M"]
    systemctl("set-property", "--runtime", one.scope, *changes)
    files = ("cpu.weight", "memory.max", "io.max")
    assert [limit(one, file) for file in files] == [
        "12", str(64 * MIB), f"{NUMBER} rbps=max wbps=1000000 riops=max wiops=max",
    ]  # fmt: skip
    config = json.loads(one("inspect"))[0]["HostConfig"]
    assert (config["CpuShares"], config["Memory"]) == (128, 64 * MIB)
    assert config["BlkioDeviceWriteBps"] == [{"Path": DISK, "Rate": 1_000_000}]


def test_memory_bites(containers: Containers, sysbox: Sysbox, image: str) -> None:
    """Beyond -m without swap the kernel kills: 137, and the record says why."""
    eater = ("sh", "-c", "x=aaaaaaaa; while :; do x=$x$x; done")
    one = containers("-m", "16m", "--memory-swap", "16m", command=eater)
    one.await_state("exited")
    assert one.inspect("State.OOMKilled") is True
    assert one.inspect("State.ExitCode") == 137
    done = sysbox("run", "--rm", "-m", "16m", "--memory-swap", "16m", image, *eater)
    assert done.returncode == 137


def test_the_memory_of_an_exec_counts(containers: Containers) -> None:
    """What exec starts is in the scope from birth: its memory is the container's."""
    one = containers("-m", "16m", "--memory-swap", "16m")
    words = ("exec", one.id, "sh", "-c", "x=aaaaaaaa; while :; do x=$x$x; done")
    done = subprocess.run([SYSBOX, *words], capture_output=True, check=False, timeout=60 * SLOWNESS)
    assert done.returncode == 137


def test_exec_is_in_the_scope(containers: Containers) -> None:
    """cgroup.procs of the scope has it; the container sees its own cgroup as the root of all."""
    one = containers()
    assert one.exec("cat", "/proc/self/cgroup") == "0::/"
    before = set(limit(one, "cgroup.procs").split())
    running = subprocess.Popen([SYSBOX, "exec", one.id, "sleep", "1000"])
    try:
        eventually(
            lambda: len(set(limit(one, "cgroup.procs").split()) - before) > 0,
            "an exec in the scope",
        )
    finally:
        running.terminate()
        running.wait()


def test_pids_bite(containers: Containers) -> None:
    """A fork bomb stops at --pids-limit, and ends with its container."""
    one = containers("--pids-limit", "20")
    one.sh("(bomb() { bomb | bomb & }; bomb) >/dev/null 2>&1 &")
    eventually(lambda: limit(one, "pids.events") != "max 0", "the limit is reached")
    assert int(limit(one, "pids.current")) <= 20
    one("rm", "-f")


def test_cpu_bites(containers: Containers) -> None:
    """--cpus 0.2 for a process that takes all it gets, by the cgroup's own account."""
    one = containers("--cpus", "0.2", command=("sh", "-c", "while :; do :; done"))

    def used() -> float:
        return int(limit(one, "cpu.stat").split()[1]) / 1e6

    assert 0.1 < share_of_cpu(one.cgroup("cpu"), used) < 0.3


def test_write_bandwidth_bites(containers: Containers) -> None:
    """--device-write-bps holds a direct write in the container."""
    one = containers("--device", DISK, "--device-write-bps", f"{DISK}:1mb")

    def rate() -> float:
        started = time.monotonic()
        one.sh(f"dd if=/dev/zero of={DISK} oflag=direct bs=64k count=48 2>/dev/null")
        return 48 * 65536 / (time.monotonic() - started)

    within(rate, 0.4 * MIB / SLOWNESS, 1.2 * MIB)


def test_devices_are_the_containers_own(containers: Containers) -> None:
    """No file does it on v2: systemd's program in the kernel refuses every device but those allowed."""
    one = containers("--userns", "host", "--cap-add", "mknod")
    numbers = NUMBER.replace(":", " ")
    script = f"mknod /tmp/disk b {numbers}; dd if=/tmp/disk of=/dev/null count=1 2>&1 || true"
    assert "Operation not permitted" in one.sh(script)
    assert one.sh("head -c 4 /dev/zero | wc -c") == "4"
    two = containers("--device", f"{DISK}:/dev/mine:r")
    assert "Operation not permitted" in two.sh("dd if=/dev/zero of=/dev/mine count=1 2>&1 || true")
    two.sh("dd if=/dev/mine of=/dev/null count=1 2>/dev/null")


def test_the_view_from_inside(containers: Containers) -> None:
    """One read-only cgroup2 whose root is the container's own."""
    one = containers("-m", "64m")
    assert "cgroup2 /sys/fs/cgroup cgroup2 ro," in one.exec("cat", "/proc/mounts").replace(
        "none ", "cgroup2 "
    )
    assert one.exec("cat", "/sys/fs/cgroup/memory.max") == str(64 * MIB)


def test_delegation(containers: Containers) -> None:
    """A privileged container makes cgroups of its own below, and hands the controllers down (S1)."""
    one = containers("--privileged")
    one.sh(
        "cd /sys/fs/cgroup; mkdir app init;"
        " for pid in $(cat cgroup.procs); do echo $pid >init/cgroup.procs || true; done;"
        # the process by which sysbox makes that of exec is there for a moment
        " until echo +memory +pids >cgroup.subtree_control; do sleep 0.1; done;"
        " echo 33554432 >app/memory.max; cat app/memory.max"
    )
    systemctl("daemon-reload")
    assert limit(one, "app/memory.max") == "33554432"
    # a process cannot be born where others are only below: exec goes to the first process's own cgroup
    assert one.exec("cat", "/proc/self/cgroup").endswith("/init")
    one("rm", "-f")
