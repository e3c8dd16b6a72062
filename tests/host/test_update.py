"""update, explain, and what `systemctl set-property` changes: live, in the record, whatever ends the run.

In the guest: what is changed, read back and explained is in other files of v2, by other properties.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from containers import V1, Container, Containers, eventually, popen, systemctl
from lane import Sysbox

from sysbox.base import paths
from sysbox.linux import process
from sysbox.units.limits import dropins

MIB = 1 << 20
TRANSIENT = Path("/run/systemd/transient")
# of this host: the weight's property and file, and the memory's
WEIGHT = ("CPUShares", "cpu", "cpu.shares") if V1 else ("CPUWeight", "cpu", "cpu.weight")
MEMORY = (
    ("MemoryLimit", "memory", "memory.limit_in_bytes")
    if V1
    else ("MemoryMax", "memory", "memory.max")
)
ENDS = ("sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.05; done")


def weight(one: Container) -> int:
    """The kernel's weight of the container's CPU time."""
    return int(one.limit(*WEIGHT[1:]))


def memory(one: Container) -> int:
    return int(one.limit(*MEMORY[1:]))


def tuned(one: Container) -> dict[str, str]:
    """What inspect says that others have set."""
    found: dict[str, str] = one.inspect("Sysbox.Tuned")
    return found


def tune(one: Container, *settings: str) -> None:
    """As an administrator does."""
    systemctl("set-property", one.scope, *settings)


def explain(sysbox: Sysbox, one: Container, *words: str) -> tuple[int, list[dict[str, str]]]:
    """The exit status and the rows."""
    done = sysbox("explain", "--format", "json", one.id, *words)
    return done.returncode, [json.loads(row) for row in done.stdout.splitlines()]


def test_s2_as_in_the_seeds(containers: Containers) -> None:
    """S2: -c 512; set-property --runtime CPUShares=128; inspect shows it, and so does the next run."""
    one = containers("-c", "512", command=ENDS)
    assert weight(one) == (512 if V1 else 50)
    systemctl("set-property", "--runtime", one.scope, "CPUShares=128")
    eventually(lambda: weight(one) == (128 if V1 else 12), "CPUShares acts")
    systemctl("daemon-reload")
    for _ in range(2):
        assert weight(one) == (128 if V1 else 12)
        assert one.inspect("HostConfig.CpuShares") == 128
        one("restart")
    assert tuned(one) == {"CPUShares": "128"}


def kill_first(one: Container) -> None:
    os.kill(one.pid, 9)


def kill_monitor(one: Container) -> None:
    os.kill(int(systemctl("show", "-P", "MainPID", f"sysbox-{one.id}.service")), 9)


WAYS: dict[str, Callable[[Container], object]] = {
    "by itself": kill_first,
    "stop": lambda one: one("stop"),
    "kill": lambda one: one("kill"),
    "systemctl stop": lambda one: systemctl("stop", one.scope),
    "systemctl stop of its service": lambda one: systemctl("stop", f"sysbox-{one.id}.service"),
    "systemctl kill": lambda one: systemctl("kill", "-s", "KILL", one.scope),
    "death of its monitor": kill_monitor,
}


@pytest.mark.parametrize("way", WAYS)
def test_kept_whatever_ends_it(containers: Containers, way: str) -> None:
    """What others have set is there again after a start, which follows at once."""
    one = containers("-c", "512", "--stop-timeout", "2", command=ENDS)
    tune(one, f"{WEIGHT[0]}=77", "TasksMax=66")
    WAYS[way](one)
    one.await_state("exited")
    # the monitor tells the end, and the cleanup after it records what was tuned
    eventually(lambda: tuned(one) == {WEIGHT[0]: "77", "TasksMax": "66"}, "it is kept")
    one("start")
    assert (weight(one), one.limit("pids", "pids.max")) == (77, "66")
    assert one.inspect("HostConfig.PidsLimit") == 66


def test_kept_after_a_stop_that_failed(containers: Containers) -> None:
    """A scope that had to be killed is a failed one, and stays loaded: its name is free all the same."""
    deaf = ("sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")
    one = containers("--stop-timeout", "1", command=deaf)
    tune(one, "TasksMax=66")
    systemctl("stop", one.scope, check=False)
    one.await_state("exited")
    one("start")
    assert one.limit("pids", "pids.max") == "66"


def test_kept_by_a_restart_policy(containers: Containers) -> None:
    """What systemd starts again by itself has what others have set of the run before."""
    one = containers("--restart", "always", "-c", "512")
    tune(one, f"{WEIGHT[0]}=77")
    first = one.pid
    os.kill(first, 9)
    eventually(lambda: one.pid not in (0, first), "it runs again")
    assert weight(one) == 77
    one("update", "-c", "256")
    again = one.pid
    os.kill(again, 9)
    eventually(lambda: one.pid not in (0, again), "it runs again")
    assert (weight(one), tuned(one)) == (256 if V1 else 25, {})


def test_kept_across_a_new_systemd(containers: Containers) -> None:
    """daemon-reexec reads all of it again."""
    one = containers("-c", "512")
    tune(one, f"{WEIGHT[0]}=77")
    systemctl("daemon-reexec")
    one("kill")
    one("start")
    assert (weight(one), tuned(one)) == (77, {WEIGHT[0]: "77"})


def test_kept_in_the_foreground(containers: Containers, image: str) -> None:
    """Nothing keeps the unit of a container in the foreground: the command watches."""
    words = ("run", "--name", "watched", "-c", "512", image, *ENDS)
    with popen(*words) as command:
        try:
            one = containers.known("watched")
            tune(one, f"{WEIGHT[0]}=77")
            eventually(lambda: tuned(one) == {WEIGHT[0]: "77"}, "set-property shows")
            # back to what was asked is no tuning any more; and a last change
            tune(one, f"{WEIGHT[0]}={512 if V1 else 50}")
            eventually(lambda: tuned(one) == {}, "the change back shows")
            tune(one, "TasksMax=66")
            eventually(lambda: '"TasksMax":"66"' in record(one), "it is written down")
        finally:
            command.terminate()
    one.await_state("exited")
    assert tuned(one) == {"TasksMax": "66"}
    # systemd removes them with the unit, when it gets to it
    eventually(lambda: not list(TRANSIENT.glob(f"*{one.id}*")), "what was set is gone")
    one("start")
    assert one.limit("pids", "pids.max") == "66"


def record(one: Container) -> str:
    return Path(paths.CONTAINERS, one.id, "record.json").read_text(encoding="ascii")


def test_not_kept(containers: Containers, sysbox: Sysbox) -> None:
    """What --property would not take ends with the run, and explain says so."""
    one = containers(command=ENDS)
    tune(one, "DeviceAllow=/dev/fuse rw")
    status, rows = explain(sysbox, one, "DeviceAllow")
    assert status == 0
    assert "ends with this run" in rows[-1]["SetBy"]
    assert one.inspect("Sysbox.TunedUntilStop") == ["DeviceAllow"]
    one("stop")
    assert tuned(one) == {}


@pytest.mark.parametrize("userns", ["auto", "host"])
def test_exec_where_the_unit_forbids_all_devices(
    containers: Containers, sysbox: Sysbox, userns: str
) -> None:
    """What is empty for a command is made outside of the container's cgroups; a terminal cannot be."""
    one = containers("--userns", userns, command=ENDS)
    systemctl("set-property", "--runtime", one.scope, "DeviceAllow=")
    done = sysbox("exec", one.id, "sh", "-c", "cat; echo said")
    assert (done.returncode, done.stdout, done.stderr) == (0, "said\n", "")
    refused = sysbox("exec", "-t", one.id, "true")
    assert refused.returncode != 0
    assert "DeviceAllow=" in refused.stderr


