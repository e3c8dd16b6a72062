"""A container whose systemd reboots when it is stopped, or just then: the stop holds.

Its payload is a shell that answers the stop signal of systemd mode by reboot(2).
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from containers import Container, Containers, active_state, eventually, popen, systemctl
from lane import Sysbox

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


@pytest.mark.parametrize("how", ["stop", "scope"])
def test_in_the_foreground(sysbox: Sysbox, image: str, how: str) -> None:
    words = ("run", "--rm", "--systemd=always", "--name", "foreground", image, *REBOOTS)
    with popen(*words, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        found = sysbox("inspect", "-f", "{{.Id}}", "foreground", check=True).stdout.strip()
        stop(Container(sysbox, found), how)
        assert (process.wait(60), process.stdout.read()) == (0, "")
    assert sysbox("inspect", "foreground").returncode == 1
