"""kill -9 at each step of a start and of a removal: the next commands, or `sysbox gc`, put it right.

strace(1) kills the command as it enters its Nth call of a kind, for every N there is.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from containers import Containers, eventually, popen, systemctl
from lane import SYSBOX, Sysbox

from sysbox.base import flock, paths
from sysbox.container import store
from sysbox.container.locks import Lock
from sysbox.lifecycle import gc
from sysbox.run import teardown

# Every call that leaves a trace outside of the process, or that another process waits for.
CALLS = (
    "clone3", "connect", "flock", "mkdir", "poll", "recvfrom", "recvmsg", "rename", "rmdir",
    "sendmsg", "sendto", "symlink", "unlink", "unlinkat", "wait4", "write",
)  # fmt: skip
MOST = 40  # times that one call is killed at
DROP_IN = Path("/run/systemd/system/sysbox-.service.d")
NAME = "victim"


def injection(call: str, number: int) -> list[str]:
    return [
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        f"trace={call}",
        "-e",
        f"inject={call}:signal=KILL:when={number}",
    ]


def killed_at(call: str, number: int, *words: str) -> bool:
    """Run `sysbox WORDS...`, killed as it enters its `number`th `call`; False if it did not come to that."""
    done = subprocess.run(
        ["strace", *injection(call, number), SYSBOX, *words],
        capture_output=True, stdin=subprocess.DEVNULL, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode == -signal.SIGKILL


def put_right(sysbox: Sysbox) -> None:
    """After gc what is left is whole: it can be removed, or it is not there at all."""
    done = sysbox("gc")
    assert done.returncode == 0, done.stderr
    if sysbox("rm", "-v", NAME).returncode:
        assert sysbox("ps", "-aq").stdout == ""


def nothing_more(sysbox: Sysbox) -> None:
    """gc has nothing more to do, and systemd nothing more to show."""
    done = sysbox("gc")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    listing = ("list-units", "--all", "--plain", "--no-legend", "docker-*", "sysbox-*.service")

    def left() -> list[str]:
        # the one that runs once a boot belongs to no container
        return [line for line in systemctl(*listing).splitlines() if "sysbox-boot." not in line]

    eventually(lambda: not left(), "no unit is left")


@pytest.mark.parametrize("call", CALLS)
def test_run_is_killed(sysbox: Sysbox, image: str, call: str) -> None:
    flags = ("--rm", "--name", NAME, "--cpuset-cpus", "0", "-p", "8099:80", "-v", "/data")
    for number in numbers(call):
        if not killed_at(call, number, "run", *flags, image, "true"):
            break
        put_right(sysbox)
    nothing_more(sysbox)


def numbers(call: str) -> range:
    """Which of a command's calls of a kind it is killed at."""
    # files that are read are many, and the first hundred are python's own
    return {"openat": range(100, 200, 5), "unlinkat": range(1, MOST, 4)}.get(call, range(1, MOST))


@pytest.mark.parametrize("call", ["mkdir", "symlink", "rename", "write", "flock"])
def test_create_is_killed(sysbox: Sysbox, image: str, call: str) -> None:
    for number in numbers(call):
        killed = killed_at(call, number, "create", "--name", NAME, "-v", "/data", image, "true")
        put_right(sysbox)
        if not killed:
            break
    nothing_more(sysbox)


@pytest.mark.parametrize("call", ["unlink", "unlinkat", "flock", "rmdir", "openat"])
def test_rm_is_killed(sysbox: Sysbox, image: str, call: str) -> None:
    for number in numbers(call):
        sysbox("create", "--name", NAME, "-v", "/data", image, "true", check=True)
        killed = killed_at(call, number, "rm", "-v", NAME)
        put_right(sysbox)
        if not killed:
            break
    nothing_more(sysbox)


