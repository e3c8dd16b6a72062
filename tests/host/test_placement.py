"""cgroup v1: a container is in a cgroup of its own in the hierarchies that systemd leaves alone too."""

from __future__ import annotations

import subprocess

import pytest
from containers import Container, Containers, eventually, systemctl
from lane import Sysbox

from sysbox.host import probe
from sysbox.linux import cgroup
from sysbox.units.cgroup import tree
from sysbox.units.limits.properties import CgroupWrite

pytestmark = pytest.mark.v1_only

ALWAYS = ("freezer", "cpuacct", "perf_event")
LIMITS = ("-m", "64m", "--memory-swap", "96m", "--memory-reservation", "32m", "--cpuset-cpus", "0")


def places(one: Container, pid: int = 0) -> dict[str, str]:
    """Controller -> path, of those that are mounted here."""
    paths = cgroup.paths_of(pid or one.pid)
    return {name: path for name, path in paths.items() if name in probe().controllers}


def processes(one: Container, controller: str) -> set[str]:
    return set((one.cgroup(controller) / "cgroup.procs").read_text().split())


def test_everywhere(containers: Containers) -> None:
    one = containers("--cpuset-cpus", "0")
    own = f"/system.slice/{one.scope}"
    found = places(one)
    wanted = {"cpu", "memory", "pids", "devices", "blkio", "cpuset", *ALWAYS} & set(found)
    assert len(wanted) > len(ALWAYS)
    assert {found[name] for name in wanted} == {own}
    # and the container sees each as the root of what there is
    shown = one.exec("cat", "/proc/1/cgroup").splitlines()
    assert {line.split(":", 2)[2] for line in shown if line.split(":")[1] in wanted} == {"/"}


def test_exec_is_there_too(sysbox: Sysbox, containers: Containers) -> None:
    one = containers("--cpuset-cpus", "0")
    sysbox("exec", "-d", one.id, "sleep", "999", check=True)
    eventually(lambda: len(processes(one, "name=systemd")) == 2, "both are in the scope")
    (other,) = processes(one, "name=systemd") - {str(one.pid)}
    assert places(one, int(other)) == places(one)


def test_nothing_is_left(sysbox: Sysbox, image: str) -> None:
    shown = sysbox(
        "run", "--rm", "--cpuset-cpus", "0", image, "cat", "/proc/self/cgroup", check=True
    )
    assert shown.stdout
    # systemd removes what it has made when it gets to it, not before `run` returns
    find = ["find", "/sys/fs/cgroup", "-name", "docker-*"]
    eventually(
        lambda: subprocess.run(find, capture_output=True, check=False).stdout == b"",
        "no cgroup is left",
    )


def test_its_time_is_counted(containers: Containers) -> None:
    """S18: cpuacct has the container's own time, and not the whole host's."""
    one = containers(command=("sh", "-c", "while :; do :; done"))
    usage = one.cgroup("cpuacct") / "cpuacct.usage"
    eventually(lambda: int(usage.read_text()) > 100_000_000, "a tenth of a second is counted")
    one("pause")
    before = int(usage.read_text())
    assert int(usage.read_text()) == before


FORKING = """
trap 'kill $(jobs -p)' EXIT
i=0
while [ $i -lt 20 ]; do
    (while :; do true & wait; done) &
    i=$((i + 1))
done
wait
"""


def test_a_limit_that_comes_later(containers: Containers) -> None:
    """All processes move, those too that are made meanwhile."""
    one = containers(command=("sh", "-c", FORKING))
    eventually(lambda: len(processes(one, "pids")) > 15, "it forks")
    assert places(one)["cpuset"] == "/"
    write = CgroupWrite(controller="cpuset", file="cpuset.cpus", value="0")
    tree.apply_writes((write,), places(one)["name=systemd"], probe())
    assert one.limit("cpuset", "cpuset.cpus") == "0"
    # frozen, since one that ends while it is looked at is shown where it was in some hierarchies and at the
    # root in those that come after
    one("pause")
    found = {pid: places(one, int(pid))["cpuset"] for pid in processes(one, "name=systemd")}
    assert len(found) > 15
    assert set(found.values()) == {places(one)["name=systemd"]}, found


def test_what_was_written_stays(containers: Containers) -> None:
    """Of the values that no property has, a reload and changes of others lose none."""
    one = containers(*LIMITS)
    files = (
        ("memory", "memory.memsw.limit_in_bytes", str(96 << 20)),
        ("memory", "memory.soft_limit_in_bytes", str(32 << 20)),
        ("cpuset", "cpuset.cpus", "0"),
    )
    before = places(one)
    for words in (
        ("daemon-reload",),
        ("daemon-reexec",),
        ("set-property", "--runtime", one.scope, "CPUShares=100", "MemoryLimit=48M", "TasksMax=50"),
        ("set-property", "--runtime", one.scope, "BlockIOWeight=200", "DeviceAllow=/dev/null rw"),
        ("daemon-reload",),
    ):
        systemctl(*words)
        # until it is executed anew it refuses the next command
        eventually(lambda: systemctl("show", "-P", "Version", check=False), "systemd answers")
        for controller, file, value in files:
            assert one.limit(controller, file) == value, (words, file)
        assert places(one) == before, words