def test_forget(containers: Containers) -> None:
    """--forget: back to what was asked, at once and from now on; on one that does not run too."""
    one = containers("-c", "512", command=ENDS)
    before = (weight(one), one.limit("pids", "pids.max"))
    tune(one, f"{WEIGHT[0]}=77", "TasksMax=66")
    one("update", "--forget")
    assert (weight(one), one.limit("pids", "pids.max")) == before
    assert tuned(one) == {}
    tune(one, "TasksMax=66")
    one("stop")
    one("update", "--forget")
    assert tuned(one) == {}
    one("start")
    assert (weight(one), one.limit("pids", "pids.max")) == before


LIMITS = {
    "-c 256": [("cpu", WEIGHT[2], "256" if V1 else "25")],
    "--cpus 0.5": [("cpu", "cpu.cfs_quota_us", "50000")] if V1 else [("cpu", "cpu.max", "50000 100000")],
    "--cpu-quota 20000 --cpu-period 50000": (
        [("cpu", "cpu.cfs_quota_us", "20000"), ("cpu", "cpu.cfs_period_us", "50000")]
        if V1
        else [("cpu", "cpu.max", "20000 50000")]
    ),
    "--cpuset-cpus 0 --cpuset-mems 0": [("cpuset", "cpuset.cpus", "0"), ("cpuset", "cpuset.mems", "0")],
    "-m 64m": (
        [
            ("memory", "memory.limit_in_bytes", str(64 * MIB)),
            ("memory", "memory.memsw.limit_in_bytes", str(128 * MIB)),
        ]
        if V1
        else [("memory", "memory.max", str(64 * MIB)), ("memory", "memory.swap.max", str(64 * MIB))]
    ),
    "-m 64m --memory-swap 96m": [
        ("memory", "memory.memsw.limit_in_bytes", str(96 * MIB))
        if V1
        else ("memory", "memory.swap.max", str(32 * MIB))
    ],
    "--memory-reservation 32m": [
        ("memory", "memory.soft_limit_in_bytes" if V1 else "memory.low", str(32 * MIB))
    ],
    "--pids-limit 50": [("pids", "pids.max", "50")],
    "--property TasksMax=51": [("pids", "pids.max", "51")],
}  # fmt: skip


