"""Paused containers: nothing in them runs, everybody says so, and what ends a container ends these too.

In the guest: the freezer is cgroup.freeze of v2, and systemd knows of it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from containers import V1, Container, Containers, eventually, popen, systemctl
from lane import Sysbox
from test_gc import killed_at

from sysbox.host import probe
from sysbox.linux import cgroup, freezer

# Far beyond what a command of the tests may take: who waits for it instead of thawing fails.
PATIENT = ("--stop-timeout", "500")
COUNTING = ("sh", "-c", "trap 'exit 7' TERM; while :; do echo >>/tmp/n; sleep 0.05; done")


def counted(one: Container, pid: int = 0) -> int:
    """How far a counting container is."""
    return os.stat(f"/proc/{pid or one.pid}/root/tmp/n").st_size


def runs(one: Container) -> None:
    """Fails unless its command makes progress."""
    pid, before = one.pid, counted(one)
    eventually(lambda: counted(one, pid) > before, "it goes on")


def stands_still(one: Container) -> None:
    """Fails if its command makes progress while one of the host's that does the same makes some."""
    command = ["sh", "-c", "while echo; do sleep 0.05; done"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as witness:
        assert witness.stdout
        before = counted(one)
        for _ in range(8):
            witness.stdout.readline()
        assert counted(one) == before
        witness.kill()


@pytest.fixture
def one(containers: Containers) -> Container:
    """A container that counts, and says 7 when it is asked to end."""
    made = containers(*PATIENT, command=COUNTING)
    pid = made.pid
    eventually(lambda: os.path.exists(f"/proc/{pid}/root/tmp/n"), "it counts")
    return made


@pytest.fixture
def paused(one: Container) -> Container:
    one("pause")
    return one


@pytest.mark.guest("of v2, where systemd has a freezer")
def test_it_stands_still_and_goes_on(one: Container) -> None:
    assert one("pause").strip() == one.id
    stands_still(one)
    one("unpause")
    runs(one)


def test_everybody_says_so(sysbox: Sysbox, paused: Container) -> None:
    one = paused
    state = one.inspect("State")
    assert (state["Status"], state["Paused"], state["Running"]) == ("paused", True, True)
    assert one.pid > 0
    line = sysbox("ps", "--format", "{{.ID}} {{.State}} {{.Status}}").stdout.strip()
    assert line.startswith(f"{one.id[:12]} paused Up ")
    assert line.endswith(" (Paused)")
    assert sysbox("ps", "-q", "-f", "status=paused").stdout.strip() == one.id[:12]
    assert sysbox("ps", "-q", "-f", "status=running").stdout == ""
    one("unpause")
    state = one.inspect("State")
    assert (state["Status"], state["Paused"]) == ("running", False)
    assert sysbox("ps", "-q", "-f", "status=paused").stdout == ""


def test_pause_what_cannot_be(sysbox: Sysbox, paused: Container, containers: Containers) -> None:
    one, other = paused, containers()
    created = containers(verb=("create",))
    for verb, target, said in (
        ("pause", one, "already paused"),
        ("unpause", other, "not paused"),
        ("pause", created, "is not running"),
        ("unpause", created, "is not running"),
    ):
        done = sysbox(verb, target.id)
        assert (done.returncode, done.stdout) == (1, "")
        assert said in done.stderr
    # each is tried
    done = sysbox("pause", one.id, "no-such-container", other.id)
    assert (done.returncode, done.stdout.split()) == (1, [other.id])
    assert other.inspect("State.Paused")


def test_what_a_paused_container_refuses(sysbox: Sysbox, paused: Container) -> None:
    for words in (["exec", paused.id, "true"], ["kill", "-s", "USR1", paused.id]):
        done = sysbox(*words)
        assert done.returncode in (1, 125)
        assert "is paused" in done.stderr
        assert "unpause" in done.stderr
    assert "is paused" in sysbox("start", paused.id).stderr
    stands_still(paused)
    # and nothing of it was kept back for later
    paused("unpause")
    runs(paused)


def test_wait_and_logs(sysbox: Sysbox, containers: Containers) -> None:
    one = containers(
        command=("sh", "-c", "trap 'exit 7' TERM; echo before; while :; do sleep 0.1; done")
    )
    eventually(lambda: "before" in one("logs"), "its line is logged")
    one("pause")
    assert one("logs") == "before\n"
    waiting = popen("wait", one.id)
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(0.5)
    one("stop")
    assert waiting.communicate(timeout=60)[0] == "7\n"


ENDS: dict[str, tuple[Callable[[Container], object], tuple[int, ...]]] = {
    "stop": (lambda one: one("stop"), (7,)),
    "stop -t 0": (lambda one: one("stop", "-t", "0"), (7, 137)),  # it may be as fast as we are
    "kill": (lambda one: one("kill"), (137,)),
    "systemctl stop SCOPE": (lambda one: systemctl("stop", one.scope), (7,)),
    "systemctl stop SERVICE": (lambda one: systemctl("stop", f"sysbox-{one.id}.service"), (7,)),
    "kill -9 SUPERVISOR": (lambda one: os.kill(supervisor(one), signal.SIGKILL), (137,)),
}


def supervisor(one: Container) -> int:
    return int(systemctl("show", "-P", "MainPID", f"sysbox-{one.id}.service"))


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(way, marks=pytest.mark.guest("of v2, where systemd has a freezer"))
        if way == "kill -9 SUPERVISOR"
        else way
        for way in ENDS
    ],
)
def test_it_ends_as_any_other(paused: Container, way: str) -> None:
    pid = paused.pid
    end, statuses = ENDS[way]
    end(paused)
    eventually(lambda: paused.inspect("State.Status") == "exited", "its end is recorded")
    assert paused.inspect("State.ExitCode") in statuses
    eventually(lambda: not os.path.exists(f"/proc/{pid}"), "its process is gone")


