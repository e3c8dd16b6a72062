"""`--security-opt seccomp=record:FILE`: what a container calls becomes a profile, with which it works.

In the guest, enforcing: Linux 6.1 has fewer ways to wake a recorder, which is in the one hierarchy of v2; the
listener, the table and FILE pass between labels.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from containers import Containers, eventually, popen, systemctl
from lane import Sysbox

SLEEPING = ("35", "230")  # nanosleep(2), clock_nanosleep(2)
OFFLINE = ("--network", "none")
GUEST = pytest.mark.also_enforcing("labels, and an older kernel's notifications")
# calls in several processes; the default filter refuses the mount
WORK = (
    "mkdir /work && ls / >/work/list && chmod 600 /work/list && (umask; uname -r) | wc -l; "
    "mount -t tmpfs x /work || true"
)


def names(path: Path) -> set[str]:
    """The calls that a profile allows."""
    rules = json.loads(path.read_text())["syscalls"]
    return {name for one in rules if one["action"] == "SCMP_ACT_ALLOW" for name in one["names"]}


def recorders() -> list[int]:
    found = []
    for one in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if one.read_bytes().startswith(b"sysbox-recorder\0"):  # b"" of one that has ended
                found.append(int(one.parent.name))
        except OSError:
            continue
    return found


def journal(container: str) -> str:
    """What sysbox itself has said of a container that went wrong."""
    command = ["journalctl", "-q", "-o", "cat", "-p", "err", f"SYSBOX_ID={container}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def none_is_left() -> None:
    eventually(lambda: not recorders(), "the recorders have ended")


def asked(kind: str, path: Path) -> tuple[str, ...]:
    return (*OFFLINE, "--security-opt", f"seccomp={kind}{path}")


@pytest.mark.parametrize(
    "more",
    [
        pytest.param((), marks=GUEST), ("--userns", "host"),
        ("--security-opt", "no-new-privileges", "-u", "1000"), ("--privileged",),
    ],
    ids=["mapped", "host", "user", "privileged"],
)  # fmt: skip
def test_recorded_and_replayed(
    sysbox: Sysbox, image: str, tmp_path: Path, more: tuple[str, ...]
) -> None:
    path = tmp_path / "made.json"
    work = WORK if "-u" not in more else WORK.replace("/work", "/tmp/work")
    first = sysbox(
        "run", "--rm", *more, *asked("record:", path), image, "sh", "-ec", work, check=True
    )
    assert (path.stat().st_mode & 0o7777, path.stat().st_uid) == (0o644, 0)
    found = names(path)
    assert {"execve", "exit_group", "openat", "uname", "umask"} <= found or "open" in found
    assert {"mkdir", "mkdirat"} & found
    assert {"chmod", "fchmodat", "fchmodat2"} & found
    assert ("mount" in found) is ("--privileged" in more)
    assert not {"rmdir", "unlinkat", "kill", "ptrace"} & found
    none_is_left()
    again = sysbox("run", "--rm", *more, *asked("", path), image, "sh", "-ec", work, check=True)
    assert again.stdout == first.stdout
    # what it did not do then is refused now
    done = sysbox("run", "--rm", *more, *asked("", path), image, "sh", "-c", "kill -0 $$")
    assert (done.returncode, "not permitted" in done.stderr) == (1, True), done.stderr


@GUEST
def test_in_the_background_with_exec(
    sysbox: Sysbox, containers: Containers, tmp_path: Path
) -> None:
    """The processes of `exec`, and of health checks, are the container's; each start adds what it calls."""
    path = tmp_path / "made.json"
    checked = ("--health-cmd", "umask", "--health-interval", "1s")
    one = containers(*asked("record:", path), *checked)
    (recorder,) = recorders()
    for fd in ("/proc/1/fd", "/proc/self/fd"):
        assert "seccomp" not in one.exec("ls", "-l", fd)
    one.exec("chmod", "700", "/tmp")
    eventually(lambda: one.inspect("State.Health.Status") == "healthy", "a check is made")
    assert recorders() == [recorder]
    assert not path.exists()
    one("stop", "-t", "0")
    assert {"chmod", "fchmodat", "fchmodat2"} & names(path)
    assert "umask" in names(path)
    none_is_left()
    one("start")
    one.exec("uname")
    one("kill")
    eventually(lambda: "uname" in names(path), "its second run is recorded too")
    assert "umask" in names(path)
    none_is_left()
    replayed = containers(*asked("", path), *checked)
    replayed.exec("chmod", "700", "/tmp")
    done = sysbox("exec", replayed.id, "mkdir", "/x")
    assert (done.returncode, "not permitted" in done.stderr) == (1, True), done.stderr


def test_systemd_inside(sysbox: Sysbox, containers: Containers, tmp_path: Path) -> None:
    """Its services have filters of their own; with what was recorded it comes up again."""
    path = tmp_path / "made.json"
    init = ("/lib/systemd/systemd",)
    for kind in ("record:", ""):
        one = containers(*asked(kind, path), "--systemd", "always", image="host", command=init)
        up = ("exec", one.id, "systemctl", "is-system-running", "--wait")
        eventually(lambda: sysbox(*up).stdout == "running\n", "it has come up")  # noqa: B023
        one("stop")
    assert {"mount", "pivot_root", "setns", "unshare"} & names(path)
    none_is_left()


