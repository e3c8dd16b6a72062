"""A container whose systemd reboots when it is stopped or removed, or just then: the stop holds.

Its payload is a shell that answers the stop signal of systemd mode by reboot(2), or SIGUSR1 if so asked.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from containers import Container, Containers, active_state, eventually, popen, systemctl
from lane import SLOWNESS, Sysbox, run_sysbox

from sysbox.base.paths import RUN_CONTAINERS
from sysbox.container import store

REBOOTS = ("sh", "-c", "trap 'reboot -f' 37; echo ready; while :; do sleep 0.1; done")


def ready(containers: Containers, *flags: str) -> Container:
    one = containers("--systemd=always", *flags, command=REBOOTS)
    eventually(lambda: "ready" in one("logs"), "it has set its trap")
    return one


def stop(one: Container, how: str) -> None:
    if how == "stop":
        one("stop")
    else:
        systemctl("stop", one.scope if how == "scope" else f"sysbox-{one.id}.service")


def is_over(one: Container) -> bool:
    """Whether no run is left, and the end asks for no other one: that comes last."""
    final = store.final(one.id)
    over = final is not None and not final.rebooted
    return over and not Path(RUN_CONTAINERS, one.id).exists()


@pytest.mark.parametrize("policy", [(), ("--restart", "always")], ids=["no policy", "always"])
@pytest.mark.parametrize("how", ["stop", "scope", "service"])
def test_it_stays_stopped(
    sysbox: Sysbox, containers: Containers, policy: tuple[str, ...], how: str
) -> None:
    one = ready(containers, *policy)
    stop(one, how)
    eventually(lambda: is_over(one), "its end is recorded")
    assert active_state(f"sysbox-start-{one.id}.service") == "inactive"
    assert one.inspect("State.ExitCode") == 0
    assert sysbox("gc", check=True).stdout == ""
    assert (one.inspect("State.Status"), one("logs").count("ready")) == ("exited", 1)
    one("start")
    eventually(lambda: one("logs").count("ready") == 2, "a start by its user")


@pytest.mark.parametrize("how", ["stop", "scope", "service"])
def test_it_goes_with_rm(sysbox: Sysbox, containers: Containers, how: str) -> None:
    one = ready(containers, "--rm")
    stop(one, how)
    eventually(lambda: sysbox("inspect", one.id).returncode == 1, "it is removed")
    assert sysbox("gc", check=True).stdout == ""


@pytest.mark.parametrize("how", ["stop", "scope", "TERM"])
def test_in_the_foreground(sysbox: Sysbox, image: str, how: str) -> None:
    words = ("run", "--rm", "--systemd=always", "--name", "foreground", image, *REBOOTS)
    with popen(*words, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        found = sysbox("inspect", "-f", "{{.Id}}", "foreground", check=True).stdout.strip()
        if how == "TERM":
            process.terminate()  # as a service of one's own gets it
        else:
            stop(Container(sysbox, found), how)
        try:
            assert (process.wait(60), process.stdout.read()) == (0, "")
        finally:
            process.kill()  # one that goes on must not hold up the others
    assert sysbox("inspect", "foreground").returncode == 1


STAYS = ("sh", "-c", "trap : 37; trap 'reboot -f' USR1; echo ready; while :; do sleep 0.1; done")


def rebooting(containers: Containers, *flags: str) -> tuple[Container, int]:
    """One that reboots when it is sent SIGUSR1, and its pid."""
    one = containers("--systemd=always", *flags, command=STAYS)
    eventually(lambda: "ready" in one("logs"), "it has set its traps")
    return one, one.pid


@pytest.mark.parametrize("verb", [("rm", "-f"), ("stop", "-t", "0")], ids=["rm", "stop"])
def test_just_after_it_has_rebooted(containers: Containers, verb: tuple[str, ...]) -> None:
    """It is about to start again, or has just done so: the command ends that too, and waits for no end."""
    for at in range(10):
        one, pid = rebooting(containers)
        os.kill(pid, signal.SIGUSR1)
        eventually(lambda pid=pid: not Path(f"/proc/{pid}").exists(), "it has ended")  # type: ignore[misc]
        time.sleep(at * 0.012)
        one(*verb)
        if verb[0] == "stop":
            eventually(lambda one=one: is_over(one), "it stays stopped")  # type: ignore[misc]
            assert one.inspect("State.Status") == "exited"


def test_a_start_meanwhile(containers: Containers) -> None:
    """By its policy it starts by itself: that is not waited out."""
    one, pid = rebooting(containers, "--restart", "always")
    os.kill(pid, signal.SIGUSR1)
    eventually(lambda: not Path(f"/proc/{pid}").exists(), "it has ended")
    run_sysbox("start", one.id, check=True, timeout=20 * SLOWNESS)  # less than systemd is given
    one.await_state("running")


def test_a_stop_that_was_given_up(containers: Containers) -> None:
    """What happens later is none of its business."""
    one, pid = rebooting(containers)
    mark = Path(RUN_CONTAINERS, one.id, "stopped")
    with popen("stop", "-t", "100", one.id) as stopping:
        eventually(mark.exists, "it has begun")
        time.sleep(0.2)
        stopping.send_signal(signal.SIGINT)
        stopping.wait(60)
    assert not mark.exists()
    os.kill(pid, signal.SIGUSR1)
    eventually(lambda: one("logs").count("ready") == 2, "it has come back")
