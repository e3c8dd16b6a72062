"""Namespaces: each new by default, or another's (S13); and what of mounts crosses between them.

In the guest: the cgroup namespace shows the unified hierarchy, and the kernel is an older one.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import Containers, eventually
from lane import Sysbox

KINDS = ("pid", "net", "ipc", "mnt", "uts", "cgroup", "time")
FLAGS = {
    "pid": "--pid", "net": "--network", "ipc": "--ipc", "uts": "--uts", "cgroup": "--cgroupns",
    "time": "--timens",
}  # fmt: skip
# the clocks are those of the processes and the memory that are shared
WITH = {"pid": {"pid", "time"}, "ipc": {"ipc", "time"}}


def test_s13_all_are_private_by_default(containers: Containers) -> None:
    """S13: pid, net, ipc, mnt, uts, cgroup, time and user."""
    one, two = containers(), containers()
    for kind in (*KINDS, "user"):
        host = os.readlink(f"/proc/1/ns/{kind}")
        assert len({host, one.namespace(kind), two.namespace(kind)}) == 3, kind


@pytest.mark.parametrize("kind", FLAGS)
def test_s13_the_hosts(containers: Containers, kind: str) -> None:
    """S13: --KIND host, for that kind alone, and for the clocks that go with it."""
    one = containers(FLAGS[kind], "host")
    for each in KINDS:
        shared = one.namespace(each) == os.readlink(f"/proc/1/ns/{each}")
        assert shared == (each in WITH.get(kind, {kind})), each


@pytest.mark.parametrize("kind", FLAGS)
def test_s13_another_containers(containers: Containers, kind: str) -> None:
    """S13: --KIND container:NAME, for that kind alone, and for the clocks that go with it."""
    one = containers("--name", "first")
    two = containers(FLAGS[kind], "container:first")
    for each in KINDS:
        shared = one.namespace(each) == two.namespace(each)
        assert shared == (each in WITH.get(kind, {kind})), each
    # what is shared works: an exec enters all of them, and the end of the second is not the first's
    assert two.sh(f"readlink /proc/self/ns/{kind}") == one.namespace(kind)
    two("rm", "-f")
    assert one.inspect("State.Running") is True


def test_s13_a_pid_namespace_ends_with_its_owner(containers: Containers) -> None:
    """S13, S17: who lives in another's pid namespace ends with it, and that is recorded."""
    one = containers("--name", "first")
    two = containers("--pid", "container:first", command=("sleep", "4719"))
    assert "4719" in one.sh("ps")
    one("kill")
    two.await_state("exited")
    assert two.inspect("State.ExitCode") == 137


@pytest.fixture
def holder() -> Iterator[int]:
    """The pid of a process in namespaces of its own that are no container's."""
    process = subprocess.Popen(
        [
            "unshare",
            "--net",
            "--ipc",
            "--uts",
            "sh",
            "-c",
            "hostname elsewhere; echo; exec sleep 1000",
        ],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield process.pid
    process.kill()
    process.wait()


def test_s13_by_path(containers: Containers, holder: int) -> None:
    """S13: --KIND ns:PATH."""
    one = containers(
        "--network", f"ns:/proc/{holder}/ns/net",
        "--ipc", f"ns:/proc/{holder}/ns/ipc",
        "--uts", f"ns:/proc/{holder}/ns/uts",
    )  # fmt: skip
    for kind in ("net", "ipc", "uts"):
        assert one.namespace(kind) == os.readlink(f"/proc/{holder}/ns/{kind}")
    assert one.sh("hostname") == "elsewhere"


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (("--network", "ns:/no/such"), "/no/such"),
        (("--ipc", "ns:/etc/passwd"), "/etc/passwd"),
        (("--uts", "ns:/proc/1/ns/net"), "/proc/1/ns/net"),
        (("--pid", "container:stopped"), "stopped"),
        (("--uts", "host", "--hostname", "x"), "--hostname"),
    ],
)
def test_what_cannot_be_joined(
    sysbox: Sysbox, image: str, containers: Containers, flags: tuple[str, ...], word: str
) -> None:
    containers("--name", "stopped", verb=("create",), command=("true",))
    done = sysbox("run", "--rm", *flags, image, "true")
    assert done.returncode == 125
    assert len(done.stderr.splitlines()) <= 2
    assert word in done.stderr


