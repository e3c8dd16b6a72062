"""The time namespace: clocks that count from a container's start, in all that runs in it.

In the guest: Linux 6.1, where execve(2) enters a time namespace by itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from containers import Container, Containers, eventually, popen
from lane import SLOWNESS, SYSBOX, TIMEOUT, Sysbox

from sysbox.base import paths

HOUR = 3600
PRINT = (
    "/usr/bin/python3", "-I", "-c",
    "from time import *; print(*map(clock_gettime_ns, (CLOCK_MONOTONIC, CLOCK_BOOTTIME)))",
)  # fmt: skip


def uptime(one: Container) -> float:
    """Seconds, by /proc/uptime inside."""
    return float(one.sh("cut -d' ' -f1 /proc/uptime"))


def host_uptime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def is_fresh(seconds: float, begin: float) -> bool:
    """Whether a clock counts from the start of a container that was asked for at `begin` (time.monotonic)."""
    # it counts from the last clock tick before its first process was made
    return 0 <= seconds <= time.monotonic() - begin + 0.02


@pytest.mark.guest("Linux 6.1")
def test_it_counts_from_the_start_in_every_process(sysbox: Sysbox, containers: Containers) -> None:
    """Of the first process, of exec, of a health check; and again from 0 after a restart."""
    # a whole file at any time: one check after the other writes it
    look = "cat /proc/uptime >/tmp/new; mv /tmp/new /tmp/check"
    check = ("--health-cmd", look, "--health-interval", "1s")
    begin = time.monotonic()
    one = containers(*check, command=("sh", "-c", "cat /proc/uptime >/tmp/first; exec sleep 1000"))
    eventually(lambda: "." in one.sh("cat /tmp/first || true"), "the first process has looked")
    eventually(lambda: "." in one.sh("cat /tmp/check || true"), "a check has run")
    for file in ("/tmp/first", "/tmp/check", "/proc/uptime"):
        assert is_fresh(float(one.sh(f"cut -d' ' -f1 {file}")), begin), file
    # sysinfo(2), and what procps makes of the start times of processes
    shown = one.exec("uptime")
    assert any(f"up {minutes} min" in shown for minutes in range(3)), shown
    assert one.inspect("Sysbox.TimeNamespace") == {"Mode": "private", "Reason": "", "Offset": {}}
    one("stop", "-t", "0")
    begin = time.monotonic()
    one("start")
    assert is_fresh(uptime(one), begin)
    assert sysbox("top", one.id, check=True).stdout.count("sleep") == 1


def test_the_start_of_its_first_process(containers: Containers) -> None:
    """Never before the clock's zero: the kernel would show a number of 64 bits that has no sign."""
    for _ in range(5):
        one = containers("--network", "none")
        fields = one.sh("cat /proc/1/stat /proc/self/stat").splitlines()
        first, other = (int(line.rpartition(") ")[2].split()[19]) for line in fields)
        assert first <= 1
        assert first <= other < 3000 * SLOWNESS


def test_both_clocks_of_a_shell_in_it(sysbox: Sysbox, containers: Containers) -> None:
    begin = time.monotonic()
    one = containers("--network", "none", image="host")
    for nanoseconds in map(int, one.exec(*PRINT).split()):
        assert is_fresh(nanoseconds / 1e9, begin)
    # the clock of the day is the machine's
    assert abs(int(one.exec("date", "+%s")) - time.time()) < 30 * SLOWNESS
    # and when it was booted, as ps(1) needs it to show dates
    booted = int(one.sh("grep btime /proc/stat").split()[1])
    assert abs(booted - time.time()) < 60 * SLOWNESS


def test_offsets(sysbox: Sysbox, containers: Containers) -> None:
    """Of the host's clocks; a clock that is not named counts from the start."""
    one = containers(
        "--network", "none", "--time-offset", "monotonic=2h,boottime=-1s", image="host"
    )
    monotonic, boottime = (int(one) / 1e9 for one in one.exec(*PRINT).split())
    assert 0 <= time.monotonic() + 2 * HOUR - monotonic < 30 * SLOWNESS
    assert 0 <= host_uptime() - 1 - boottime < 30 * SLOWNESS
    shown = one.inspect("Sysbox.TimeNamespace")
    assert shown["Offset"] == {"monotonic": 2 * HOUR * 10**9, "boottime": -(10**9)}
    begin = time.monotonic()
    two = containers("--network", "none", "--time-offset", "monotonic=1h", image="host")
    monotonic, boottime = (int(one) / 1e9 for one in two.exec(*PRINT).split())
    assert monotonic > HOUR
    assert is_fresh(boottime, begin)
    # an offset alone makes a namespace, also for a container that would have the host's
    three = containers("--network", "none", "--privileged", "--time-offset", "boottime=10d")
    assert uptime(three) > 10 * 24 * HOUR


