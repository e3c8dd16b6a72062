"""`--security-opt landlock=on`: ordinary work is as without it, and what it changes is as documented.

What it keeps from a container is in tests/attack/test_landlock_attacked.py.

In the guest: an older kernel knows fewer rights.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from containers import Containers, eventually
from lane import SYSBOX, TIMEOUT, Sysbox
from pod_lab import POD
from pod_lab import pod as pod
from test_units import Declare
from test_units import declare as declare

from sysbox.linux import landlock

VERSION = landlock.abi()
ON = ("--security-opt", "landlock=on")
# in each directory that the user may write to
WORK = """
work() {
    cd $1
    mkdir a b; echo x >a/f; mv a/f b/g; ln b/g a/h; ln -s h a/l; mv a b/; cat b/a/l
    : >b/g; test ! -s b/a/h; mkfifo p; (echo y >p &); cat p; chmod 600 p; rm p
    cp /bin/busybox b/; b/busybox echo ran || echo noexec; dd if=/dev/zero of=z bs=1k count=4 2>/dev/null
    truncate -s 1 z; wc -c <z; rm -r b z
}
for directory in /tmp /volume /bind /tmpfs /dev/shm; do
    touch $directory/try 2>/dev/null || continue
    echo $directory
    (set -e; work $directory) || echo "failed: $?"
