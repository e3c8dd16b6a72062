"""What an administrator types at systemd, who has not read how sysbox uses it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import Container, Containers, eventually, systemctl
from lane import SYSBOX, Sysbox

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
    # its service ends a moment after the container
    eventually(lambda: not systemctl("list-units", "--all", "-q", f"*{one.id}*"), "all is gone")


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


OWN, NAMED = Path("/run/systemd/system/by-hand.service"), "by-hand"
DEAF = "trap '' TERM; echo up; while [ ! -e /end ]; do sleep 0.05; done"


@pytest.fixture
def own(sysbox: Sysbox, image: str) -> Iterator[Own]:
    one = Own(sysbox, image)
    yield one
    systemctl("stop", OWN.name, check=False)
    OWN.unlink(missing_ok=True)
    systemctl("daemon-reload")
    systemctl("reset-failed", OWN.name, check=False)


class Own:
    """An administrator's service with a container in the foreground that heeds no SIGTERM."""

    def __init__(self, sysbox: Sysbox, image: str) -> None:
        self.sysbox = sysbox
        self._image = image

    def start(self, flags: str, *lines: str) -> str:
        """The id of the container, once its command has spoken."""
        run = f'{SYSBOX} run {flags} -p 8099:80 {self._image} sh -c "{DEAF}"'
        OWN.write_text("\n".join(("[Service]", f"ExecStart={run}", *lines, "")))
        systemctl("daemon-reload")
        return self.again()

    def again(self, before: str = "") -> str:
        """The id of the next container; `before` may still be dying.

        No other command looks at containers before it is started: that would clean up behind a killed one.
        """
        systemctl("start", OWN.name)
        run = systemctl("show", "-P", "InvocationID", OWN.name)
        log = ("journalctl", "--no-pager", "-o", "cat", f"_SYSTEMD_INVOCATION_ID={run}")

        def said() -> str:
            return subprocess.run(log, check=True, text=True, capture_output=True).stdout

        with contextlib.suppress(AssertionError):
            eventually(lambda: "container start" in said(), "it is started")
        assert "container start" in said()
        found: list[str] = []

        def running() -> bool:
            found[:] = self.sysbox("ps", "-q", "--no-trunc", "-f", "status=running").stdout.split()
            return len(found) == 1 and found[0] != before

        eventually(running, "its container runs")
        return found[0]


@pytest.mark.parametrize("flags", [f"--rm --name {NAMED}", "--rm", "--replace --name by-hand"])
def test_a_service_of_ones_own_starts_after_it_was_killed(own: Own, flags: str) -> None:
    """What the kill has left is no obstacle: the name, the port."""
    first = own.start(flags, "TimeoutStopSec=100ms")
    systemctl("stop", OWN.name)
    assert systemctl("show", "-P", "Result", OWN.name) == "timeout"
    second = own.again(first)
    systemctl("stop", OWN.name)
    # the kernel kills the container with the command
    left = (
        "ps",
        "-aq",
        "--no-trunc",
        "-f",
        "name=by-hand" if "--name" in flags else "id=" + second,
    )
    if "--rm" in flags:
        eventually(lambda: own.sysbox(*left, check=True).stdout == "", "it is gone")
    else:
        how = ("inspect", "-f", "{{.State.Status}} {{json .Sysbox.End}}", NAMED)
        eventually(lambda: own.sysbox(*how).stdout.startswith("exited"), "its end is recorded")
        assert '"How":"lost"' in own.sysbox(*how, check=True).stdout
        own.sysbox("rm", NAMED, check=True)
    assert own.sysbox("gc", check=True).stdout == ""


IN_FILE = "--cidfile=%t/%n.ctr-id"  # as `podman generate systemd` wrote it
# how docs/units.md once said it, how it says it now, and what is left of a service of podman's
STOPS = {
    "a failure is ignored": (
        "", f"ExecStop=-{SYSBOX} stop {NAMED}", f"ExecStopPost=-{SYSBOX} rm -f {NAMED}"
    ),
    "by name": (
        "", f"ExecStop={SYSBOX} stop --ignore {NAMED}", f"ExecStopPost={SYSBOX} rm -f --ignore {NAMED}"
    ),
    "by file": (
        IN_FILE, "ExecStartPre=/bin/rm -f %t/%n.ctr-id",
        f"ExecStop={SYSBOX} stop --ignore -t 1 {IN_FILE}",
        f"ExecStopPost={SYSBOX} rm -f --ignore -t 1 {IN_FILE}",
    ),
    "by file, which stays": (
        IN_FILE, f"ExecStop={SYSBOX} stop --ignore -t 1 {IN_FILE}",
        f"ExecStopPost={SYSBOX} rm -f --ignore -t 1 {IN_FILE}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", STOPS)
def test_the_lines_of_docs_units(own: Own, how: str) -> None:
    """It is stopped by sysbox, and nothing is left whoever kills what."""
    flags, *stops = STOPS[how]
    lines = (
        *stops, "KillMode=mixed",
        "Type=notify", "TimeoutStopSec=30", "Restart=on-failure", "RestartSec=1000",
    )  # fmt: skip
    own.start(f"--rm --replace --name {NAMED} {flags} --sdnotify=conmon --stop-timeout 1", *lines)
    systemctl("stop", OWN.name)
    assert systemctl("show", "-P", "Result", OWN.name) != "timeout"
    assert own.sysbox("gc", check=True).stdout == ""
    own.sysbox("exec", own.again(), "touch", "/end", check=True)
    ended = ("show", "-P", "ActiveState", OWN.name)
    eventually(lambda: systemctl(*ended) == "inactive", "its end is a success")
    assert systemctl("show", "-P", "Result", OWN.name) == "success"
    own.again()
    systemctl("kill", "--signal=KILL", OWN.name)
    again = ("show", "-P", "SubState", OWN.name)
    eventually(lambda: systemctl(*again) == "auto-restart", "it has failed")
    eventually(lambda: own.sysbox("ps", "-aq", check=True).stdout == "", "nothing is left")
    assert own.sysbox("gc", check=True).stdout == ""
