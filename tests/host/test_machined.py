"""machined, where it is: its tools know the containers, and nothing waits for it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from containers import Containers, eventually, popen, systemctl
from lane import Sysbox
from test_inside import SERVICES, boot

UNIT = "systemd-machined.service"


@pytest.fixture(autouse=True)
def machined(requires: Any) -> Iterator[None]:
    requires.program("machinectl")
    yield
    systemctl("stop", UNIT)


def machinectl(*words: str) -> str:
    done = subprocess.run(
        ["machinectl", "--no-pager", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def machines() -> dict[str, str]:
    """Name -> service."""
    rows = (line.split() for line in machinectl("list", "--no-legend").splitlines())
    return {row[0]: row[2] for row in rows if len(row) > 2}


def state_of(name: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in machinectl("show", name).splitlines())


def leads(name: str, pid: int) -> bool:
    """Whether its leader is this process; between two runs there is no such machine."""
    words = ["machinectl", "--no-pager", "show", "-p", "Leader", "--value", name]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.strip() == str(pid)


def await_machine(name: str) -> None:
    eventually(lambda: machines().get(name) == "sysbox", f"machined knows {name}")


def test_its_tools(containers: Containers, requires: Any) -> None:
    container = boot(containers, "--name", "tools_of")
    name = "tools-of"  # a hostname has no underscores
    await_machine(name)
    shown = state_of(name)
    assert shown["Id"] == container.id[:32]
    assert (shown["Class"], shown["Leader"]) == ("container", str(container.pid))
    assert shown["Unit"] == container.scope
    address = container.inspect("NetworkSettings.IPAddress")
    assert address in machinectl("status", name)
    inside = subprocess.run(
        ["systemctl", "-M", name, "is-active", "systemd-journald.service"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert inside.stdout == "active\n", inside.stderr
    container.exec("logger", "-t", "probe", "from within")
    written = ["journalctl", "-M", name, "-t", "probe", "-o", "cat"]
    eventually(
        lambda: subprocess.run(written, capture_output=True, check=True).stdout == b"from within\n",
        "journalctl -M shows it",
    )
    requires(SERVICES.is_dir(), "libnss-mymachines, from tools/setup.sh test")
    library = f"{SERVICES}/usr/lib/{os.uname().machine}-linux-gnu"
    found = subprocess.run(
        ["getent", "-s", "mymachines", "ahostsv4", name],
        capture_output=True, text=True, check=False, env={**os.environ, "LD_LIBRARY_PATH": library},
    )  # fmt: skip
    assert found.stdout.split(" ")[0] == address, found


def test_terminate_is_a_graceful_stop(containers: Containers) -> None:
    script = "trap 'exit 7' TERM; >/ready; while :; do sleep 0.1; done"
    flags = ("--name", "graceful", "--stop-timeout", "300")
    one = containers(*flags, command=("sh", "-c", script))
    eventually(lambda: os.path.exists(f"/proc/{one.pid}/root/ready"), "it has set its trap")
    await_machine("graceful")
    machinectl("terminate", "graceful")
    one.await_state("exited")
    assert one.inspect("State.ExitCode") == 7
    eventually(lambda: "graceful" not in machines(), "it is taken out")


def test_a_restart_and_another_of_the_name(containers: Containers) -> None:
    first = containers("--name", "same.name")
    await_machine("same.name")
    leader = state_of("same.name")["Leader"]
    first("restart", "-t", "0")
    assert first.pid != int(leader)
    eventually(lambda: leads("same.name", first.pid), "the new run")
    second = containers("--name", "same.name-")
    await_machine(second.id[:12])
    assert state_of("same.name")["Unit"] == first.scope


def test_in_the_foreground_once_it_lasts(sysbox: Sysbox) -> None:
    began = f"@{time.time():.6f}"
    short = next(name for number in range(20) if (name := ended_at_once(sysbox, f"short-{number}")))
    words = ("run", "--rm", "-i", "--name", "lasting", "host", "cat")
    with popen(*words, stdin=subprocess.PIPE) as run:
        await_machine("lasting")
        run.communicate("bye")
        assert run.returncode == 0
    eventually(lambda: machines() == {}, "it is taken out")
    # machined's lines may still be on their way
    subprocess.run(["journalctl", "--sync"], check=True)
    command = ["journalctl", "-q", "-u", UNIT, "-o", "cat", "--since", began]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "New machine lasting." in told
    assert f"New machine {short}." not in told


def ended_at_once(sysbox: Sysbox, name: str) -> str:
    """Run a container that does not last; its name, or "" where the machine was too busy for that."""
    sysbox("run", "--name", name, "host", "true", check=True)
    form = "{{.State.StartedAt}} {{.State.FinishedAt}}"
    moments = sysbox("inspect", "-f", form, name, check=True).stdout.split()
    sysbox("rm", name, check=True)
    began, ended = map(datetime.fromisoformat, moments)
    return name if ended - began < timedelta(seconds=0.3) else ""


def test_without_it(sysbox: Sysbox, containers: Containers) -> None:
    """Masked: nothing asks for it, nothing fails."""
    systemctl("mask", UNIT)
    try:
        systemctl("stop", UNIT)
        containers("--name", "alone")("stop", "-t", "0")
        with popen("run", "--rm", "host", "sleep", "0.8") as run:
            out, err = run.communicate()
            assert (run.returncode, out, err) == (0, "", "")
        assert systemctl("is-active", UNIT, check=False) == "inactive"
    finally:
        systemctl("unmask", UNIT)