def test_with_a_restart_policy(containers: Containers) -> None:
    """Its unit is not systemd's transient one, and it is not to come back."""
    one = containers(*PATIENT, "--restart", "always", command=COUNTING)
    eventually(lambda: os.path.exists(f"/proc/{one.pid}/root/tmp/n"), "it counts")
    one("pause")
    one("stop")
    assert (one.inspect("State.Status"), one.inspect("State.ExitCode")) == ("exited", 7)


@pytest.mark.parametrize("verb", ["pause", "unpause"])
@pytest.mark.parametrize("call", ["write", "sendto", "flock"])
def test_killed_meanwhile(sysbox: Sysbox, one: Container, verb: str, call: str) -> None:
    """Whatever came of it, it can be paused and let go on."""
    for number in range(1, 20):
        if verb == "unpause":
            one("pause", check=False)
        if not killed_at(call, number, verb, one.id):
            break
        one("unpause", check=False)
        assert one.inspect("State.Status") == "running"
    one("unpause", check=False)
    runs(one)


def test_rm_and_restart(sysbox: Sysbox, paused: Container) -> None:
    pid = paused.pid
    assert "is running" in sysbox("rm", paused.id).stderr
    paused("restart")
    assert paused.inspect("State.Status") == "running"
    assert paused.pid != pid
    eventually(lambda: os.path.exists(f"/proc/{paused.pid}/root/tmp/n"), "it counts again")
    runs(paused)
    paused("pause")
    paused("rm", "-f")
    assert paused.id[:12] not in sysbox("ps", "-aq").stdout


@contextmanager
def foreground(image: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, object]]]:
    """A container that this process's child supervises, and its state."""
    process = popen("run", "--name", "foreground", "--stop-timeout", "1", image, *COUNTING)
    try:
        eventually(lambda: inspected("foreground"), "it runs")
        state = inspected("foreground")
        eventually(lambda: os.path.exists(f"/proc/{state['Pid']}/root/tmp/n"), "it counts")
        yield process, state
    finally:
        popen("rm", "-f", "foreground").wait(60)
        process.communicate(timeout=60)


def inspected(name: str) -> dict[str, object]:
    done = popen("inspect", "-f", "{{json .State}}", name)
    text = done.communicate(timeout=60)[0]
    state: dict[str, object] = json.loads(text) if done.returncode == 0 else {}
    return state if state.get("Running") else {}


def test_in_the_foreground(sysbox: Sysbox, image: str) -> None:
    with foreground(image) as (process, _):
        sysbox("pause", "foreground", check=True)
        assert inspected("foreground")["Status"] == "paused"
        sysbox("unpause", "foreground", check=True)
        sysbox("pause", "foreground", check=True)
        sysbox("stop", "-t", "300", "foreground", check=True)
        assert process.wait(60) == 7