@pytest.mark.parametrize("flags", LIMITS)
def test_each_limit(containers: Containers, sysbox: Sysbox, flags: str) -> None:
    """Set on a container that runs, in force at once and after a restart; and taken away again."""
    one = containers(command=ENDS)
    files = [(controller, file) for controller, file, _ in LIMITS[flags]]

    def values() -> list[str]:
        return [one.limit(*place) if one.cgroup(place[0]).exists() else "" for place in files]

    before = values()
    wanted = [value for _, _, value in LIMITS[flags]]
    one("update", *flags.split())
    assert values() == wanted
    systemctl("daemon-reload")
    assert values() == wanted
    assert (tuned(one), explain(sysbox, one)[0]) == ({}, 0)
    one("restart")
    assert values() == wanted
    words = [word.partition("=")[0] + "=unset" if "=" in word else word for word in flags.split()]
    cleared = [word if word.startswith("-") or "=" in word else "unset" for word in words]
    one("update", *cleared)
    if "cpuset" in flags:  # what the slice above it has
        before = [(one.cgroup(name).parent / file).read_text(encoding="ascii").strip() or value
                  for (name, file), value in zip(files, before, strict=True)]  # fmt: skip
        assert V1 is False or values() == before
    else:
        assert values() == before
    assert (tuned(one), explain(sysbox, one)[0]) == ({}, 0)


def test_limits_are_independent(containers: Containers) -> None:
    """One that is changed leaves the others as they are; what others have set of another limit too."""
    one = containers("-c", "512", "-m", "64m", "--pids-limit", "40")
    tune(one, "TasksMax=44")
    one("update", "-c", "256")
    assert weight(one) == (256 if V1 else 25)
    assert (memory(one), one.limit("pids", "pids.max")) == (64 * MIB, "44")
    assert tuned(one) == {"TasksMax": "44"}
    one("update", "--pids-limit", "45")
    assert one.limit("pids", "pids.max") == "45"
    assert tuned(one) == {}