@pytest.mark.parametrize("flags", [("--timens", "host"), ("--privileged",), ("--pid", "host")])
def test_the_hosts(containers: Containers, flags: tuple[str, ...]) -> None:
    one = containers("--network", "none", *flags)
    assert one.namespace("time") == os.readlink("/proc/1/ns/time")
    assert abs(uptime(one) - host_uptime()) < 30 * SLOWNESS
    assert one.inspect("Sysbox.TimeNamespace.Mode") == "host"


def test_another_containers(containers: Containers) -> None:
    one = containers("--network", "none", "--time-offset", "boottime=100d")
    for flags in (("--timens",), ("--pid",), ("--ipc",)):
        two = containers("--network", "none", *flags, f"container:{one.id}")
        assert two.namespace("time") == one.namespace("time")
        assert uptime(two) > 100 * 24 * HOUR
        assert two.inspect("Sysbox.TimeNamespace.Mode") == f"container:{one.id}"
    path = containers("--network", "none", "--pid", f"ns:/proc/{one.pid}/ns/pid")
    assert path.namespace("time") == one.namespace("time")


def test_systemd_inside(containers: Containers) -> None:
    """It counts its own times from the start, and its units come up."""
    begin = time.monotonic()
    one = containers("--network", "none", image="host", command=("/lib/systemd/systemd",))
    eventually(
        lambda: one.sh("systemctl is-system-running || true") in ("running", "degraded"), "it is up"
    )
    assert is_fresh(uptime(one), begin)
    entered = one.sh("systemctl show -p ActiveEnterTimestampMonotonic --value basic.target")
    assert is_fresh(int(entered) / 1e6, begin)


def test_one_that_an_older_version_started(containers: Containers) -> None:
    """Its clocks are the host's, also after a restart, and exec enters it all the same."""
    one = containers("--network", "none", "--timens", "host")
    file = Path(paths.CONTAINERS) / one.id / "record.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    assert record.pop("format") > 2
    assert record["spec"]["namespaces"].pop("time") == "host"
    file.write_text(json.dumps({"format": 2, **record}), encoding="utf-8")
    for _ in range(2):
        assert abs(uptime(one) - host_uptime()) < 30 * SLOWNESS
        assert one.inspect("Sysbox.TimeNamespace") == {"Mode": "host", "Reason": "", "Offset": {}}
        one("restart", "-t", "0")


# sysbox as it is in a container that may not set the clock: no offset can be written
WITHOUT = ("setpriv", "--bounding-set=-sys_time")
LACKING = "the capability CAP_SYS_TIME is missing"


def without(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*WITHOUT, SYSBOX, *words], capture_output=True, text=True, check=False, timeout=TIMEOUT
    )


def test_where_none_can_be_made(image: str, containers: Containers) -> None:
    """The default does without, and says so; what was asked for by name is an error.

    In a user namespace of its own a container's first process has every capability.
    """
    flags = ("--userns", "host")
    plan = without("run", "--dry-run", *flags, image, "true").stdout
    assert f"clocks of the host ({LACKING})" in plan
    running = popen("run", *flags, "--name", "without", image, "sleep", "1000", under=WITHOUT)
    try:
        one = containers.known("without")
        assert one.namespace("time") == os.readlink("/proc/1/ns/time")
        assert abs(uptime(one) - host_uptime()) < 30 * SLOWNESS
        assert one.inspect("Sysbox.TimeNamespace") == {
            "Mode": "host", "Reason": "none could be made at its start", "Offset": {},
        }  # fmt: skip
        one("kill")
    finally:
        running.communicate(timeout=TIMEOUT)
    for flag, value in (("--timens", "private"), ("--time-offset", "boottime=1s")):
        done = without("run", "--rm", *flags, flag, value, image, "true")
        assert done.returncode == 125
        assert done.stderr.startswith(f"sysbox: {flag}")
        assert LACKING in done.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--time-offset", "boottime"), "not CLOCK=OFFSET"),
        (("--time-offset", "realtime=1h"), "unknown clock 'realtime'"),
        (("--time-offset", "boottime=x"), "not a duration"),
        (("--time-offset", "boottime=1h,boottime=2h"), "given twice"),
        (("--time-offset", "boottime=-36500d"), "below zero"),
        (("--time-offset", "boottime=1h", "--timens", "host"), "--timens host"),
        (("--timens", "somewhere"), "unknown mode"),
        (("--timens", "ns:/proc/1/ns/net"), "another kind"),
    ],
)
def test_bad_input(sysbox: Sysbox, image: str, flags: tuple[str, ...], words: str) -> None:
    done = sysbox("run", "--rm", *flags, image, "true")
    assert done.returncode == 125
    assert words in done.stderr.splitlines()[0]
    assert len(done.stderr.splitlines()) <= 2