def test_rm_that_keeps_the_volumes_is_killed(sysbox: Sysbox, image: str) -> None:
    """Without -v the anonymous volumes stay, whoever finishes the removal."""
    for number in numbers("unlinkat"):
        sysbox("create", "--name", NAME, "-v", "/data", image, "true", check=True)
        volume = sysbox(
            "inspect", "-f", "{{(index .Mounts 0).Name}}", NAME, check=True
        ).stdout.strip()
        killed = killed_at("unlinkat", number, "rm", NAME)
        sysbox("gc", check=True)
        sysbox("rm", NAME)
        directory = Path(paths.VOLUMES) / volume
        assert (directory / "_data").is_dir()
        shutil.rmtree(directory)
        if not killed:
            break
    nothing_more(sysbox)


@pytest.fixture
def supervisor() -> Iterator[Path]:
    """A file with the words for strace(1), under which every supervising service starts."""
    words = Path("/run/strace-words")
    DROP_IN.mkdir(parents=True)
    command = f"/usr/bin/strace -D $WORDS {SYSBOX} _supervise %j"
    (DROP_IN / "strace.conf").write_text(
        f"[Service]\nEnvironmentFile={words}\nExecStart=\nExecStart={command}\n", encoding="ascii"
    )
    systemctl("daemon-reload")
    yield words
    (DROP_IN / "strace.conf").unlink()
    DROP_IN.rmdir()
    words.unlink(missing_ok=True)
    systemctl("daemon-reload")


@pytest.mark.parametrize("call", CALLS)
def test_the_supervisor_is_killed_before_it_watches(
    sysbox: Sysbox, image: str, supervisor: Path, call: str
) -> None:
    """`run -d` reports it, and leaves nothing."""
    for number in numbers(call):
        supervisor.write_text(f"WORDS={' '.join(injection(call, number))}\n", encoding="ascii")
        done = sysbox("run", "-d", "--name", NAME, "-p", "8099:80", image, "sleep", "1000")
        if not done.returncode:
            break
        assert done.returncode == 125
        assert len(done.stderr.splitlines()) <= 2
        assert sysbox("ps", "-aq").stdout == ""
    sysbox("gc")
    sysbox("rm", "-f", NAME)
    nothing_more(sysbox)


# later


def test_the_monitor_is_killed(containers: Containers, sysbox: Sysbox) -> None:
    """The container goes with its monitor, and its end is recorded without anybody's help."""
    one = containers("-p", "8099:80")
    os.kill(int(systemctl("show", "-P", "MainPID", f"sysbox-{one.id}.service")), signal.SIGKILL)
    one.await_state("exited")
    assert one.inspect("State.ExitCode") == 137
    assert sysbox("gc").stdout == ""


def test_the_service_is_killed(containers: Containers, sysbox: Sysbox) -> None:
    one = containers()
    systemctl("kill", "-s", "KILL", f"sysbox-{one.id}.service")
    one.await_state("exited")
    assert sysbox("gc").stdout == ""
    one("start")
    assert one.inspect("State.Running") is True


def test_a_removal_is_killed_before_systemd_forgets_the_service(
    containers: Containers, sysbox: Sysbox
) -> None:
    """Of one that was wanted at boot when systemd last read its units, which keeps it loaded."""
    one = containers("--restart", "always")
    unit = f"sysbox-{one.id}.service"
    systemctl("daemon-reload")
    one("stop")
    # all that `rm` does but its last step
    with Lock(one.id):
        teardown.discard(store.load(one.id))
    listing = ("list-units", "--all", "--plain", "--no-legend", unit)
    assert "inactive" in systemctl(*listing)
    assert f"had systemd forget {unit}\n" in sysbox("gc", check=True).stdout
    assert systemctl(*listing) == ""
    nothing_more(sysbox)