def test_update_over_the_other_spelling(containers: Containers) -> None:
    """While CPUWeight is set systemd heeds no CPUShares, and the other way round with asked weights."""
    one = containers()
    tune(one, "CPUWeight=50", "CPUShares=700")
    one("update", "-c", "256")
    assert weight(one) == (256 if V1 else 25)
    assert tuned(one) == {}


@pytest.mark.guest("swap is counted apart on v2")
def test_memory_and_swap(containers: Containers, sysbox: Sysbox) -> None:
    """Twice the memory follows the memory up and down; what was asked for stays, and an error names it."""
    one = containers("-m", "64m")
    for size in (256, 32):
        one("update", "-m", f"{size}m")
        assert memory(one) == size * MIB
        assert one.inspect("HostConfig.MemorySwap") == 2 * size * MIB
    one("update", "--memory-swap", "64m")
    done = sysbox("update", "-m", "100m", one.id)
    assert (done.returncode, "--memory-swap" in done.stderr) == (1, True)
    assert memory(one) == 32 * MIB
    one("update", "-m", "100m", "--memory-swap", "unset")
    assert one.inspect("HostConfig.MemorySwap") == 200 * MIB


def test_contradictions(containers: Containers, sysbox: Sysbox) -> None:
    """--cpus with --cpu-quota, in one command or in two; a value out of range; nothing at all."""
    one = containers("--cpu-quota", "20000")
    for flags, word in (
        (("--cpus", "0.5"), "--cpu-quota unset"),
        (("--cpus", "0.5", "--cpu-quota", "30000"), "give one of them"),
        (("-c", "1"), "2 to 262144"),
        (("--property", "ExecStart=/bin/x"), "may be set"),
        ((), "nothing to change"),
    ):
        done = sysbox("update", *flags, one.id)
        assert done.returncode != 0
        assert word in done.stderr, done.stderr
    one("update", "--cpus", "0.5", "--cpu-quota", "unset")
    assert one.inspect("HostConfig.NanoCpus") == 500_000_000


@pytest.mark.v1_only("v2 takes any limit, and reclaims or kills")
def test_the_kernel_refuses(containers: Containers, sysbox: Sysbox) -> None:
    """Below what is in use and cannot be reclaimed: an error with the reason, and everything as before."""
    hog = "dd if=/dev/zero of=/dev/shm/x bs=1M count=40 2>/dev/null; exec sleep 1000"
    one = containers("-m", "100m", "--memory-swap", "100m", "-c", "512", command=("sh", "-c", hog))
    eventually(
        lambda: int(one.limit("memory", "memory.usage_in_bytes")) > 40 * MIB, "40 MiB are in use"
    )
    before = one.inspect("HostConfig")
    done = sysbox("update", "-c", "256", "-m", "10m", "--memory-swap", "10m", one.id)
    assert done.returncode == 1
    assert "in use" in done.stderr
    assert one.inspect("HostConfig") == before
    assert systemctl("show", "-P", "MemoryLimit", one.scope) == str(100 * MIB)
    assert explain(sysbox, one)[0] == 0


@pytest.fixture
def disks(containers: Containers) -> Iterator[list[str]]:
    """Two loop devices."""
    found = []
    for number in range(2):
        file = Path(paths.STATE) / f"loop-{os.getpid()}-{number}"
        with file.open("wb") as backing:
            backing.truncate(MIB)
        words = ["losetup", "--find", "--show", file]
        found.append(
            subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
        )
        file.unlink()
    yield found
    containers.remove()
    subprocess.run(["losetup", "--detach", *found], check=True)


@pytest.mark.guest("BPF decides on v2")
def test_device_lists(containers: Containers, disks: list[str]) -> None:
    """An entry replaces the one for its device; DEVICE:unset takes it away, unset all of them."""
    first, second = disks
    one = containers("--device-write-bps", f"{first}:1m", "--device-read-bps", f"{first}:3m")

    def writes() -> dict[str, int]:
        rates = one.inspect("HostConfig.BlkioDeviceWriteBps") or []
        return {each["Path"]: each["Rate"] for each in rates}

    one("update", "--device-write-bps", f"{second}:2m")
    assert writes() == {first: MIB, second: 2 * MIB}
    one("update", "--device-write-bps", f"{first}:5m")
    assert writes() == {first: 5 * MIB, second: 2 * MIB}
    one("update", "--device-write-bps", f"{first}:unset")
    assert writes() == {second: 2 * MIB}
    one("update", "--device-write-bps", "unset")
    assert writes() == {}
    assert one.inspect("HostConfig.BlkioDeviceReadBps") == [{"Path": first, "Rate": 3 * MIB}]


