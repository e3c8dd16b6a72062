"""A health check is the container's own, and runs for sysbox: what it writes and starts is bounded."""

from __future__ import annotations

from pathlib import Path

import pytest
from containers import Container, Containers, commands, eventually, systemctl
from lane import Sysbox

from sysbox.container import store
from sysbox.host import probe
from sysbox.linux import cgroup
from sysbox.units import serviceplan
from sysbox.units.cgroup.check import CheckGroup

ONCE = ("--health-interval", "100ms", "--health-retries", "1")
MEGABYTE = 1 << 20


def service(one: Container) -> str:
    return f"sysbox-{one.id}.service"


def peak(one: Container) -> int:
    """The most memory that its supervising service has had, in bytes."""
    facts = probe()
    where = Path(cgroup.directory(facts, "memory", f"/sysbox.slice/{service(one)}"))
    file = "memory.max_usage_in_bytes" if facts.cgroup_mode == "v1" else "memory.peak"
    return int((where / file).read_text(encoding="ascii"))


def first_result(one: Container) -> dict[str, object]:
    eventually(lambda: one.inspect("State.Health.Log"), "a check is over")
    return dict(one.inspect("State.Health.Log")[0])


def test_output_without_end_takes_no_memory_of_the_hosts(containers: Containers) -> None:
    one = containers(
        "-m", "32m", *ONCE, "--health-timeout", "2s", "--health-cmd", "cat /dev/zero | tr '\\0' x"
    )
    result = first_result(one)
    assert result["ExitCode"] == -1
    assert str(result["Output"]).startswith("x" * 4096 + "Health check exceeded")
    assert peak(one) < 128 * MEGABYTE
    one("rm", "-f")


def test_output_that_was_written_is_kept_to_its_beginning(containers: Containers) -> None:
    """More than the pipe holds, by a command that is over before anybody reads it all."""
    script = "head -c 300000 /dev/zero | tr '\\0' y; echo end >&2; exit 3"
    one = containers(*ONCE, "--health-cmd", script)
    assert first_result(one)["ExitCode"] == 3
    assert first_result(one)["Output"] == "y" * 4096
    one("rm", "-f")


@pytest.mark.parametrize("policy", ["no", "on-failure"])
def test_what_looks_after_it_is_bounded(containers: Containers, policy: str) -> None:
    one = containers("--restart", policy)
    shown = systemctl("show", "--value", "-p", "MemoryMax,TasksMax", service(one)).split()
    assert sorted(shown) == sorted((str(serviceplan.MEMORY_MAX), str(serviceplan.TASKS_MAX)))
    assert systemctl("show", "--value", "-p", "CPUWeight", "sysbox.slice") == "50"
    # and there is room: it has run sysbox itself by now
    assert peak(one) < serviceplan.MEMORY_MAX // 4
    one("rm", "-f")


@pytest.mark.parametrize(
    "script",
    [
        "sleep 7141; true",  # a child of the shell
        # in a session of its own, and nobody's child
        "(setsid sleep 7141 &) ; sleep 7141",
        # and always one more, but not more than in 330 ms: on a busy machine it is killed later
        "for n in $(seq 33); do (setsid sleep 7141 &); sleep 0.01; done; sleep 7141",
    ],
)
def test_a_check_that_takes_too_long_leaves_nothing(containers: Containers, script: str) -> None:
    one = containers(
        *("--health-interval", "300ms", "--health-retries", "1", "--health-timeout", "300ms"),
        *("--health-cmd", script),
    )
    # the checks come one after the other, and one that goes on has at most some thirty
    eventually(lambda: len(one.inspect("State.Health.Log")) >= 3, "three checks")
    assert len([line for line in commands() if "sleep 7141" in line]) < 40
    eventually(
        lambda: not [line for line in commands() if "sleep 7141" in line],
        "there are none between two",
    )
    one("stop", "-t", "0")
    assert not [line for line in commands() if "sleep 7141" in line]


def test_what_a_check_has_left_running_stays(containers: Containers) -> None:
    """One that is over in time may have started something: that is the container's from then on."""
    one = containers(*ONCE, "--health-cmd", "test -e /on || (touch /on; setsid sleep 7142 &)")
    eventually(lambda: len(one.inspect("State.Health.Log")) >= 3, "three checks")
    # not the shell of a check that is being made, which has these words too
    eventually(lambda: commands().count("sleep 7142") == 1, "it is executed, and once")
    group = CheckGroup(one.pid, probe())  # which finds nothing of theirs to kill
    # not the shell of a check that is being made, which has these words too
    assert commands().count("sleep 7142") == 1
    group.dissolve()
    # the next check makes its own, of the same name
    eventually(lambda: not Path(group.directory).exists(), "it is removed")
    one("rm", "-f")


def test_an_image_cannot_ask_for_checks_all_the_time(
    sysbox: Sysbox, containers: Containers
) -> None:
    base = containers()
    change = "HEALTHCHECK --interval=1ms --start-interval=1ms --start-period=1h CMD true"
    sysbox("commit", "-c", change, base.id, "busy:test", check=True)
    try:
        of_image = containers(image="busy:test")
        health = store.load(of_image.id).spec.health
        assert (health.interval, health.start_interval) == (1_000_000, 1_000_000)
        # its user may
        asked = containers("--health-interval", "20ms", image="busy:test")
        assert store.load(asked.id).spec.health.interval == 20_000
        for one in (of_image, asked, base):
            one("rm", "-f")
    finally:
        sysbox("rmi", "-f", "busy:test", check=True)
