"""A stop of a service while it starts its container: the start ends at once at each step, and cleanly.

In the guest: on v2 the scope has one cgroup, which systemd makes and removes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from containers import Containers, eventually, systemctl
from lane import SLOWNESS, Sysbox
from test_units import NAME, SERVICE, Declare, journal, state
from test_units import declare as declare

from sysbox import scope
from sysbox.base import paths
from sysbox.container.identity import of_unit
from sysbox.units.bus import Bus

ID = of_unit(SERVICE)
SLEEP = "Exec=sleep 1000\nStopSignal=KILL"


def has_lease() -> bool:
    leases = Path(paths.NETWORK, "leases")
    return leases.exists() and ID in leases.read_text()


def knows_scope() -> bool:
    return systemctl("show", "-P", "LoadState", f"docker-{ID}.scope") != "not-found"


# what can be seen from outside, in the order in which it comes
STEPS: dict[str, Callable[[], object]] = {
    "begin": lambda: systemctl("show", "-P", "MainPID", SERVICE) != "0",
    "record": Path(paths.CONTAINERS, ID).exists,
    "claim": Path(paths.RUN_CONTAINERS, ID, "state.json").exists,
    "network": has_lease,
    "scope": lambda: any(
        any(Path("/sys/fs/cgroup").glob(f"{above}system.slice/docker-{ID}.scope"))
        for above in ("", "*/")
    ),
}


def stop_at(step: Callable[[], object], unit: str = SERVICE) -> None:
    """Stop the service as soon as that has come; the wait is as short as can be, since the step passes."""
    with Bus.connect() as bus:
        scope.request_start(bus, unit)
        deadline = time.monotonic() + scope.TIMEOUT * SLOWNESS
        while not step():
            assert time.monotonic() < deadline, "the start did not come so far"
            time.sleep(0.001)
        scope.stop(bus, unit, scope.TIMEOUT * SLOWNESS)


@pytest.mark.parametrize(
    "step",
    [
        pytest.param("scope", marks=pytest.mark.guest("one hierarchy on v2")),
        *(step for step in STEPS if step != "scope"),
    ],
)
def test_nothing_is_left(declare: Declare, sysbox: Sysbox, step: str) -> None:
    began = time.time()
    sysbox("unit", "install", declare.file(f"{SLEEP}\nPublishPort=8090:80"), check=True)
    for _ in range(2):
        stop_at(STEPS[step])
        assert (state(), systemctl("show", "-P", "Result", SERVICE)) == ("inactive", "success")
        assert not declare.is_there()
        # systemd forgets it a moment after its end
        eventually(lambda: not knows_scope(), "its scope is gone")
        assert not has_lease()
        assert sysbox("gc", check=True).stdout == ""
    # an earlier one may have gone on to the end, which is a stop like any other
    said = journal(SERVICE, began)
    assert f"Starting {SERVICE}" in said
    assert "timed out" not in said
    systemctl("start", SERVICE)
    assert declare.is_there()


def test_while_it_is_not_healthy(declare: Declare, sysbox: Sysbox) -> None:
    health = "Notify=healthy\nHealthCmd=false\nHealthInterval=100ms\nHealthRetries=1000"
    sysbox("unit", "install", declare.file(f"{SLEEP}\n{health}"), check=True)
    systemctl("start", "--no-block", SERVICE)
    eventually(declare.is_there, "the container is made")
    one = declare.container()
    one.await_state("running")  # before that it has no health
    eventually(lambda: one.inspect("State.Health.Log"), "it was checked")
    assert state() == "activating"
    systemctl("stop", SERVICE)
    assert (state(), declare.is_there()) == ("inactive", False)
    assert sysbox("gc", check=True).stdout == ""


def test_the_service_of_a_restart_policy(containers: Containers, sysbox: Sysbox) -> None:
    """It keeps its container, whose record says why it does not run."""
    one = containers("--restart", "always", "--stop-signal", "KILL", "--name", NAME)
    service = f"sysbox-{one.id}.service"
    systemctl("stop", service)
    stop_at(Path(paths.RUN_CONTAINERS, one.id, "state.json").exists, service)
    assert systemctl("show", "-P", "ActiveState", service) == "inactive"
    assert one.inspect("State.Running") is False
    assert sysbox("gc", check=True).stdout == ""
    one("start")
    assert one.inspect("State.Running") is True