def test_a_recorder_that_is_killed(sysbox: Sysbox, containers: Containers, tmp_path: Path) -> None:
    """What it was asked about fails; what it had seen is in the profile."""
    path = tmp_path / "made.json"
    # not a loop of the shell, which may go round in it for ever when each of its calls fails
    endless = "umask; exec dd if=/dev/zero of=/dev/null bs=1"
    one = containers(*asked("record:", path), command=("sh", "-c", endless))
    read = f"/proc/{one.pid}/fd/0"
    eventually(lambda: os.readlink(read) == "/dev/zero", "umask is called, and dd goes on")
    one.exec("uname")
    (recorder,) = recorders()
    os.kill(recorder, signal.SIGKILL)
    one.await_state("exited")
    said = f"the recorder ended before the container: {path} is incomplete"
    assert one.inspect("State.Error") == said
    eventually(lambda: said in journal(one.id), "the journal says so")
    assert {"uname", "umask"} <= names(path)
    none_is_left()
    two = containers(*asked("record:", path))
    # it makes no more calls
    calls = Path(f"/proc/{two.pid}/syscall")
    eventually(lambda: calls.read_text().split()[0] in SLEEPING, "it sleeps")
    (recorder,) = recorders()
    os.kill(recorder, signal.SIGKILL)
    eventually(lambda: not recorders(), "it is killed")
    done = sysbox("exec", two.id, "true")
    assert done.returncode == 125
    assert "the recorder of its system calls has ended" in done.stderr
    assert f"sysbox stop {two.inspect('Name')[1:]}" in done.stderr
    two("kill")


def test_a_recorder_that_is_killed_in_the_foreground(
    sysbox: Sysbox, image: str, tmp_path: Path
) -> None:
    path = tmp_path / "made.json"
    flags = ("--rm", "--name", "unheard", *asked("record:", path))
    process = popen("run", *flags, image, "sh", "-c", "echo up; sleep 1000")
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    (recorder,) = recorders()
    os.kill(recorder, signal.SIGKILL)
    sysbox("kill", "unheard")  # perhaps it has ended: exit(2) fails too
    _, said = process.communicate(timeout=60)
    wanted = f"the recorder ended before the container: {path} is incomplete"
    assert (process.returncode, wanted in said) == (125, True), said


def test_a_supervisor_that_is_killed(containers: Containers, tmp_path: Path) -> None:
    """The container ends with it; whoever records that end makes the profile."""
    path = tmp_path / "made.json"
    one = containers(*asked("record:", path))
    one.exec("uname")
    main = systemctl("show", "-P", "MainPID", f"sysbox-{one.id}.service")
    os.kill(int(main), signal.SIGKILL)
    eventually(path.exists, "its profile is made")
    assert {"uname", "execve"} <= names(path)
    none_is_left()


def test_one_that_removes_itself_and_cannot_write_its_profile(
    containers: Containers, tmp_path: Path
) -> None:
    """Nobody can ask for its end: the journal says it."""
    above = tmp_path / "above"
    above.mkdir()
    one = containers("--rm", *asked("record:", above / "made.json"))
    above.rmdir()
    one("kill")
    said = f"cannot write the profile {above}/made.json: No such file or directory"
    eventually(lambda: said in journal(one.id), "the journal says so")
    none_is_left()


def test_two_with_one_file(
    sysbox: Sysbox, containers: Containers, image: str, tmp_path: Path
) -> None:
    """The second one is refused while the first runs, whatever it calls the file; nothing of it is made."""
    path, other = tmp_path / "made.json", tmp_path / "link/made.json"
    (tmp_path / "link").symlink_to(tmp_path)
    first = containers("--name", "first", *asked("record:", path))
    again = (*asked("record:", other), image, "uname")
    said = f"seccomp=record:{other}: container first is recorded to this file"
    for verb in (("run", "--rm"), ("run", "-d")):
        done = sysbox(*verb, "--name", "second", *again)
        assert (done.returncode, said in done.stderr.splitlines()[0]) == (125, True), done.stderr
        assert "wait until first has ended" in done.stderr
    assert sysbox("ps", "-aq", "--filter", "name=second").stdout == ""
    second = containers(*asked("record:", other), command=("uname",), verb=("create",))
    done = sysbox("start", second.id)
    assert (done.returncode, said in done.stderr) == (1, True), done.stderr
    assert len(recorders()) == 1
    containers(*asked("record:", tmp_path / "link/other.json"))("kill")
    first("kill")
    none_is_left()
    sysbox("start", "-a", second.id, check=True)
    assert "uname" in names(path)
    none_is_left()


def test_what_is_said_before_a_start(sysbox: Sysbox, image: str, tmp_path: Path) -> None:
    path = tmp_path / "made.json"
    flags = asked("record:", path)
    done = sysbox("run", "--dry-run", *flags, image, "true", check=True)
    assert f"seccomp record:{path}" in done.stdout
    limited = popen("run", "--rm", *flags, image, "true", under=("prlimit", "--fsize=65536"))
    _, said = limited.communicate(timeout=60)
    assert (limited.returncode, "raise `ulimit -f`" in said) == (125, True), said
    assert not recorders()
    assert not path.exists()


def test_where_no_profile_can_be_written(sysbox: Sysbox, image: str, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    for file, said in (
        ("nowhere/made.json", "its directory: No such file or directory"),
        ("directory", "not a regular file"),
        ("/proc/made.json", "its directory is in a file system of the kernel"),
    ):
        for verb in (("run",), ("run", "-d"), ("create",)):
            flags = ("--name", "never", *asked("record:", tmp_path / file))
            done = sysbox(*verb, *flags, image, "true")
            assert (done.returncode, said in done.stderr) == (125, True), done.stderr
            assert len(done.stderr.splitlines()) == 1
        assert sysbox("ps", "-aq", "--filter", "name=never").stdout == ""
    done = sysbox("build", "--security-opt", "seccomp=record:/x.json", str(tmp_path))
    assert (done.returncode, "a build is not recorded" in done.stderr) == (1, True)
    assert not recorders()
