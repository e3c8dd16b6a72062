"""Slices as groups of containers: one limit for all of them, nested, set live or by a unit file (S18).

In the guest: a slice's controllers have to be handed down on v2, and its limits are other files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import V1, Container, Containers, eventually, share_of_cpu, systemctl
from lane import Sysbox

from sysbox.host import probe
from sysbox.linux import cgroup
from sysbox.units import names

MIB = 1 << 20
GROUP = "sysboxtest.slice"
NESTED = "sysboxtest-inner.slice"
UNIT_FILE = Path("/run/systemd/system") / GROUP
LIMIT, USAGE = (
    ("memory.limit_in_bytes", "memory.usage_in_bytes") if V1 else ("memory.max", "memory.current")
)


@pytest.fixture(autouse=True)
def slices(containers: Containers) -> Iterator[None]:
    """After the test the slices are gone, and what was set for them."""
    yield
    containers.remove()
    systemctl("stop", GROUP)
    UNIT_FILE.unlink(missing_ok=True)
    systemctl("revert", GROUP)  # and a reload with it


def directory(slice_: str, controller: str) -> Path:
    """The cgroup of a slice."""
    return Path(cgroup.directory(probe(), controller, f"/{names.slice_path(slice_)}"))


def read(slice_: str, controller: str, file: str) -> str:
    """A cgroup file of a slice."""
    return (directory(slice_, controller) / file).read_text(encoding="ascii").strip()


def memory(slice_: str, file: str) -> int:
    return int(read(slice_, "memory", file))


def config(one: Container) -> dict[str, str]:
    """Where `inspect` says that a container is."""
    shown = json.loads(one("inspect"))[0]
    return {"parent": shown["HostConfig"]["CgroupParent"], **shown["Sysbox"]}


@pytest.mark.guest("one hierarchy on v2")
def test_memory_of_two_is_held_together(containers: Containers, sysbox: Sysbox) -> None:
    """Two containers without a limit of their own take no more together than their slice may have."""
    both = [containers("--slice", slice_) for slice_ in (GROUP, NESTED)]
    systemctl("set-property", GROUP, "MemoryMax=40M")
    # systemd answers before it writes it
    eventually(lambda: memory(GROUP, LIMIT) == 40 * MIB, "the limit holds")
    eater = "dd if=/dev/zero of=/dev/shm/file bs=1M count=30 2>/dev/null"
    assert sysbox("exec", both[0].id, "sh", "-c", eater).returncode == 0
    assert memory(GROUP, USAGE) > 29 * MIB
    sysbox("exec", both[1].id, "sh", "-c", eater)  # killed where nothing can be swapped out
    assert memory(GROUP, USAGE) <= 40 * MIB
    assert memory(NESTED, USAGE) < 25 * MIB


def test_processes_of_two_are_counted_together(containers: Containers, sysbox: Sysbox) -> None:
    """TasksMax of a slice: what two containers fork stops there, and then neither has room."""
    systemctl("set-property", GROUP, "TasksMax=24")
    both = [containers("--slice", slice_) for slice_ in (GROUP, NESTED)]
    fork = "for i in $(seq 18); do sleep 1000 >/dev/null 2>&1 & done"
    both[0].sh(fork)
    assert sysbox("exec", both[1].id, "sh", "-c", fork).returncode != 0
    assert 20 <= int(read(GROUP, "pids", "pids.current")) <= 24


def test_processor_time_of_two_is_held_together(containers: Containers) -> None:
    """CPUQuota of a slice, for two that take all they get; the one that has more shares gets more."""
    busy = ("sh", "-c", "while :; do :; done")
    # less than it gets on a busy machine, too; on one CPU, since shares count only where they compete
    systemctl("set-property", GROUP, "CPUQuota=5%")
    pair = [
        containers("--slice", GROUP, "--cpuset-cpus", "0", "-c", shares, command=busy)
        for shares in ("256", "1024")
    ]
    pids = [one.pid for one in pair]
    before = [cpu_seconds(pid) for pid in pids]
    group = directory(GROUP, "cpu")
    assert 0.02 < share_of_cpu(group, lambda: sum(map(cpu_seconds, pids))) < 0.08

    # without the quota, a period of which has room for two of the scheduler's slices: one for each
    systemctl("set-property", GROUP, "CPUQuota=")
    before = [cpu_seconds(pid) for pid in pids]

    def ratio() -> float:
        few, many = (cpu_seconds(pid) - had for pid, had in zip(pids, before, strict=True))
        return many / few if few > 0.05 else 0.0

    eventually(lambda: ratio() > 2, "the one with four times the shares has twice the time")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()
    return int(fields[0]) / 1e9


def test_nested_in_every_hierarchy(containers: Containers) -> None:
    """A container of a-b.slice lies below a.slice wherever it lies, and so does what exec starts."""
    one = containers("--slice", "sysboxtest-inner", "--cpuset-cpus", "0")
    path = f"/{GROUP}/{NESTED}/{one.scope}"
    found = cgroup.paths_of(one.pid)
    for controller in ("memory", "cpu", "blkio", "pids", "devices", "cpuset", "name=systemd"):
        assert found.get(controller, found[cgroup.UNIFIED]) == path
    assert config(one)["parent"] == config(one)["Slice"] == NESTED
    assert config(one)["ControlGroup"] == path
    one.exec("sleep", "1000", flags=("-d",))
    for controller in ("memory", "cpuset"):
        members = Path(cgroup.directory(probe(), controller, path)) / "cgroup.procs"
        assert len(members.read_text("ascii").split()) == 2, members
    assert systemctl("show", "-P", "ControlGroup", one.scope) == path


def test_a_unit_file_is_in_force_from_the_first_container_on(containers: Containers) -> None:
    """A slice that an administrator wrote: its limits are there when the first process is."""
    weight = "CPUShares=256" if V1 else "CPUWeight=25"
    UNIT_FILE.write_text(f"[Slice]\nMemoryMax=64M\n{weight}\n", encoding="ascii")
    systemctl("daemon-reload")
    containers("--slice", GROUP)
    assert memory(GROUP, LIMIT) == 64 * MIB
    assert read(GROUP, "cpu", "cpu.shares" if V1 else "cpu.weight") == weight.partition("=")[2]


def test_limits_outlive_the_slice(containers: Containers) -> None:
    """set-property of a slice that no file describes: kept when it is stopped, until `revert`."""
    systemctl("set-property", GROUP, "MemoryMax=48M")
    for _ in range(2):
        one = containers("--slice", GROUP)
        assert memory(GROUP, LIMIT) == 48 * MIB
        one("rm", "-f")
        systemctl("stop", GROUP)
    systemctl("revert", GROUP)
    containers("--slice", GROUP)
    assert memory(GROUP, LIMIT) > 1 << 40 if V1 else read(GROUP, "memory", LIMIT) == "max"


def test_a_stop_of_the_slice_stops_the_group(containers: Containers) -> None:
    """`systemctl stop web.slice` ends every container below it, each by its own stop signal."""
    graceful = ("sh", "-c", "trap 'exit 7' USR1; echo ready; while :; do sleep 0.05; done")
    group = [
        containers("--slice", slice_, "--stop-signal", "USR1", command=graceful)
        for slice_ in (GROUP, NESTED)
    ]
    other = containers()
    eventually(lambda: all("ready" in one("logs") for one in group), "their traps are set")
    systemctl("stop", GROUP)
    for one in group:
        one.await_state("exited")
        assert one.inspect("State.ExitCode") == 7
    assert other.inspect("State.Running") is True


def test_ps_by_slice(containers: Containers, sysbox: Sysbox) -> None:
    """ps shows the slice, and lists what is below one."""
    outer, inner, other = (
        containers("--slice", slice_) for slice_ in (GROUP, NESTED, "system.slice")
    )
    template = ("--no-trunc", "--format", "{{.ID}} {{.Slice}}")
    listed = sysbox("ps", *template, check=True).stdout.splitlines()
    assert {f"{outer.id} {GROUP}", f"{inner.id} {NESTED}", f"{other.id} system.slice"} <= {*listed}
    for name, expected in ((GROUP, {outer.id, inner.id}), ("sysboxtest-inner", {inner.id})):
        found = sysbox("ps", "-q", "--no-trunc", "--filter", f"slice={name}", check=True)
        assert set(found.stdout.split()) == expected


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("-web", "'-' separates"),
        ("web--prod", "'-' separates"),
        ("web/prod", "is not a slice's name"),
        ("web.service", "is a service"),
    ],
)
def test_what_is_no_slice(sysbox: Sysbox, image: str, name: str, reason: str) -> None:
    """A clear word, and nothing made."""
    done = sysbox("run", "--rm", f"--slice={name}", image, "true")
    assert done.returncode == 125
    assert f"--slice {name!r}" in done.stderr
    assert reason in done.stderr


def test_a_masked_slice(containers: Containers, sysbox: Sysbox, image: str) -> None:
    """systemd's own refusal, in its words."""
    systemctl("mask", "--runtime", "sysboxmasked.slice")
    try:
        done = sysbox("run", "--rm", "--slice", "sysboxmasked.slice", image, "true")
    finally:
        systemctl("unmask", "--runtime", "sysboxmasked.slice")
    assert done.returncode == 125
    assert "sysboxmasked.slice is masked" in done.stderr


def test_the_root_slice(containers: Containers) -> None:
    """`-.slice`: the scope lies right below the root."""
    one = containers("--slice=-.slice")
    assert cgroup.path_of(one.pid, "memory") == f"/{one.scope}"
    assert config(one)["ControlGroup"] == f"/{one.scope}"