def test_ulimits(containers: Containers) -> None:
    """On every process of the scope, and on what exec starts later."""
    one = containers(command=("sh", "-c", "sleep 1001 & exec sleep 1000"))
    eventually(lambda: one.limit("pids", "pids.current") == "2", "both processes run")
    one("update", "--ulimit", "nofile=300:400")
    for pid in (one.cgroup("pids") / "cgroup.procs").read_text(encoding="ascii").split():
        limits = Path(f"/proc/{pid}/limits").read_text(encoding="ascii")
        line = next(line for line in limits.splitlines() if line.startswith("Max open files"))
        assert line.split()[3:5] == ["300", "400"]
    assert one.sh("ulimit -n; ulimit -Hn").split() == ["300", "400"]
    one("update", "--ulimit", "nofile=unset")
    assert one.inspect("HostConfig.Ulimits") is None


def test_ulimits_of_what_forks(containers: Containers) -> None:
    """A process that is made at this very moment is limited as well."""
    forking = "i=0; while [ $i -lt 500 ]; do sleep 1000 & i=$((i+1)); done; wait"
    # where this process may read them
    one = containers("--userns", "host", command=("sh", "-c", forking))
    names = ("nofile", "core", "memlock", "sigpending")
    for name in names:
        one("update", "--ulimit", f"{name}=300:400")
    eventually(lambda: one.limit("pids", "pids.current") == "501", "all are there")
    pids = [int(pid) for pid in one.limit("pids", "cgroup.procs").split()]
    found = Counter(process.rlimit_of(pid, name) for pid in pids for name in names)
    assert found == {(300, 400): len(names) * 501}
    assert one.inspect("State.Status") == "running"


def test_what_does_not_run(containers: Containers) -> None:
    """Written down, checked as a start would, and in force from the start on."""
    one = containers(verb=("create",), command=ENDS)
    one("update", "-c", "256", "--property", "TasksMax=33", "--ulimit", "nofile=300")
    one("start")
    assert (weight(one), one.limit("pids", "pids.max")) == (256 if V1 else 25, "33")
    assert one.sh("ulimit -n") == "300"


def test_at_the_next_start(containers: Containers, sysbox: Sysbox) -> None:
    """What a scope takes only when it is made: said, and done then."""
    one = containers(command=ENDS)
    done = sysbox("update", "--oom-policy", "continue", one.id, check=True)
    assert "--oom-policy acts from the next start on" in done.stderr
    one("restart")
    assert systemctl("show", "-P", "OOMPolicy", one.scope) == "continue"


def test_several(containers: Containers, sysbox: Sysbox) -> None:
    """Each by the name it was given; one that is missing is an error of its own."""
    one, two = containers(), containers()
    done = sysbox("update", "--pids-limit", "44", one.id, "missing", two.id[:12])
    assert done.returncode == 1
    assert done.stdout.split() == [one.id, two.id[:12]]
    assert "no such container: missing" in done.stderr
    assert [each.limit("pids", "pids.max") for each in (one, two)] == ["44", "44"]


def test_visible_at_once(containers: Containers, sysbox: Sysbox) -> None:
    """inspect and ps show what set-property has changed: they ask the kernel, and remember nothing."""
    one = containers("-m", "64m")
    tune(one, f"{MEMORY[0]}=80M")
    assert one.inspect("HostConfig.Memory") == 80 * MIB
    shown = sysbox("ps", "--no-trunc", "--format", "{{.ID}} {{.Memory}}", check=True).stdout
    assert f"{one.id} {80 * MIB}" in shown.splitlines()


