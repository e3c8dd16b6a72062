"""What a payload tells systemd itself: Notify=yes of a declared container, `run --sdnotify` in a service."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import eventually, systemctl, with_health_check
from lane import SLOWNESS, SYSBOX, Sysbox
from test_units import SERVICE, Declare, journal, state

IMAGE = "host"  # it has systemd-notify(1)
SOCKET = "/run/host/notify"


@pytest.fixture
def declare(sysbox: Sysbox, tmp_path: Path) -> Iterator[Declare]:
    one = Declare(sysbox, tmp_path, IMAGE)
    yield one
    one.remove()


def show(name: str) -> str:
    return systemctl("show", "-P", name, SERVICE)


def test_it_is_started_when_its_payload_says_so(declare: Declare, sysbox: Sysbox) -> None:
    one = declare.begin("Exec=sleep 1000")
    main = show("MainPID")
    assert state() == "activating"
    said = ".scope, waiting until it says that it is ready"
    eventually(lambda: show("StatusText").endswith(said), "it says what it waits for")
    one.exec("systemd-notify", "--ready", "--status=up", "MAINPID=1", "FDSTORE=1")
    eventually(lambda: state() == "active", "the service is started")
    assert (show("StatusText"), show("MainPID")) == ("up", main)
    assert show("NFileDescriptorStore") == "0"
    one.exec("systemd-notify", "ERRNO=5", "STATUS=a\x1b[2Jb")
    eventually(lambda: show("StatusErrno") == "5", "an error number is passed on")
    assert show("StatusText") == "a?[2Jb"
    one.exec("systemd-notify", "RELOADING=1", "MONOTONIC_USEC=1")
    eventually(lambda: state() == "reloading", "it reloads")
    one.exec("systemd-notify", "--ready")
    eventually(lambda: state() == "active", "it has reloaded")
    one.exec("systemd-notify", "STOPPING=1")
    eventually(lambda: state() == "deactivating", "it stops by itself")
    os.kill(one.pid, signal.SIGKILL)


def test_one_that_ends_before_it_is_ready_has_failed(declare: Declare, sysbox: Sysbox) -> None:
    sysbox("unit", "install", declare.file("Notify=true\nExec=true"), check=True)
    systemctl("start", SERVICE, check=False)
    assert (state(), show("Result")) == ("failed", "protocol")
    assert not declare.is_there()


@pytest.mark.parametrize("init", ["no", "yes"])
def test_the_watchdog_of_the_service(declare: Declare, sysbox: Sysbox, init: str) -> None:
    """The payload learns of it as any service does, and feeds it until it is told not to."""
    feed = (
        "test $WATCHDOG_PID = $$ && test $WATCHDOG_USEC = 2500000 && systemd-notify --ready && "
        "while ! test -e /tmp/enough; do systemd-notify WATCHDOG=1; sleep 0.1; done; sleep 1000"
    )
    sysbox(
        "unit", "install",
        declare.file(
            f'Notify=yes\nStopSignal=KILL\nRunInit={init}\nExec=sh -c "{feed.replace("$", "$$")}"',
            "WatchdogSec=2500ms",
        ), check=True,
    )  # fmt: skip
    systemctl("start", SERVICE)
    one = declare.container()
    one.exec("sleep", "3")
    assert state() == "active", "fed for longer than the watchdog waits"
    one.exec("touch", "/tmp/enough")
    eventually(lambda: show("Result") == "watchdog", "it is hungry")
    eventually(lambda: not declare.is_there(), "the container is gone")


def test_a_start_that_asks_for_more_time(declare: Declare, sysbox: Sysbox) -> None:
    wait = 4 * SLOWNESS  # until it has asked, which takes a busy machine two seconds
    more = "systemd-notify EXTEND_TIMEOUT_USEC=60000000"
    script = f"{more}; sleep {wait + 0.5}; systemd-notify --ready; sleep 1000"
    one = declare.begin(f'Exec=sh -c "{script}"', f"TimeoutStartSec={wait}")
    eventually(lambda: state() == "active", "it was given the time")
    assert one.pid


def test_a_reload_by_a_signal(declare: Declare, sysbox: Sysbox) -> None:
    script = (
        "trap 'systemd-notify RELOADING=1; systemd-notify --ready --status=again' USR1; "
        "systemd-notify --ready; while :; do sleep 0.05; done"
    )
    sysbox(
        "unit", "install",
        declare.file(f'Notify=yes\nStopSignal=KILL\nReloadSignal=USR1\nExec=sh -c "{script}"'), check=True,
    )  # fmt: skip
    systemctl("start", SERVICE)
    systemctl("reload", SERVICE)
    eventually(lambda: (state(), show("StatusText")) == ("active", "again"), "it has reloaded")


def test_a_mount_in_the_way(declare: Declare, sysbox: Sysbox) -> None:
    sysbox("unit", "install", declare.file("Notify=yes\nTmpfs=/run/host\nExec=true"), check=True)
    systemctl("start", SERVICE, check=False)
    assert f"mount /run/host: with Notify=yes the socket {SOCKET} is there" in journal(SERVICE)
    # a volume at /run is none: the socket's directory is the container's own
    declare.begin("Tmpfs=/run\nExec=sh -c 'systemd-notify --ready; sleep 1000'")
    eventually(lambda: state() == "active", "the payload has told")


@pytest.mark.parametrize("mode", ["container", "conmon"])
def test_a_run_in_a_service_of_the_users(sysbox: Sysbox, mode: str) -> None:
    unit = "sdnotify-test.service"
    script = "trap 'exit 0' TERM; systemd-notify --ready --status=$$WATCHDOG_PID; while :; do sleep 0.1; done"
    command = [
        *("systemd-run", "--unit", unit, "--property=Type=notify", "--property=WatchdogSec=600"),
        *("--collect", str(SYSBOX), "run", "--rm", "--name", "sdnotify-test", f"--sdnotify={mode}"),
        *(IMAGE, "sh", "-c", script),
    ]
    try:
        subprocess.run(command, check=True, capture_output=True)
        assert systemctl("show", "-P", "ActiveState", unit) == "active"
        text = "1" if mode == "container" else ""
        assert systemctl("show", "-P", "StatusText", unit) == text
        assert systemctl("show", "-P", "NotifyAccess", unit) == "main"
    finally:
        systemctl("stop", unit, check=False)
    assert sysbox("inspect", "sdnotify-test").returncode != 0


def test_who_cannot_be_told(sysbox: Sysbox, image: str) -> None:
    told = {**os.environ, "NOTIFY_SOCKET": "/run/systemd/notify"}
    for words in (("-d", "--sdnotify=container"), ("--sdnotify=healthy",)):
        done = sysbox("run", *words, image, "true", env=told)
        assert done.returncode == 125
        assert "for which the caller's cannot wait" in done.stderr
    assert "unknown mode" in sysbox("run", "--sdnotify=x", image, "true").stderr
    with with_health_check(sysbox, image) as name:
        for mode in ("container", "conmon"):
            done = sysbox("run", "--rm", f"--sdnotify={mode}", name, "true", env=told)
            assert (done.returncode, len(done.stderr.splitlines())) == (125, 2)
            assert f"--sdnotify {mode}: the image has a health check" in done.stderr
        assert not sysbox("ps", "-aq", check=True).stdout
        sysbox("run", "--rm", "--sdnotify=conmon", "--no-healthcheck", name, "true", check=True)
    # without a service manager nobody is told, as with podman
    done = sysbox("run", "--rm", "--sdnotify=container", image, "env", check=True)
    assert "NOTIFY" not in done.stdout
