"""What a container gets hold of while a process of the host's becomes one of its own (run, exec).

In the guest: exec makes its process in the cgroup of v2 at its birth.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from containers import Container, Containers, eventually
from lane import SLOWNESS, SYSBOX, Sysbox

from sysbox.linux import capability
from sysbox.security import capabilities

# what every process that can be seen has, again and again, until somebody says that it is enough
WATCH = """
while [ ! -e /tmp/enough ]; do
    awk '/^(CapPrm|CapBnd|CapEff|Seccomp|NoNewPrivs):/ { print FILENAME, $1, $2 }' /proc/[0-9]*/status
    for process in /proc/[0-9]*; do
        [ ! -e $process/root$0 ] || echo root $process
        ! grep -q _main.py $process/cmdline || echo starter
        for fd in $process/fd/*; do echo fd $(readlink $fd); done
    done
done >/tmp/seen 2>/dev/null
exec sleep 1000
"""
SLOW = round(
    700_000 * SLOWNESS
)  # microseconds that each step is held up, so that nobody can overlook it


@pytest.fixture
def watcher(containers: Containers) -> Container:
    """A container that may look into each process that it can see."""
    marker = str(SYSBOX)  # a file of the host's that is not in the image
    return containers(
        "--cap-add", "SYS_PTRACE", "--network", "none", "--name", "watcher",
        command=("sh", "-c", WATCH, marker),
    )  # fmt: skip


def seen(watcher: Container) -> set[str]:
    """The lines that it has written, each once, without the number of the process."""
    watcher.exec("touch", "/tmp/enough")
    # its script has that word too; while it looks, the last line may be a part of one
    looked = ("cat", "/proc/1/cmdline")
    eventually(lambda: watcher.exec(*looked).startswith("sleep"), "it looks no more")
    lines = watcher.exec("sort", "-u", "/tmp/seen").splitlines()
    return {" ".join(line.split()[1:]) if line.startswith("/proc") else line for line in lines}


def slowed(*words: str, calls: str) -> subprocess.CompletedProcess[str]:
    """A command of sysbox of which some system calls take their time."""
    inject = f"inject={calls}:delay_enter={SLOW}"
    command = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", "-e", inject)
    return subprocess.run(
        [*command, SYSBOX, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip


def check(watcher: Container) -> None:
    """Nobody that was seen had more than the container."""
    found = seen(watcher)
    assert "starter" in found
    mask = capability.mask(capabilities.DEFAULT) | capability.mask(("SYS_PTRACE",))
    for line in found:
        name, _, value = line.partition(" ")
        if name in ("CapPrm:", "CapBnd:", "CapEff:"):
            assert int(value, 16) & ~mask == 0, line
        if name == "Seccomp:":
            assert value == "2", line
    assert not [line for line in found if line.startswith("root")]
    open_files = {line.partition(" ")[2].split(":")[0] for line in found if line.startswith("fd")}
    # the last one is open in the process that makes it, for a moment
    own = {"", "pipe", "socket", "/dev/null", "/null", "/tmp/seen", "/tmp/enough"}
    assert not {one for one in open_files - own if not one.startswith("/proc/")}


@pytest.mark.guest("it enters one cgroup on v2")
@pytest.mark.also_enforcing("it takes the label of the container")
def test_what_exec_makes_is_never_more_than_the_container(
    watcher: Container, requires: Any
) -> None:
    """CVE-2016-9962: it is in the pid namespace from its birth, and could be taken over."""
    requires.program("strace")
    done = slowed("exec", watcher.id, "/bin/true", calls="execve")
    assert done.returncode == 0, done.stderr
    done = slowed("exec", "-u", "user", watcher.id, "/bin/true", calls="execve")
    assert done.returncode == 0, done.stderr
    check(watcher)


def test_nor_is_who_starts_a_neighbour_in_its_pid_namespace(
    watcher: Container, image: str, requires: Any
) -> None:
    requires.program("strace")
    flags = ("--rm", "--network", "none", "--pid", f"container:{watcher.id}")
    done = slowed("run", *flags, image, "/bin/ls", "/proc/1/root/tmp", calls="pivot_root,execve")
    assert done.returncode == 0 or "Permission denied" in done.stderr, done.stderr
    check(watcher)


def test_a_neighbour_in_its_pid_namespace(containers: Containers) -> None:
    """It sees the other's processes through a /proc of its own, with its own covers on it."""
    one = containers("--network", "none", command=("sleep", "4321"))
    other = containers("--network", "none", "--pid", f"container:{one.id}")
    assert "sleep\x004321" in other.exec("cat", "/proc/1/cmdline")
    assert one.namespace("pid") == other.namespace("pid")
    assert other.exec("stat", "-c", "%t:%T", "/proc/timer_list") == "1:3"
    assert other.inspect("State.Pid") != one.inspect("State.Pid")
    other("stop", "-t", "0")
    assert one.inspect("State.Running")


# --- the null device -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [3, 4, 5])
def test_no_descriptor_of_the_hosts_by_a_volume_at_dev(
    containers: Containers, tmp_path: Path, number: int
) -> None:
    """A link in it leads to a descriptor of whoever opens it."""
    (tmp_path / "null").symlink_to(f"/proc/self/fd/{number}")
    script = "stat -Lc %t:%T /proc/self/fd/0; readlink /proc/self/fd/0; sleep 1000"
    one = containers("-v", f"{tmp_path}:/dev", "--network", "none", command=("sh", "-c", script))
    eventually(lambda: len(one("logs").split()) >= 2, "it has looked")
    assert one("logs").split() == ["1:3", "/dev/null"]
    assert os.readlink(f"/proc/{one.pid}/fd/0") in ("/dev/null", "/null")
    assert one.exec("stat", "-Lc", "%t:%T", "/proc/self/fd/0") == "1:3"


def test_exec_does_not_open_what_a_container_has_made_of_dev_null(containers: Containers) -> None:
    one = containers("--network", "none")
    one.sh("rm /dev/null; ln -s /proc/kmsg /dev/null")
    script = "stat -Lc %t:%T /proc/self/fd/0; readlink /proc/self/fd/0"
    kind, where = one.sh(script).split()
    assert (kind, "kmsg" in where) == ("1:3", False)
    # and what it is given is nobody else's
    one.sh("chmod 000 /proc/self/fd/0")
    # the host's root makes a right one, which root inside cannot in a user namespace of its own
    other = containers("--network", "none", "--userns", "host")
    other.sh("rm /dev/null; mknod /dev/null c 1 3; chmod 666 /dev/null")
    assert other.sh(script).split() == ["1:3", "/dev/null"]


# --- inodes of the host's --------------------------------------------------------------------------


def state_of(path: str) -> tuple[int, ...]:
    found = os.stat(path)
    return found.st_mode, found.st_uid, found.st_gid, found.st_mtime_ns, found.st_size


def test_no_inode_of_the_hosts_can_be_changed(sysbox: Sysbox, image: str, requires: Any) -> None:
    """Masks, devices, the program of --init: chmod, chown, utime and writing stay inside, or fail."""
    init = str(SYSBOX.parents[1] / "lib")
    package = next(Path(init).glob("python3*/site-packages/sysbox/libexec/sysbox-init"))
    before = {path: state_of(path) for path in ("/dev/null", "/dev/zero", str(package))}
    script = """
        for file in $(awk '{ print $5 }' /proc/self/mountinfo) /dev/* /proc/1/fd/*; do
            case $file in /|/proc|/sys|/tmp) continue; esac
            chmod 000 $file; chown 7:7 $file; touch -d 2001-01-01 $file
        done 2>/dev/null
        echo x >/dev/sysbox-init
        stat -c %a /proc/timer_list
    """
    done = sysbox("run", "--rm", "--init", "--network", "none", image, "sh", "-c", script)
    assert done.stdout.split() in (["666"], ["0"]), done.stderr
    assert {path: state_of(path) for path in before} == before
    script = "for file in /usr /usr/bin /usr/bin/env; do chmod 700 $file || echo refused; done"
    done = sysbox("run", "--rm", "--network", "none", "host", "sh", "-c", script, check=True)
    assert done.stdout.split() == ["refused"] * 3


