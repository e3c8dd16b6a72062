"""Lack of memory in a container: a kill is noticed always, told at once, and the rest goes or stays.

In the guest: a kill is told by memory.events, and systemd acts on it by itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from containers import V1, Container, Containers, eventually, popen
from lane import Sysbox

SMALL = ("-m", "20m", "--memory-swap", "20m")
HUNGRY = "dd if=/dev/zero of=/dev/null bs=64M count=1 2>/dev/null"
WAYS = ["foreground", pytest.param("detached", marks=pytest.mark.guest("memory.events is of v2"))]
TIMES = 4 if V1 else 1  # it was four of ten; an emulated guest is late each time


def told(sysbox: Sysbox, container: str) -> int:
    """How many `oom` events there are of it."""
    words = ("--since", "0", "--until", "0s", "--format", "json", "-f", f"container={container}")
    events = [json.loads(line) for line in sysbox("events", *words, check=True).stdout.splitlines()]
    return sum(event["Action"] == "oom" for event in events)


def killed(one: Container) -> int:
    """How many processes of it the kernel has killed: rarely one more than the greedy one."""
    text = one.limit("memory", "memory.oom_control" if V1 else "memory.events")
    return int(dict(line.split() for line in text.splitlines())["oom_kill"])


def told_once(sysbox: Sysbox, one: Container) -> Callable[[], bool]:
    return lambda: told(sysbox, one.id) == 1


@pytest.mark.guest("of v2, where systemd removes the cgroup first")
@pytest.mark.parametrize("way", ["foreground", "detached"])
def test_noticed_always(sysbox: Sysbox, containers: Containers, image: str, way: str) -> None:
    """A child is killed, and the first process ends a moment later by itself."""
    script = ("sh", "-c", f"{HUNGRY}; exit 7")
    flags = (*SMALL, "--oom-policy", "continue", "--network", "none")
    for number in range(TIMES):
        if way == "detached":
            one = containers(*flags, command=script)
            one.await_state("exited")
        else:
            name = f"short-of-memory-{number}"
            assert sysbox("run", "--name", name, *flags, image, *script).returncode == 7
            one = containers.known_ended(name)
        assert (one.inspect("State.OOMKilled"), one.inspect("State.ExitCode")) == (True, 7)
        eventually(told_once(sysbox, one), "the event")


@pytest.mark.parametrize("way", WAYS)
def test_told_at_once(sysbox: Sysbox, containers: Containers, image: str, way: str) -> None:
    """While it goes on, and of what exec has started too; at its end nothing is told again."""
    flags = (*SMALL, "--oom-policy", "continue", "--name", f"goes-on-{way}")
    script = f"trap 'exit 0' TERM; {HUNGRY}; while :; do sleep 0.1; done"
    if way == "detached":
        containers(*flags, command=("sh", "-c", script))
        _goes_on(sysbox, containers.known(f"goes-on-{way}"))
        return
    with popen("run", *flags, image, "sh", "-c", script) as command:
        try:
            _goes_on(sysbox, containers.known(f"goes-on-{way}"))
        finally:
            command.kill()


def _goes_on(sysbox: Sysbox, one: Container) -> None:
    eventually(lambda: told(sysbox, one.id) == 1, "the event")
    assert (one.inspect("State.Status"), one.inspect("State.OOMKilled")) == ("running", True)
    assert sysbox("exec", one.id, "sh", "-c", HUNGRY).returncode == 137
    kills = killed(one)
    assert kills > 1
    eventually(lambda: told(sysbox, one.id) == kills, f"{kills} events")
    one("stop")
    one.await_state("exited")
    assert (one.inspect("State.OOMKilled"), told(sysbox, one.id)) == (True, kills)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("policy", "status"), [("kill", 137), ("stop", 5)])
def test_the_rest(
    sysbox: Sysbox, containers: Containers, image: str, way: str, policy: str, status: int
) -> None:
    """--oom-policy holds on v1 as well, where systemd hears nothing of it."""
    script = f"trap 'exit 5' TERM; ({HUNGRY}); echo survived; while :; do sleep 0.1; done"
    flags = (*SMALL, "--oom-policy", policy)
    if way == "detached":
        one = containers(*flags, command=("sh", "-c", script))
        one.await_state("exited")
    else:
        name = f"all-of-it-{policy}"
        assert sysbox("run", "--name", name, *flags, image, "sh", "-c", script).returncode == status
        one = containers.known_ended(name)
    assert (one.inspect("State.OOMKilled"), one.inspect("State.ExitCode")) == (True, status)