def test_explain(containers: Containers, sysbox: Sysbox) -> None:
    """Who set it: run, update, set-property with its file; and whether the file has it."""
    one = containers("-c", "512", "-m", "64m", "--pids-limit", "40")
    one("update", "-m", "80m")
    tune(one, "TasksMax=44")
    status, rows = explain(sysbox, one)
    found = {row["Limit"]: row for row in rows}
    assert status == 0
    assert found["--cpu-shares"]["SetBy"] == "run"
    assert found["--memory"]["SetBy"].startswith("update, ")
    by = found["--pids-limit"]["SetBy"]
    assert by.startswith("systemctl set-property, ")
    assert f"{TRANSIENT}/{one.scope}.d/50-TasksMax.conf" in by
    row = found["--pids-limit"]
    assert (row["Asked"], row["Property"], row["File"]) == ("40", "TasksMax=44", "pids/pids.max")
    assert row["Now"] == "44"
    table = sysbox("explain", one.id, "memory", check=True).stdout.splitlines()
    assert table[0].split()[:2] == ["LIMIT", "ASKED"]
    assert len(table) == 2


def test_explain_drift(containers: Containers, sysbox: Sysbox) -> None:
    """A hand in the cgroup's files: exit status 3, by whatever name the limit is asked for."""
    one = containers("-c", "512")
    assert explain(sysbox, one)[0] == 0
    (one.cgroup("cpu") / WEIGHT[2]).write_text("99", encoding="ascii")
    for word in ("cpu-shares", WEIGHT[0], WEIGHT[2], f"cpu/{WEIGHT[2]}"):
        status, rows = explain(sysbox, one, word)
        assert status == 3
        assert "written by something else" in rows[0]["SetBy"]
    assert explain(sysbox, one, "memory")[0] == 0
    one("update", "-c", "512")
    assert (weight(one), explain(sysbox, one)[0]) == (512 if V1 else 50, 0)
    reserved = "memory.soft_limit_in_bytes" if V1 else "memory.low"
    (one.cgroup("memory") / reserved).write_text(str(8 * MIB), encoding="ascii")
    assert explain(sysbox, one, "memory-reservation")[0] == 3
    assert sysbox("explain", one.id, "cpu-shears").returncode not in (0, 3)


@pytest.mark.v1_only("v2 kills for it")
def test_explain_what_was_refused(containers: Containers, sysbox: Sysbox) -> None:
    """systemd takes a MemoryLimit below what is in use, and the kernel does not."""
    one = containers("-m", "64m", "--memory-swap", "64m")
    one.sh("head -c 31457280 /dev/zero >/dev/shm/held")
    tune(one, "MemoryLimit=16M")
    status, (row,) = explain(sysbox, one, "memory")
    assert status == 3
    assert row["SetBy"].startswith("systemctl set-property, ")
    assert "bytes are in use" in row["SetBy"]
    assert one.inspect("HostConfig.Memory") > 30 * MIB
    one("restart", "-t", "0")  # where nothing is in the way any more
    assert one.inspect("HostConfig.Memory") == 16 * MIB
    assert explain(sysbox, one)[0] == 0


@pytest.mark.v1_only("v2 has no limit of memory and swap together")
def test_more_than_memory_and_swap(containers: Containers, sysbox: Sysbox) -> None:
    """The kernel refuses a MemoryLimit above memory and swap together, which is raised then."""
    one = containers("-m", "64m")
    for size in (512, 32):
        tune(one, f"MemoryLimit={size}M")
        both = max(size, 128) * MIB
        eventually(lambda: memory(one) == size * MIB, f"{size}M")  # noqa: B023
        eventually(lambda: one.inspect("HostConfig.MemorySwap") == both, f"{both}")  # noqa: B023
    assert explain(sysbox, one)[0] == 0


def test_the_keys_that_may_be_tuned() -> None:
    """Both spellings lead to one property, so that the two never meet in one unit."""
    assert set(dropins.spellings("CPUWeight")) == {"CPUShares", "CPUWeight"}