@pytest.mark.v1_only("the tree beside the controllers; a frozen scope of v2 is a paused container")
@pytest.mark.parametrize("below", ["", "/below", "/below/it"])
def test_one_that_freezes_itself_does_not_hold_up_exec(
    containers: Containers, sysbox: Sysbox, below: str
) -> None:
    # in a user namespace of its own it may freeze what is below its cgroup only
    host = () if below else ("--userns", "host")
    one = containers("--systemd=always", "--network", "none", *host, command=("sleep", "1000"))
    tree = f"/sys/fs/cgroup/unified/system.slice/{one.scope}"
    # as the container may, which has these files for its own; what is below stops with its first process
    script = f"""
        cd /sys/fs/cgroup/unified
        mkdir -p .{below} && echo 1 >.{below}/cgroup.procs
        echo 1 >.{below[:6]}/cgroup.freeze"""
    # it may see already that the container is frozen, and say so
    sysbox("exec", "-d", one.id, "sh", "-c", script)
    file = Path(f"{tree}{below[:6]}/cgroup.freeze")
    eventually(lambda: file.exists() and file.read_text(encoding="ascii") == "1\n", "it is frozen")
    done = sysbox("exec", one.id, "true")
    assert done.returncode == 125
    assert "has frozen itself" in done.stderr
    assert str(file) in done.stderr
    one("rm", "-f")


@pytest.mark.v1_only("the tree beside the controllers")
@pytest.mark.parametrize("calls", ["setns", "setgroups"])
def test_one_that_freezes_what_enters_it_does_not_hold_up_exec(
    containers: Containers, calls: str
) -> None:
    script = """
        cd /sys/fs/cgroup/unified
        mkdir below above && echo 1 >below/cgroup.procs
        {
            until read -r _ <above/cgroup.procs; do :; done
            while :; do
                set -- $(cat below/cgroup.procs)
                [ $# -lt 2 ] || echo 1 >below/cgroup.freeze
            done
        } & echo $! >above/cgroup.procs
        wait"""
    one = containers("--systemd=always", "--network", "none", command=("sh", "-c", script))
    above = Path(f"/sys/fs/cgroup/unified/system.slice/{one.scope}/above/cgroup.procs")
    eventually(lambda: above.exists() and above.read_text(), "one is below, and the other looks")
    done = slowed("exec", one.id, "true", calls=calls)
    assert done.returncode == 125
    assert "has frozen itself" in done.stderr
    one("rm", "-f")