done
echo out >/dev/stdout; echo err >/dev/stderr; cat /dev/stdin; head -c 4 /dev/urandom | wc -c
cat /proc/self/comm /proc/1/status /sys/kernel/notes | head -n 1
readlink /proc/self/root /proc/1/root; ls -d /proc/1/fd /etc/hosts /proc/sys/net
chroot / true && echo changed
kill -0 1 && echo signalled
"""


@pytest.fixture(autouse=True)
def there(requires: Callable[[object, str], None]) -> None:
    requires(VERSION >= landlock.LEAST, "Landlock")


@pytest.mark.guest("an older kernel has no rights for truncate(2) and ioctl(2)")
@pytest.mark.parametrize(
    "flags",
    [(), ("--userns", "host"), ("-u", "1000", "--init"), ("--security-opt", "no-new-privileges"),
     ("-u", "1000", "--userns", "host", "--security-opt", "no-new-privileges"),
     ("--read-only", "--security-opt", "seccomp=unconfined")],
    ids=["default", "userns-host", "user", "no-new-privileges", "user-of-the-host", "read-only"],
)  # fmt: skip
def test_ordinary_work_is_as_without_it(
    sysbox: Sysbox, image: str, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    """Renames and links between directories, files that are emptied, pipes, devices, every kind of mount."""
    tmp_path.chmod(0o777)
    mounts = ("-v", "/volume", "-v", f"{tmp_path}:/bind", "--tmpfs", "/tmpfs:mode=1777")
    words = ("run", "--rm", "-i", "--network", "none", *mounts, *flags)
    done = [
        sysbox(*words, *more, image, "sh", "-c", WORK, input="in\n", check=True)
        for more in ((), ON)
    ]
    assert done[0].stdout == done[1].stdout
    # the notice of an older kernel comes first
    assert done[1].stderr.endswith(done[0].stderr)
    assert "/tmpfs\nx\ny\nnoexec\n1\n" in done[1].stdout
    assert "failed" not in done[1].stdout
    assert done[1].stdout.endswith("signalled\n")


def test_a_named_pipe_of_the_callers_can_be_opened_again(
    sysbox: Sysbox, image: str, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")
    fifo = os.open(tmp_path / "fifo", os.O_RDWR)
    os.write(fifo, b"told\n")
    words = ("run", "--rm", "-i", "--network", "none", "--userns", "host", *ON, image)
    done = subprocess.run(
        [SYSBOX, *words, "head", "-n", "1", "/dev/stdin"],
        stdin=fifo, capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    os.close(fifo)
    assert (done.returncode, done.stdout) == (0, "told\n"), done.stderr


def test_a_terminal(containers: Containers) -> None:
    """Its ioctls, on the device that is opened anew too."""
    script = "echo told >/dev/tty; stty -echo </dev/tty; stty -a </dev/console; sleep 1000"
    one = containers("-t", *ON, command=("sh", "-c", script))
    eventually(lambda: " -echo " in one("logs"), "the terminal is set and shown")
    assert one("logs").startswith("told")


LOOK = "readlink /proc/1/root >/dev/null 2>&1 && echo seen || echo hidden"


@pytest.mark.guest("an older kernel")
def test_a_process_of_exec_has_a_domain_of_its_own(containers: Containers) -> None:
    """The reason why it is off by default: landlock(7), "Ptrace restrictions"."""
    assert containers().sh(LOOK) == "seen"
    one = containers(*ON)
    for _ in range(2):
        assert one.sh(LOOK) == "hidden"
        # the list of processes and signals are as ever
        assert one.sh("tr '\\0' ' ' </proc/1/cmdline; kill -0 1 && echo signalled") == (
            "sleep 1000 signalled"
        )
        # processes of one exec are in one domain
        assert one.sh("sleep 9 & readlink /proc/$!/root; kill $!") == "/"
        assert one.exec("sh", "-c", LOOK, flags=("--privileged",)) == "seen"
        one("restart", "-t", "0")
    assert one.inspect("HostConfig.SecurityOpt") == ["landlock=on"]


def test_what_sysbox_does_from_outside(
    sysbox: Sysbox, containers: Containers, tmp_path: Path
) -> None:
    """Health checks, cp, diff, attach by its supervisor, and commands that look into it."""
    check = ("--health-cmd", "grep -q told /told", "--health-interval", "100ms")
    one = containers(*ON, *check)
    (tmp_path / "told").write_text("told\n")
    sysbox("cp", tmp_path / "told", f"{one.id}:/told", check=True)
    eventually(lambda: one.inspect("State.Health.Status") == "healthy", "it is healthy")
    sysbox("cp", f"{one.id}:/told", tmp_path / "back", check=True)
    assert (tmp_path / "back").read_text() == "told\n"
    assert "A /told" in one("diff")
    assert "sleep 1000" in one("top")
    one("stop", "-t", "0")


def test_containers_of_a_pod_reach_each_other(
    pod: Callable[..., str], containers: Containers
) -> None:
    pod()
    one, other = (containers("--pod", POD, *ON) for _ in range(2))
    one.sh("echo told >/dev/shm/word; (nc -l -p 80 </dev/shm/word) >/dev/null 2>&1 &")
    assert other.exec("cat", "/dev/shm/word") == "told"
    eventually(lambda: ":80 " in other.sh("netstat -ltn"), "one listens")
    assert other.sh("nc -w 30 127.0.0.1 80 </dev/null") == "told"


def test_a_declared_container(declare: Declare, sysbox: Sysbox) -> None:
    one = declare("Exec=sleep 1000\nStopSignal=KILL\nPodmanArgs=--security-opt=landlock=on")
    assert one.sh(LOOK) == "hidden"
    assert one.inspect("HostConfig.SecurityOpt") == ["landlock=on"]


@pytest.mark.guest("an older kernel")
def test_what_is_planned_and_what_this_kernel_can(sysbox: Sysbox, image: str) -> None:
    planned = sysbox("run", "--dry-run", *ON, image, "true", check=True).stdout.splitlines()
    line = next(line for line in planned if line.startswith("  landlock: what lies below /"))
    row = next(
        line for line in sysbox("doctor").stdout.splitlines() if line.split()[1:2] == ["Landlock"]
    )
    assert f"ABI {VERSION}" in row
    lacks = VERSION < 3
    assert ("truncate(2)" in line) == ("truncate(2)" in row) == lacks
    said = sysbox("run", "--rm", "--network", "none", *ON, image, "true", check=True).stderr
    assert ("landlock=on: this kernel's Landlock cannot restrict truncate(2)" in said) == lacks
    assert said.count("\n") == lacks


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--security-opt", "landlock=maybe"), "'maybe' is not a value of landlock"),
        (("--security-opt", "landlock"), "landlock: it lacks a value"),
        ((*ON, "--privileged"), "it has CAP_SYS_ADMIN"),
        ((*ON, "--cap-add", "SYS_ADMIN"), "it has CAP_SYS_ADMIN"),
        ((*ON, "--systemd", "always"), "systemd runs in it"),
    ],
    ids=["value", "no-value", "privileged", "capability", "systemd"],
)
def test_bad_input(sysbox: Sysbox, image: str, flags: tuple[str, ...], said: str) -> None:
    done = sysbox("run", *flags, "--name", "refused", image, "true")
    assert done.returncode == 125
    assert said in done.stderr
    assert len(done.stderr.splitlines()) <= 2  # and a hint
    assert sysbox("inspect", "refused").returncode == 1