def test_restart_without_what_it_joins(containers: Containers, sysbox: Sysbox) -> None:
    """It could not start again, so it is not stopped."""
    one = containers("--name", "first")
    two = containers("--network", "container:first")
    one("stop", "-t", "0")
    done = sysbox("restart", "-t", "0", two.id)
    assert "container first, whose namespace it shares, is not running" in done.stderr
    one("rm")
    done = sysbox("restart", "-t", "0", two.id)
    assert done.returncode == 1
    assert f"container {one.id[:12]}, whose namespace it shares, has been removed" in done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert two.inspect("State.Running") is True


def test_system_v_objects_are_private(containers: Containers) -> None:
    one = containers()
    assert one.sh("tail -n +2 /proc/sysvipc/shm; ls /dev/mqueue") == ""
    shared = containers("--ipc", f"container:{one.id}")
    one.sh("echo x > /dev/shm/file")
    assert shared.sh("cat /dev/shm/file") == "x"


@pytest.mark.v2_only("v1 has no such options")
def test_a_container_in_the_hosts_cgroup_namespace_keeps_the_options_of_v2(
    containers: Containers,
) -> None:
    """A mount that is made there sets nsdelegate and the others anew, for the whole host."""

    def options() -> str:
        text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
        return next(line for line in text.splitlines() if " - cgroup2 " in line).rpartition(" ")[2]

    before = options()
    assert "nsdelegate" in before
    one = containers("--cgroupns", "host")
    assert options() == before
    assert (
        one.sh("grep ' - cgroup2 ' /proc/self/mountinfo").rpartition(" ")[2].split(",")[1:]
        == (before.split(",")[1:])
    )


@pytest.mark.guest("one hierarchy on v2")
def test_the_cgroup_namespace_hides_the_host(containers: Containers) -> None:
    """Its scope is the root of what it sees; with the host's it sees where it is, and what is beside it."""
    # of cpuset and the like a container has a cgroup of its own only with a limit there
    hidden = "^(cpuset|net_cls|net_prio|hugetlb)/"
    beside = (
        f"cd /sys/fs/cgroup; ls -d system.slice */system.slice 2>&- | grep -vE '{hidden}' || true"
    )
    one = containers()
    assert one.sh("cut -d: -f3 /proc/self/cgroup | sort -u") == "/"
    assert one.sh(beside) == ""
    two = containers("--cgroupns", "host")
    assert f"/system.slice/{two.scope}" in two.sh("cat /proc/self/cgroup")
    assert two.sh(beside) != ""


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A directory on the host whose mounts are shared with whoever wants them."""
    base = tmp_path / "tree"
    (base / "later").mkdir(parents=True)
    subprocess.run(["mount", "--bind", base, base], check=True)
    subprocess.run(["mount", "--make-shared", base], check=True)
    yield base
    subprocess.run(["umount", "--recursive", base], check=True)


@pytest.mark.parametrize(
    ("option", "inwards", "outwards"),
    [("", False, False), (":rslave", True, False), (":rshared", True, True)],
)
def test_s13_propagation(
    containers: Containers, tree: Path, option: str, *, inwards: bool, outwards: bool
) -> None:
    """S13: private by default, slave takes the host's later mounts, shared gives as well."""
    one = containers(
        "--cap-add",
        "SYS_ADMIN",
        "--security-opt",
        "seccomp=unconfined",
        "-v",
        f"{tree}:/tree{option}",
    )
    (tree / "inner").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "later", tree / "later"], check=True)
    assert ("later" in one.sh("grep ' /tree/later ' /proc/mounts || true")) == inwards
    one.sh("mount -t tmpfs inner /tree/inner")
    seen = "inner" in Path("/proc/self/mounts").read_text(encoding="utf-8")
    assert seen == outwards
    one("rm", "-f")
    if not outwards:
        assert "inner" not in Path("/proc/self/mounts").read_text(encoding="utf-8")


def test_nothing_of_a_container_is_mounted_on_the_host(containers: Containers) -> None:
    """The root is mounted in the container's own namespace: `df` on the host stays short."""
    before = Path("/proc/1/mountinfo").read_text(encoding="utf-8")
    one = containers("-v", "/data", "--tmpfs", "/scratch")
    assert "overlay / " in one.sh("cat /proc/mounts")
    eventually(
        lambda: Path("/proc/1/mountinfo").read_text(encoding="utf-8") == before, "no mount is added"
    )