def test_the_foreground_is_killed(sysbox: Sysbox, image: str) -> None:
    """On v1 a frozen container does not die with its supervisor; gc, and any verb that looks, ends it."""
    with foreground(image) as (process, state):
        sysbox("pause", "foreground", check=True)
        process.kill()
        process.wait(60)
        sysbox("gc", check=True)
        eventually(lambda: not os.path.exists(f"/proc/{state['Pid']}"), "its process is gone")
        done = sysbox("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "foreground")
        assert done.stdout.strip() == "exited 137"


def test_systemd_stops_it_in_the_foreground(sysbox: Sysbox, image: str) -> None:
    with foreground(image) as (process, _):
        container_id = sysbox("inspect", "-f", "{{.Id}}", "foreground").stdout.strip()
        sysbox("pause", "foreground", check=True)
        systemctl("stop", f"docker-{container_id}.scope", check=False)
        sysbox("gc", check=True)
        assert process.wait(60) in (7, 137, 143)


@pytest.mark.v1_only
def test_a_frozen_process_was_killed(sysbox: Sysbox, paused: Container) -> None:
    """It cannot die on v1 before somebody thaws it, and who has killed it may not know."""
    os.kill(paused.pid, signal.SIGKILL)
    assert paused.inspect("State.Status") == "paused"
    assert "killed while it was paused" in sysbox("gc").stdout
    eventually(lambda: paused.inspect("State.Status") == "exited", "its end is recorded")
    assert paused.inspect("State.ExitCode") == 137


def freeze(one: Container) -> None:
    """Somebody else does it."""
    if V1:
        (one.cgroup("freezer") / "freezer.state").write_text("FROZEN")
    else:
        systemctl("freeze", one.scope)


def test_whoever_has_frozen_it(one: Container) -> None:
    freeze(one)
    eventually(lambda: one.inspect("State.Status") == "paused", "it is seen")
    one("unpause")
    runs(one)


@pytest.mark.v2_only
def test_systemd_knows(one: Container) -> None:
    assert systemctl("show", "-P", "FreezerState", one.scope) == "running"
    one("pause")
    assert systemctl("show", "-P", "FreezerState", one.scope) == "frozen"
    systemctl("thaw", one.scope)
    assert one.inspect("State.Status") == "running"
    runs(one)


def test_all_of_its_processes(sysbox: Sysbox, containers: Containers) -> None:
    """Without a pid namespace of its own too, and what `exec` has brought in."""
    one = containers("--pid", "host", command=("sh", "-c", "sleep 1000 & exec sleep 1000"))
    sysbox("exec", "-d", one.id, "sleep", "1000", check=True)
    inside = "freezer" if V1 else "name=systemd"
    everything = one.cgroup("name=systemd") / "cgroup.procs"
    eventually(lambda: len(everything.read_text().split()) == 3, "three processes")
    one("pause")
    assert (one.cgroup(inside) / "cgroup.procs").read_text() == everything.read_text()
    assert freezer.is_frozen(probe(), f"/system.slice/{one.scope}")


SLICE = "sysboxfrozen.slice"


@pytest.mark.guest("of v2, where systemd has a freezer")
def test_a_frozen_slice(sysbox: Sysbox, containers: Containers, image: str) -> None:
    """Nothing hangs in it: it is said, with what thaws it."""
    one = containers("--slice", SLICE)
    where = f"/{SLICE}"
    try:
        freezer.request(probe(), where)
        eventually(lambda: one.inspect("State.Status") == "paused", "it is frozen with its slice")
        refused = sysbox("run", "--rm", "--slice", SLICE, image, "true")
        assert refused.returncode == 125
        assert f"{where} is frozen" in refused.stderr
        assert "thaw" in refused.stderr
        refused = sysbox("unpause", one.id)
        assert refused.returncode == 1
        assert f"{where} is frozen" in refused.stderr
    finally:
        freezer.release(probe(), where)
    eventually(lambda: one.inspect("State.Status") == "running", "it goes on with its slice")


def test_a_shell_that_is_about_to_wait(containers: Containers) -> None:
    """Debian's makes children with vfork(2), and the kernel may pass over who is about to wait for one."""
    one = containers(command=("sh", "-c", "while :; do sleep 0.001; done"), image="host")
    pid, path = one.pid, f"/system.slice/{one.scope}"
    state = one.cgroup("freezer") / "freezer.state" if V1 else None
    for _ in range(60):
        one("pause")
        # FREEZING, where one of them is not yet
        assert state is None or state.read_text(encoding="ascii") == "FROZEN\n"
        assert freezer.is_frozen(probe(), path)
        one("unpause")
        assert not freezer.is_frozen(probe(), path)
    assert one.pid == pid


@pytest.mark.v1_only
def test_what_an_earlier_run_left_frozen(sysbox: Sysbox, containers: Containers) -> None:
    one = containers(verb=("create",))
    left = Path(cgroup.directory(probe(), "freezer", f"/system.slice/{one.scope}"))
    left.mkdir(parents=True)
    (left / "freezer.state").write_text("FROZEN")
    one("start")
    assert one.inspect("State.Status") == "running"
    assert sysbox("exec", one.id, "true").returncode == 0
