"""Health checks: made while the container runs, told, and acted upon; nothing of them is left."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from containers import Container, Containers, eventually, systemctl
from lane import Sysbox

from sysbox.container import health
from sysbox.container.health import Result, State
from sysbox.spec import Health

QUICK = ("--health-interval", "100ms", "--health-timeout", "60s", "--health-retries", "2")
FILE = ("--health-cmd", "test -e /well && echo fine")


def is_now(one: Container, status: str) -> None:
    eventually(lambda: one.inspect("State.Health.Status") == status, f"it is {status}")


def test_it_follows_the_container(sysbox: Sysbox, containers: Containers) -> None:
    one = containers(*QUICK, *FILE)
    is_now(one, "unhealthy")
    assert one.inspect("State.Health.FailingStreak") >= 2
    one.sh("touch /well")
    is_now(one, "healthy")
    last = one.inspect("State.Health.Log")[-1]
    assert (last["ExitCode"], last["Output"]) == (0, "fine\n")
    assert len(one.inspect("State.Health.Log")) <= 5
    shown = sysbox("ps", "--filter", f"id={one.id}", "--format", "{{.Status}}", check=True).stdout
    assert shown.endswith("(healthy)\n")
    for want, expected in (("healthy", one.id[:12]), ("unhealthy", "")):
        found = sysbox("ps", "-q", "--filter", f"health={want}", check=True).stdout.split()
        assert (one.id[:12] in found) == bool(expected)
    one.sh("rm /well")
    is_now(one, "unhealthy")


def test_it_is_told(sysbox: Sysbox, containers: Containers) -> None:
    start = time.time()
    one = containers(*QUICK, "--health-cmd", "true")
    is_now(one, "healthy")
    # the state is written first
    eventually(lambda: "health_status: healthy" in told(sysbox, one, start), "it is told")
    # a check is no exec of its user's
    assert not [action for action in told(sysbox, one, start) if action.startswith("exec")]


def told(sysbox: Sysbox, one: Container, since: float) -> list[str]:
    """What has happened to it since then, up to now."""
    done = sysbox(
        "events", "--since", f"{since:.6f}", "--until", "0s", "--filter", f"container={one.id}",
        "--format", "{{.Action}}", check=True,
    )  # fmt: skip
    return done.stdout.splitlines()


def test_one_that_takes_too_long(containers: Containers) -> None:
    one = containers(
        "--health-interval", "50ms", "--health-timeout", "200ms", "--health-retries", "1",
        "--health-cmd", "sleep 77",
    )  # fmt: skip
    is_now(one, "unhealthy")
    log = one.inspect("State.Health.Log")
    assert log[0]["ExitCode"] == -1
    assert "exceeded timeout" in log[0]["Output"]
    one("stop", "-t", "0")


def test_not_while_it_is_paused(containers: Containers) -> None:
    one = containers(*QUICK, "--health-cmd", "true")
    other = containers(*QUICK, "--health-cmd", "true")
    for each in (one, other):
        is_now(each, "healthy")
    one("pause")
    paused = datetime.now(UTC)
    for _ in range(5):  # as often as one would have been made here
        last = begun(other)[-1]
        eventually(lambda last=last: begun(other)[-1] > last, "the other is checked again")  # type: ignore[misc]
    # one that was being made may have been recorded since
    assert [each for each in begun(one) if each > paused] == []
    resumed = datetime.now(UTC)
    one("unpause")
    eventually(lambda: begun(one)[-1] > paused, "checks go on")
    # nor was one begun that froze with the container
    assert [each for each in begun(one) if paused < each < resumed] == []


def begun(one: Container) -> list[datetime]:
    """When the last checks began, the latest last."""
    return [datetime.fromisoformat(check["Start"]) for check in one.inspect("State.Health.Log")]


def test_paused_in_the_midst_of_a_check(containers: Containers) -> None:
    """The check goes on with the container, and was not too slow."""
    one = containers(
        "--health-interval", "10ms", "--health-timeout", "3s", "--health-retries", "1",
        "--health-cmd", "sleep 1",
    )  # fmt: skip
    is_now(one, "healthy")
    eventually(lambda: "sleep 1\n" in one("top"), "another check")
    one("pause")
    # the whole time that a check may take, and is given to one of another container
    other = containers(
        "--health-interval", "10ms", "--health-timeout", "3s", "--health-retries", "1",
        "--health-cmd", "sleep 77", "--stop-signal", "KILL",
    )  # fmt: skip
    is_now(other, "unhealthy")
    before = one.inspect("State.Health.Log")
    one("unpause")

    def since() -> list[dict[str, object]]:
        return [each for each in one.inspect("State.Health.Log") if each not in before]

    # of the others, which were not paused, a busy machine may have made one too slow
    assert eventually(since, "checks go on")[0]["ExitCode"] == 0


@pytest.mark.parametrize("action", ["kill", "stop", "restart"])
def test_what_follows(sysbox: Sysbox, containers: Containers, action: str) -> None:
    command = ("sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.02; done")
    one = containers(
        *QUICK, "--health-cmd", "test ! -e /ill", "--health-on-failure", action, command=command
    )
    is_now(one, "healthy")
    eventually(lambda: "ready" in one("logs"), "its trap is set")
    pid = one.pid
    # not waited for: it may be killed along with the container
    sysbox("exec", "-d", one.id, "touch", "/ill", check=True)
    if action == "restart":
        eventually(lambda: one.pid not in (0, pid), "it was started again")
        one("rm", "-f")
        return
    one.await_state("exited")
    assert one.inspect("State.ExitCode") == {"kill": 137, "stop": 7}[action]


def test_the_image_has_one(sysbox: Sysbox, containers: Containers) -> None:
    change = "HEALTHCHECK --interval=100ms --retries=1 CMD exit 1"
    one = containers("--name", "base")
    sysbox("commit", "-c", change, "base", "checked:test", check=True)
    try:
        checked = containers(image="checked:test")
        is_now(checked, "unhealthy")
        other = containers("--health-cmd", "true", image="checked:test")
        is_now(other, "healthy")
        none = containers("--no-healthcheck", image="checked:test")
        assert none.inspect("State.Health") is None
        for made in (checked, other, none, one):
            made("rm", "-f")
    finally:
        sysbox("rmi", "checked:test", check=True)


def test_nothing_is_left(containers: Containers) -> None:
    one = containers(*QUICK, "--health-cmd", "sleep 0.3")
    eventually(lambda: one.inspect("State.Health.Log") or "sleep 0.3" in one("top"), "a check")
    one("rm", "-f")
    listing = ("list-units", "--all", "--plain", "--no-legend", f"*{one.id}*")
    eventually(lambda: not systemctl(*listing), "no unit of its own")
    assert systemctl("list-timers", "--all", "--plain", "--no-legend", "sysbox*") == ""


def test_the_start_period(containers: Containers) -> None:
    """Failures in it do not count; checks come at their own interval."""
    one = containers(
        "--health-interval", "1h", "--health-start-interval", "50ms", "--health-start-period", "1h",
        "--health-retries", "1", *FILE,
    )  # fmt: skip
    eventually(lambda: len(one.inspect("State.Health.Log")) > 2, "some checks")
    assert one.inspect("State.Health.Status") == "starting"
    one.sh("touch /well")
    is_now(one, "healthy")


def test_one_that_has_to_start_first(containers: Containers) -> None:
    one = containers(
        *QUICK, *FILE, "--health-startup-cmd", "test -e /up", "--health-startup-interval", "50ms",
        "--health-startup-success", "2", "--health-max-log-count", "2", "--health-max-log-size", "3",
    )  # fmt: skip
    eventually(lambda: one.inspect("State.Health.Log"), "a start-up check is made")
    one.sh("touch /well")
    log = len(one.inspect("State.Health.Log"))
    assert (log <= 2, one.inspect("State.Health.Status")) == (True, "starting")
    one.sh("touch /up")
    is_now(one, "healthy")
    eventually(lambda: one.inspect("State.Health.Log")[-1]["Output"] == "fin", "three bytes of it")
    assert one.inspect("Config.StartupHealthCheck.Successes") == 2


def test_one_that_never_starts_is_restarted(containers: Containers) -> None:
    one = containers(
        *QUICK, *FILE, "--health-startup-cmd", "false", "--health-startup-interval", "50ms",
        "--health-startup-retries", "2", "--stop-signal", "KILL",
    )  # fmt: skip
    pid = one.pid
    eventually(lambda: one.inspect("State.Pid") not in (0, pid), "it is restarted")


def test_the_rule_of_a_start() -> None:
    asked = Health(command=("x",), startup_command=("y",), startup_successes=2, startup_retries=3)

    def result(code: int) -> Result:
        return Result(started_ns=1, finished_ns=1, exit_code=code, output="")

    known = State()
    for code, starting, over in (
        (0, True, False),
        (1, True, False),
        (0, True, False),
        (0, False, False),
    ):
        known = health.judge(known, result(code), asked, 0)
        assert (known.status, known.failing_streak) == ("starting", 0)
        assert health.is_starting(known, asked) == starting
        assert health.has_not_started(known, asked) == over
    known = health.judge(known, result(0), asked, 0)
    assert (known.status, known.started) == ("healthy", True)
    known = State()
    for over in (False, False, True):
        known = health.judge(known, result(1), asked, 0)
        assert health.has_not_started(known, asked) == over


def test_the_rule() -> None:
    asked = Health(command=("x",), retries=2, start_period=10_000_000)
    begin = 1_000_000_000

    def result(code: int, after_s: int) -> Result:
        moment = begin + after_s * 1_000_000_000
        return Result(started_ns=moment, finished_ns=moment, exit_code=code, output="")

    known = State()
    for code, after_s, status, streak in (
        (1, 1, "starting", 0), (1, 11, "starting", 1), (1, 12, "unhealthy", 2),
        (0, 13, "healthy", 0), (1, 14, "healthy", 1), (0, 15, "healthy", 0),
    ):  # fmt: skip
        known = health.judge(known, result(code, after_s), asked, begin)
        assert (known.status, known.failing_streak) == (status, streak)
    assert len(known.log) == 5


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--health-interval", "0s", "--health-cmd", "true"), "too short"),
        (("--health-retries", "0", "--health-cmd", "true"), "--health-retries"),
        (("--health-cmd", "true", "--no-healthcheck"), "give one of them"),
        (("--health-cmd", "true", "--health-on-failure", "cry"), "not an action"),
        (("--health-cmd", ""), "empty"),
        (("--health-startup-cmd", "true"), "there is no health check"),
        (("--health-log-destination", "/tmp", "--health-cmd", "true"), "not supported"),
    ],
)
def test_bad_checks(sysbox: Sysbox, image: str, words: tuple[str, ...], reason: str) -> None:
    done = sysbox("run", "-d", *words, image, "true")
    assert done.returncode == 125
    assert reason in done.stderr
