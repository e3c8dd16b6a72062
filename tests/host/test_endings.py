"""The truth after the fact: how a run ended, as inspect tells it.

In the guest: systemd sees the end of a scope by cgroup.events, and lack of memory by memory.events.
"""

from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path

import pytest
from containers import Container, Containers, eventually, popen, systemctl
from lane import SLOWNESS, Sysbox

from sysbox.base import paths
from sysbox.linux import kmsg

STUBBORN = ("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done")


def end(one: Container, state: str = "exited") -> dict[str, object]:
    one.await_state(state)
    found = one.inspect("Sysbox.End")
    assert isinstance(found, dict)
    return found


def test_exited(containers: Containers) -> None:
    told = end(containers(command=("sh", "-c", "exit 3")))
    assert (told["How"], told["Signal"]) == ("exited", 0)
    assert str(told["StartedAt"]) < str(told["FinishedAt"])


def test_signalled(containers: Containers) -> None:
    one = containers()
    os.kill(one.pid, signal.SIGUSR1)  # of no effect on a first process without a handler
    os.kill(one.pid, signal.SIGKILL)
    told = end(one)
    assert (told["How"], told["Signal"]) == ("signalled", 9)


@pytest.mark.parametrize(
    "by",
    [
        "command",
        "systemd",
        "systemd in the foreground",
    ],
)
def test_too_slow(sysbox: Sysbox, containers: Containers, image: str, by: str) -> None:
    if by == "systemd in the foreground":
        attended = popen("run", "--name", "slow", "--stop-timeout", "1", image, *STUBBORN)
        assert attended.stdout
        assert attended.stdout.readline() == "ready\n"
        one = Container(
            sysbox, sysbox("inspect", "-f", "{{.Id}}", "slow", check=True).stdout.strip()
        )
        systemctl("stop", one.scope)
        attended.communicate(timeout=30 * SLOWNESS)
        assert end(one)["Signal"] == 9
        one("rm")
        return
    one = containers("--stop-timeout", "1", command=STUBBORN)
    eventually(lambda: "ready" in one("logs"), "its trap is set")
    if by == "command":
        one("stop", "-t", "0")
    else:
        systemctl("stop", one.scope)
    told = end(one)
    assert (told["How"], told["Signal"]) == ("timeout", 9)


@pytest.mark.parametrize("reexecuted", [False, True])
def test_systemd_stops_a_foreground_run(sysbox: Sysbox, image: str, reexecuted: bool) -> None:
    """Its stop signal, to its first process alone, whoever asks for the stop."""
    script = """(trap 'echo child' TERM; while :; do sleep 0.05; done) &
    trap 'echo mine; exit 7' TERM; echo ready; while :; do sleep 0.05; done"""
    attended = popen("run", "--name", "front", image, "sh", "-c", script)
    try:
        assert attended.stdout
        assert attended.stdout.readline() == "ready\n"
        scope = sysbox("inspect", "-f", "{{.Sysbox.Scope}}", "front", check=True).stdout.strip()
        if reexecuted:
            systemctl("daemon-reexec")
        systemctl("stop", scope)
        out, _ = attended.communicate(timeout=30 * SLOWNESS)
        assert (attended.returncode, out) == (7, "mine\n")
    finally:
        sysbox("rm", "-f", "front")


@pytest.mark.guest("memory.events is of v2")
def test_out_of_memory(containers: Containers) -> None:
    """Which process it was is in the kernel's log alone."""
    one = containers(
        "-m", "16m", "--memory-swap", "16m",
        command=("sh", "-c", "exec dd if=/dev/zero of=/dev/null bs=64M count=1"),
    )  # fmt: skip
    told = end(one)
    assert one.inspect("State.OOMKilled")
    assert told["How"] == "oom"
    assert told["Victims"] == ["dd"]


def test_it_could_not_start(sysbox: Sysbox, containers: Containers) -> None:
    one = containers(verb=("create",), command=("nosuch",))
    assert sysbox("start", one.id).returncode != 0
    told = end(one, "created")
    assert (told["How"], told["Phase"]) == ("failed", "exec")
    assert "nosuch" in str(told["Error"])


def test_nobody_saw_it(containers: Containers) -> None:
    one = containers()
    os.kill(int(systemctl("show", "-P", "MainPID", f"sysbox-{one.id}.service")), signal.SIGKILL)
    told = end(one)
    assert told["How"] == "lost"
    assert "nobody saw" in str(told["Error"])


def test_a_removal_is_killed(containers: Containers) -> None:
    """The service waits while a command removes the container, and records the end if that command dies."""
    one = containers()
    service = f"sysbox-{one.id}.service"
    with (Path(paths.RUN_CONTAINERS) / one.id / "removal").open("w") as removal:
        fcntl.flock(removal, fcntl.LOCK_EX)
        os.kill(one.pid, signal.SIGKILL)
        eventually(
            lambda: systemctl("show", "-P", "SubState", service) == "stop-post", "the monitor ended"
        )
        waiting = Path("/proc", systemctl("show", "-P", "ControlPID", service), "comm")
        # systemd's own child until it executes the command
        eventually(lambda: waiting.read_text() == "sysbox\n", "it waits")
        assert not (Path(paths.CONTAINERS) / one.id / "exit.json").exists()
    told = end(one)
    assert (told["How"], told["Signal"]) == ("signalled", 9)


def test_what_the_kernel_says() -> None:
    """A name may hold a comma; a cgroup is not the one that begins alike."""
    line = (
        "<6>[   12.000500] oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=x,mems_allowed=0,"
        "oom_memcg=/up/a.scope,task_memcg=/up/a.scope/inner,task=odd,pid=1,pid=77,uid=0"
    )
    assert kmsg.victim(line, "a.scope", 12_000_400) == "odd,pid=1"
    assert kmsg.victim(line, "a.scope", 12_000_600) == ""
    assert kmsg.victim(line, "a.sco", 0) == ""
    assert kmsg.victim("<6>[   12.000500] usb 1-1: new", "a.scope", 0) == ""


@pytest.mark.parametrize("how", ["detached", "attached"])
def test_a_start_that_fails_keeps_the_last_run(
    sysbox: Sysbox, containers: Containers, tmp_path: Path, how: str
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    one = containers("--mount", f"type=bind,src={source},dst=/s", command=("sh", "-c", "exit 5"))
    one.await_state("exited")
    before = one.inspect("State")
    source.rmdir()
    refused = sysbox("start", *(("-a",) if how == "attached" else ()), one.id)
    assert refused.returncode != 0
    after = one.inspect("State")
    assert str(source) in after["Error"]
    assert after | {"Error": ""} == before
    assert (one.inspect("Sysbox.End.How"), one.inspect("Sysbox.End.Phase")) != ("failed", "")
    # the next run is one like any other
    source.mkdir()
    one("start")
    one.await_state("exited")
    assert one.inspect("State.Error") == ""


def test_created_and_its_command_is_not_there(sysbox: Sysbox, containers: Containers) -> None:
    """`run` removes what it could not start; `create` is another command, and what that made stays."""
    one = containers(command=("nosuch",), verb=("create",))
    assert sysbox("start", one.id).returncode != 0
    assert (one.inspect("State.Status"), one.inspect("State.ExitCode")) == ("created", 127)
    assert "nosuch" in one.inspect("State.Error")
    assert sysbox("run", "-d", "--name", "gone", "busybox:test", "nosuch").returncode == 127
    assert sysbox("inspect", "gone").returncode == 1
