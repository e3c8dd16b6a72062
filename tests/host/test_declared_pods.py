"""Declared pods: the service of a pod starts before those of its containers, and stops after them."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from containers import Container, active_state, eventually, systemctl
from lane import Sysbox
from pod_lab import HELD, nothing_is_left

NAME = "pod-test"
POD, SERVICE, SLICE = (
    f"systemd-{NAME}",
    f"{NAME}-pod.service",
    "sysbox-pod-systemd\\x2dpod\\x2dtest.slice",
)
Declare = Callable[..., None]


@pytest.fixture
def declare(sysbox: Sysbox, tmp_path: Path, image: str) -> Iterator[Declare]:
    """`declare(POD, one=CONTAINER, ...)` installs a pod and containers, with these lines in their files."""
    names: list[str] = []

    def make(pod: str = "[Pod]", **containers: str) -> None:
        (tmp_path / f"{NAME}.pod").write_text(f"{pod}\n[Install]\nWantedBy=multi-user.target\n")
        paths = [tmp_path / f"{NAME}.pod"]
        for name, lines in containers.items():
            path = tmp_path / f"{NAME}-{name}.container"
            path.write_text(
                f"[Container]\nImage={image}\nExec=sleep 1000\nStopSignal=KILL\nPod={NAME}.pod\n{lines}\n"
            )
            paths.append(path)
        done = sysbox("unit", "install", *map(str, paths), check=True)
        names.extend(done.stdout.split())

    yield make
    for unit in names:
        sysbox("unit", "uninstall", "--force", unit, check=True)
        systemctl("reset-failed", unit, check=False)
    assert nothing_is_left() == []


def start(*containers: str) -> None:
    """Start the pod, and wait for the containers that start with it: `systemctl` waits for the pod alone."""
    systemctl("start", SERVICE)
    for name in containers:
        eventually(lambda name=name: active_state(service(name)) == "active", f"{name} has started")


def service(name: str) -> str:
    return f"{NAME}-{name}.service"


def container(sysbox: Sysbox, name: str) -> Container:
    found = sysbox("inspect", "-f", "{{.ID}}", f"systemd-{NAME}-{name}", check=True)
    return Container(sysbox, found.stdout.strip())


def test_a_pod_with_its_containers(declare: Declare, sysbox: Sysbox) -> None:
    pod = "[Pod]\nPublishPort=8090:80\nHostName=front\n[Service]\nTasksMax=50"
    declare(
        pod, one="[Service]\nRestart=on-failure\nRestartSec=100ms", other="", late="StartWithPod=no"
    )
    start("one", "other")
    assert active_state(service("late")) == "inactive"
    one, other = container(sysbox, "one"), container(sysbox, "other")
    assert one.exec("hostname") == other.exec("hostname") == "front"
    assert one.namespace("net") == other.namespace("net")
    assert one.inspect("Sysbox.Pod") == POD
    assert one.inspect("Sysbox.Slice") == SLICE
    # what is written in the pod's [Service] holds for all of them
    found = json.loads(sysbox("pod", "inspect", POD, check=True).stdout)[0]
    assert (found["Sysbox"]["Limits"]["TasksMax"], found["State"]) == (50, "Running")
    held, pid = os.stat(HELD / POD / "net").st_ino, one.pid
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: systemctl("show", "-P", "NRestarts", service("one")) == "1", "it restarts")
    eventually(lambda: active_state(service("one")) == "active", "it runs again")
    assert container(sysbox, "one").namespace("net") == f"net:[{held}]"
    assert active_state(SERVICE) == "active"
    systemctl("stop", SERVICE)
    assert {active_state(service(name)) for name in ("one", "other")} == {"inactive"}
    assert nothing_is_left() == []
    assert sysbox("pod", "ps", "-q").stdout == ""


def test_a_restart_of_the_pod_is_that_of_its_services(declare: Declare, sysbox: Sysbox) -> None:
    declare(one="", other="")
    start("one", "other")
    pids = {container(sysbox, name).pid for name in ("one", "other")}
    sysbox("pod", "restart", POD, check=True)
    for name in ("one", "other"):
        eventually(lambda name=name: active_state(service(name)) == "active", f"{name} is up again")
    assert not pids & {container(sysbox, name).pid for name in ("one", "other")}
    assert active_state(SERVICE) == "active"


def test_a_container_starts_its_pod(declare: Declare, sysbox: Sysbox) -> None:
    declare("[Pod]\nExitPolicy=continue", one="StartWithPod=no")
    systemctl("start", service("one"))
    assert active_state(SERVICE) == "active"
    systemctl("stop", service("one"))
    assert active_state(SERVICE) == "active", "its policy is to stay"
    sysbox("pod", "rm", "-f", POD, check=True)
    systemctl("restart", SERVICE)
    assert (HELD / POD / "net").exists()


def test_the_pod_stops_with_its_last_container(declare: Declare) -> None:
    # the pod waits for the end of the service, not only of the container
    declare(one="", other="[Service]\nExecStopPost=sleep 0.7")
    systemctl("enable", SERVICE)
    start("one", "other")
    systemctl("stop", service("one"))
    assert active_state(SERVICE) == "active"
    systemctl("stop", service("other"))
    eventually(lambda: active_state(SERVICE) == "inactive", "the pod has stopped")
    eventually(lambda: nothing_is_left() == [], "nothing is left")


def test_what_ends_and_comes_back_keeps_the_pod(declare: Declare, sysbox: Sysbox) -> None:
    declare(one="[Service]\nRestart=always\nRestartSec=100ms")
    start("one")
    held = os.stat(HELD / POD / "net").st_ino
    for victim in ("payload", "monitor", "payload"):
        known = systemctl("show", "-P", "NRestarts", service("one"))
        main = int(systemctl("show", "-P", "MainPID", service("one")))
        os.kill(container(sysbox, "one").pid if victim == "payload" else main, signal.SIGKILL)
        eventually(
            lambda known=known: systemctl("show", "-P", "NRestarts", service("one")) != known,
            victim,
        )
        eventually(lambda: active_state(service("one")) == "active", "it runs again")
    assert os.stat(HELD / POD / "net").st_ino == held


def test_a_reload_changes_nothing(declare: Declare, sysbox: Sysbox) -> None:
    declare(one="")
    start("one")
    pid, held = container(sysbox, "one").pid, os.stat(HELD / POD / "net").st_ino
    systemctl("daemon-reload")
    assert (active_state(SERVICE), active_state(service("one"))) == ("active", "active")
    assert (container(sysbox, "one").pid, os.stat(HELD / POD / "net").st_ino) == (pid, held)


def test_a_pod_that_cannot_start(declare: Declare, sysbox: Sysbox) -> None:
    """Its containers do not start either, and nothing of it is left."""
    declare("[Pod]\nNetwork=no-such-network", one="")
    systemctl("start", service("one"), check=False)
    assert active_state(SERVICE) == "failed"
    assert active_state(service("one")) == "inactive"
    assert nothing_is_left() == []
    assert sysbox("ps", "-aq").stdout == ""
