"""Files of a running container that are lost: it is shown, stopped and removed all the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from containers import Container, Containers, eventually, systemctl
from lane import SYSBOX, Sysbox

from sysbox.base import paths
from sysbox.units import journal, serviceplan

QUICKLY = ("--stop-signal", "KILL")
KEPT = ("State.Pid", "HostConfig.NetworkMode", "NetworkSettings.IPAddress", "NetworkSettings.Ports")


def record_of(one: Container) -> Path:
    return Path(paths.CONTAINERS) / one.id


def run_of(one: Container) -> Path:
    return Path(paths.RUN_CONTAINERS) / one.id


def listed(sysbox: Sysbox, *flags: str) -> list[str]:
    done = sysbox("ps", *flags, "--format", "{{.Names}} {{.State}}", check=True)
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize("how", ["stop", "rm"])
def test_the_lock(containers: Containers, sysbox: Sysbox, how: str) -> None:
    one = containers("--name", "unlocked", *QUICKLY)
    (record_of(one) / "lock").unlink()
    if how == "stop":
        one("stop")
        assert one.inspect("State.Status") == "exited"
        (record_of(one) / "lock").unlink()
        one("start")
        one.await_state("running")
        (record_of(one) / "lock").unlink()
    one("rm", "-f")
    assert listed(sysbox, "-a") == []
    assert not record_of(one).exists()
    assert sysbox("inspect", "unlocked").returncode == 1


def await_supervisor(one: Container) -> None:
    """Until it has opened its files in the directory: without these it ends the container."""
    state = json.loads((run_of(one) / "state.json").read_bytes())
    process = Path(f"/proc/{state['supervisor']}")

    def reads_signals() -> bool:
        """The monitor opens its signalfd(2) after its files."""
        if (process / "comm").read_text(encoding="utf-8") != "sysbox-monitor\n":
            return False
        fds = (process / "fd").iterdir()
        return any(fd.is_symlink() and "signalfd" in os.path.realpath(fd) for fd in fds)

    eventually(reads_signals, "it is supervised")


def everything(one: Container) -> None:
    await_supervisor(one)
    shutil.rmtree(run_of(one))


def the_state(one: Container) -> None:
    await_supervisor(one)
    (run_of(one) / "state.json").unlink()


@pytest.mark.parametrize("lose", [the_state, everything])
@pytest.mark.parametrize(
    "flags", [("-p", "8097:80", "-p", "81"), ("--pid", "host", "--network", "none")]
)
def test_the_state(
    containers: Containers,
    sysbox: Sysbox,
    lose: Callable[[Container], None],
    flags: tuple[str, ...],
) -> None:
    one = containers("--name", "lost", "--slice", "deep-er.slice", *flags, *QUICKLY)
    before = [one.inspect(path) for path in KEPT]
    lose(one)
    assert listed(sysbox) == ["lost running"]
    assert [one.inspect(path) for path in KEPT] == before
    assert one.exec("echo", "in") == "in"
    lose(one)
    one("stop")
    assert one.inspect("State.Status") == "exited"
    assert one.inspect("State.ExitCode") == 137
    assert sysbox("gc", check=True).stdout == ""
    one("start")
    lose(one)
    one("kill")
    one.await_state("exited")
    one("start")
    lose(one)
    assert "recorded the run of lost again" in sysbox("gc", check=True).stdout
    assert sysbox("gc", check=True).stdout == ""
    lose(one)
    assert sysbox("rm", "lost").returncode == 1
    lose(one)
    one("rm", "-f")
    assert listed(sysbox, "-a") == []
    assert sysbox("gc", check=True).stdout == ""


def test_the_state_of_one_in_the_foreground(
    sysbox: Sysbox, containers: Containers, image: str
) -> None:
    running = subprocess.Popen([SYSBOX, "run", "--name", "front", *QUICKLY, image, "sleep", "1000"])
    one = containers.known("front")
    shutil.rmtree(run_of(one))
    assert listed(sysbox) == ["front running"]
    shutil.rmtree(run_of(one))
    one("stop")
    assert running.wait(timeout=30) == 137
    assert one.inspect("State.Status") == "exited"


def test_the_record(containers: Containers, sysbox: Sysbox) -> None:
    one = containers("--name", "gone", *QUICKLY)
    (record_of(one) / "record.json").unlink()
    shown = sysbox("ps", "-a", check=True)
    short = one.id[:12]
    assert shown.stderr == (
        f"sysbox: the record of container {short} is missing; `sysbox rm -f {short}` removes it\n"
    )
    assert len(shown.stdout.splitlines()) == 1
    assert f"left alone: the record of container {short} is missing" in sysbox("gc").stdout
    assert systemctl("is-active", one.scope) == "active"
    sysbox("rm", "-f", "gone", check=True)
    assert systemctl("show", "-P", "ActiveState", one.scope) == "inactive"
    assert listed(sysbox, "-a") == []
    assert not record_of(one).exists()


def test_the_program(containers: Containers) -> None:
    """Where sysbox was uninstalled, systemd gives up after some seconds; one that is installed starts it."""
    one = containers("--restart", "always", *QUICKLY)
    service = f"sysbox-{one.id}.service"
    file = Path(serviceplan.DIRECTORY) / service
    text = file.read_text(encoding="utf-8")
    program = text.partition("ExecStart=")[2].partition(" ")[0]
    file.write_text(text.replace(program, '"/usr/bin/uninstalled"'), encoding="utf-8")
    systemctl("daemon-reload")
    systemctl("kill", "-s", "KILL", "--kill-who=main", service)

    def restarts() -> int:
        return int(systemctl("show", "-P", "NRestarts", service))

    # thirty attempts, each of which takes a busy machine its time
    for count in (10, 20):
        eventually(lambda count=count: restarts() > count, f"{count} restarts")  # type: ignore[misc]
    eventually(lambda: systemctl("show", "-P", "SubState", service) == "failed", "it is given up")
    assert 20 < restarts() < 40
    assert one.inspect("State.Status") in ("exited", "dead")
    one("start")
    one.await_state("running")


def test_a_unit_file_and_its_container(containers: Containers, sysbox: Sysbox) -> None:
    """systemd has read its units since, and keeps what had failed; gc has it forgotten."""
    one = containers("--restart", "on-failure:1", command=("false",))
    service = f"sysbox-{one.id}.service"
    eventually(lambda: systemctl("show", "-P", "SubState", service) == "failed", "it is given up")
    shutil.rmtree(record_of(one))
    journal.remove_fields(one.scope)
    (Path(serviceplan.DIRECTORY) / service).unlink()
    systemctl("daemon-reload")
    assert f"forgot the failure of {service}" in sysbox("gc", check=True).stdout
    assert systemctl("list-units", "--all", "--plain", "--no-legend", service) == ""


@pytest.mark.parametrize("flag", ["--rm", "--restart=no"])
def test_a_run_of_which_a_power_cut_has_left_no_state(
    containers: Containers, sysbox: Sysbox, flag: str
) -> None:
    """With --rm nothing is left of it; else its end is not taken for that of an earlier run."""
    ran = containers("--name", "ran", verb=("create",))
    ran("start")
    ran("stop", "-t", "0")
    started = ran.inspect("State.StartedAt")
    cut = containers(flag, "--name", "cut", "-v", "/anonymous", verb=("create",))
    for one in (ran, cut):
        for name in ("hosts", "hostname", "resolv.conf"):
            # as a start does, whose state was below /run
            file = record_of(one) / name
            file.unlink(missing_ok=True)
            file.touch()
    sysbox("gc", check=True)
    assert sysbox("gc", check=True).stdout == ""
    said = "nobody saw how it ended: the host stopped, or /run was lost"
    assert [ran.inspect("State.Error"), ran.inspect("State.ExitCode")] == [said, 137]
    assert ran.inspect("State.StartedAt") > started
    if flag == "--rm":
        assert listed(sysbox, "-a") == ["ran exited"]
        assert sysbox("volume", "ls", "-q", check=True).stdout == ""
    else:
        assert [cut.inspect("State.Error"), cut.inspect("State.ExitCode")] == [said, 137]


def test_the_content_of_a_record_that_was_never_synced(
    containers: Containers, sysbox: Sysbox
) -> None:
    """What a power cut leaves of a container with --rm: gc removes it, and no command speaks of it."""
    one = containers("--rm", "--name", "blank", verb=("create",))
    (record_of(one) / "record.json").write_bytes(b"")
    assert listed(sysbox, "-a") == []
    assert sysbox("gc", check=True).stdout == f"removed what was left of {one.id[:12]}\n"
    assert not record_of(one).exists()
    assert sysbox("gc", check=True).stdout == ""