def test_monitor_and_cleaning_are_killed(containers: Containers, sysbox: Sysbox) -> None:
    """With nobody left who could record its end, the next command does."""
    DROP_IN.mkdir(parents=True)
    (DROP_IN / "none.conf").write_text("[Service]\nExecStopPost=\n", encoding="ascii")
    systemctl("daemon-reload")
    try:
        for repair in ("gc", "ps", "inspect", "start", "rm"):
            one = containers("-p", "8099:80")
            directory = one.cgroup("pids")
            systemctl("kill", "-s", "KILL", f"sysbox-{one.id}.service")
            eventually(lambda: not directory.exists(), "the container is gone")  # noqa: B023
            if repair == "gc":
                assert "recorded the end" in sysbox("gc").stdout
            elif repair == "ps":
                assert "Exited (137)" in sysbox("ps", "-a", "--filter", f"id={one.id}").stdout
            elif repair == "start":
                one("start")
                assert one.inspect("State.Running") is True
            if repair != "start":
                assert one.inspect("State.Status") == "exited"
                assert one.inspect("State.ExitCode") == 137
            one("rm", "-f")
            assert sysbox("gc").stdout == ""
    finally:
        (DROP_IN / "none.conf").unlink()
        DROP_IN.rmdir()
        systemctl("daemon-reload")


@pytest.mark.parametrize("flags", [("--rm",), ()])
def test_run_is_killed_while_its_container_runs(
    sysbox: Sysbox, image: str, flags: tuple[str, ...]
) -> None:
    """The container does not outlive the command that it ran in the foreground of."""
    process = popen(
        "run", *flags, "--name", NAME, "-p", "8099:80", image, "sh", "-c", "echo up; sleep 1000"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    pid = int(sysbox("inspect", "-f", "{{.State.Pid}}", NAME, check=True).stdout)
    process.kill()
    process.wait(20)
    eventually(lambda: not Path(f"/proc/{pid}").exists(), "the container is gone")
    assert NAME in sysbox("gc").stdout
    put_right(sysbox)
    nothing_more(sysbox)


def test_an_attempt_to_map_ids_was_killed(sysbox: Sysbox) -> None:
    """It is not repeated where another one has shown what the host can do."""
    left = Path(paths.CONTAINERS, ".mappable")
    (left / "merged").mkdir(parents=True)
    with flock.Lock(f"{paths.RUN}/idmap/lock"):
        assert (sysbox("gc").stdout, left.exists()) == ("", True), "one that goes on"
    assert sysbox("gc").stdout == "removed what was left of an attempt to map ids\n"
    assert not left.exists()


def test_gc_leaves_alone_what_is_well(containers: Containers, sysbox: Sysbox, image: str) -> None:
    one = containers("-p", "8099:80")
    two = containers(verb=("create",))
    done = sysbox("gc")
    assert (done.returncode, done.stdout) == (0, "")
    assert one.inspect("State.Running") is True
    assert two.inspect("State.Status") == "created"


def test_gc_leaves_alone_what_begins_and_ends(sysbox: Sysbox, image: str) -> None:
    """Whatever it meets at whatever moment is somebody's: it says nothing, and nobody fails."""

    def foreground() -> None:
        sysbox("run", "--rm", "-p", "80", image, "true", check=True)

    def detached() -> None:
        sysbox(
            "rm",
            "-f",
            sysbox("run", "-d", image, "sleep", "1000", check=True).stdout.strip(),
            check=True,
        )

    def by_itself() -> None:
        sysbox("run", "-d", "--rm", image, "true", check=True)

    def never() -> None:
        made = sysbox(
            "create", "--name", NAME, "-v", "/data", image, "true", check=True
        ).stdout.strip()
        sysbox("rename", made, f"{NAME}-2", check=True)
        sysbox("rm", "-v", made, check=True)

    def churn(turn: Callable[[], None]) -> None:
        for _ in range(15):
            turn()

    with ThreadPoolExecutor() as pool:
        others = [pool.submit(churn, turn) for turn in (foreground, detached, by_itself, never)]
        while not all(each.done() for each in others):
            done = sysbox("gc")
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        for each in others:
            each.result()
    eventually(lambda: sysbox("ps", "-aq").stdout == "", "the last has removed itself")


def test_what_was_removed_meanwhile_gets_no_lease(sysbox: Sysbox, containers: Containers) -> None:
    """Its lease was given back with it, and written again by a gc that had read its record before."""
    gone, stays = containers(), containers()
    records = [one for one in store.all_records() if one.id in (gone.id, stays.id)]
    gone("rm", "-f")
    assert [one.id for one in gc._locked(records)] == [stays.id]
    with Lock(stays.id):
        assert list(gc._locked(records)) == []
