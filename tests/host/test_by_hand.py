"""What an administrator types at systemd, who has not read how sysbox uses it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from containers import Container, Containers, eventually, systemctl
from lane import Sysbox

POLITE = ("sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.02; done")


def service(one: Container) -> str:
    return f"sysbox-{one.id}.service"


def ready(one: Container) -> Container:
    eventually(lambda: "ready" in one("logs"), "the payload is ready")
    return one


def start(unit: str, *, after: str) -> None:
    """A service of somebody else's."""
    words = [
        "systemd-run",
        "--quiet",
        f"--unit={unit}",
        f"--property=After={after}",
        "sleep",
        "1000",
    ]
    subprocess.run(words, check=True)


@pytest.fixture
def other() -> Iterator[str]:
    """The name of a unit that a test may start."""
    yield "sysbox-test-other.service"
    systemctl("stop", "sysbox-test-other.service", check=False)


def test_its_service_is_restarted(containers: Containers) -> None:
    one = ready(containers(command=POLITE))
    for _ in range(2):
        pid = one.pid
        systemctl("restart", service(one))
        assert one.inspect("State.Status") == "running"
        assert one.pid != pid
    # the last run was stopped gracefully, and so is this one, by its scope too
    eventually(lambda: one("logs").count("ready") == 3, "the payload is ready")
    systemctl("stop", one.scope)
    one.await_state("exited")
    assert one.inspect("State.ExitCode") == 7
    eventually(lambda: not systemctl("list-units", "--all", "-q", f"*{one.id}*"), "all is gone")
    one("start")
    assert one.inspect("State.Status") == "running"


def test_a_restarted_one_is_stopped_and_removed(sysbox: Sysbox, containers: Containers) -> None:
    one = ready(containers(command=POLITE))
    systemctl("restart", service(one))
    eventually(lambda: one("logs").count("ready") == 2, "the payload is ready")
    one("stop")
    assert (one.inspect("State.Status"), one.inspect("State.ExitCode")) == ("exited", 7)
    one("start")
    systemctl("restart", service(one))
    one("rm", "-f")
    assert systemctl("list-units", "--all", "-q", f"*{one.id}*") == ""


def test_another_unit_names_its_scope(sysbox: Sysbox, containers: Containers, other: str) -> None:
    """systemd starts a scope only once while it remembers it: who forbids that is said."""
    one = ready(containers(command=POLITE))
    start(other, after=one.scope)
    one("stop")
    refused = sysbox("start", one.id)
    assert refused.returncode != 0
    assert f"{one.scope} has ended, but is named by {other}" in refused.stderr
    assert f"`systemctl stop {other}`" in refused.stderr
    systemctl("stop", other)
    one("start")
    assert one.inspect("State.Status") == "running"


def test_another_unit_names_its_service(containers: Containers, other: str) -> None:
    one = ready(containers(command=POLITE))
    start(other, after=service(one))
    for _ in range(2):
        one("stop")
        one("start")
        assert one.inspect("State.Status") == "running"
    one("restart")
    assert systemctl("is-active", other) == "active"
    one("rm", "-f")
