"""Restart policies: systemd starts a container again, at boot too, and a stop is a stop whoever asks."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from pathlib import Path

import pytest
from containers import Container, Containers, eventually, popen, systemctl
from lane import SLOWNESS, Sysbox

from sysbox.base import paths
from sysbox.units import serviceplan

POLITE = ("sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.02; done")
UNITS = Path("/etc/systemd/system")
FILES = Path(serviceplan.DIRECTORY)


def service(one: Container) -> str:
    return f"sysbox-{one.id}.service"


def link(one: Container) -> Path:
    return UNITS / "multi-user.target.wants" / service(one)


def ready(one: Container) -> Container:
    eventually(lambda: "ready" in one("logs"), "the payload is ready")
    return one


def started_again(one: Container, pid: int) -> None:
    eventually(
        lambda: one.inspect("State.Running") and one.pid not in (0, pid), "it was started again"
    )


def test_killed_and_started_again(containers: Containers) -> None:
    one = ready(containers("--restart", "always", command=POLITE))
    pid = one.pid
    os.kill(pid, signal.SIGKILL)
    started_again(one, pid)
    eventually(lambda: one.inspect("RestartCount") == 1, "the restart is counted")
    # docker's meaning: that of the last run
    assert one.inspect("State.FinishedAt") == one.inspect("Sysbox.End.FinishedAt")
    assert one.inspect("HostConfig.RestartPolicy.Name") == "always"


def test_its_monitor_killed_and_started_again(containers: Containers) -> None:
    one = ready(containers("--restart", "on-failure", command=POLITE))
    pid = one.pid
    os.kill(int(systemctl("show", "-P", "MainPID", service(one))), signal.SIGKILL)
    started_again(one, pid)


def test_what_was_tuned_outlives_a_crash(containers: Containers) -> None:
    one = ready(containers("--restart", "always", command=POLITE))
    pid = one.pid
    systemctl("set-property", one.scope, "TasksMax=77")
    os.kill(pid, signal.SIGKILL)
    started_again(one, pid)
    assert systemctl("show", "-P", "TasksMax", one.scope) == "77"


@pytest.mark.parametrize("how", ["stop", "scope", "service", "kill"])
def test_a_stop_is_a_stop(sysbox: Sysbox, containers: Containers, how: str) -> None:
    one = ready(containers("--restart", "always", command=POLITE))
    if how in ("stop", "kill"):
        one(how)
    else:
        systemctl("stop", one.scope if how == "scope" else service(one))
    one.await_state("exited")
    assert one.inspect("State.ExitCode") == (137 if how == "kill" else 7)
    eventually(lambda: systemctl("is-active", service(one), check=False) == "inactive", "stopped")
    eventually(lambda: systemctl("is-active", one.scope, check=False) == "inactive", "its scope")
    one("start")
    assert one.inspect("RestartCount") == 0


def test_on_failure_gives_up(containers: Containers) -> None:
    one = containers("--restart", "on-failure:2", command=("sh", "-c", "echo again; exit 3"))
    eventually(lambda: systemctl("is-failed", service(one), check=False) == "failed", "gave up")
    one.await_state("exited")
    assert one("logs").count("again") == 3
    assert one.inspect("RestartCount") == 2
    assert one.inspect("State.ExitCode") == 3
    # a start by its user counts anew
    one("start")
    eventually(lambda: one("logs").count("again") == 6, "three more runs")


def test_on_failure_is_content_with_success(containers: Containers) -> None:
    one = containers("--restart", "on-failure", command=("true",))
    one.await_state("exited")
    eventually(lambda: systemctl("is-active", service(one), check=False) == "inactive", "the end")
    assert one.inspect("RestartCount") == 0


def test_one_that_cannot_start_is_not_tried_again(sysbox: Sysbox, image: str) -> None:
    assert (
        sysbox("run", "-d", "--restart", "always", "--name", "broken", image, "nosuch").returncode
        == 127
    )
    assert not [name for name in os.listdir(FILES) if name.startswith("sysbox-")]


def test_wanted_at_boot(sysbox: Sysbox, containers: Containers) -> None:
    """always: ever; unless-stopped: until it is stopped; on-failure: not."""
    always, unless, failure = (
        ready(containers("--restart", policy, command=POLITE))
        for policy in ("always", "unless-stopped", "on-failure")
    )
    assert [link(one).is_symlink() for one in (always, unless, failure)] == [True, True, False]
    for one in (always, unless, failure):
        one("stop")
    assert [link(one).is_symlink() for one in (always, unless, failure)] == [True, False, False]
    unless("start")
    assert link(unless).is_symlink()
    assert systemctl("is-enabled", service(unless)) == "enabled"


def test_brought_back_at_boot(containers: Containers, sysbox: Sysbox) -> None:
    """On a host that kept its state and not its /etc, as an embedded one does."""
    up, down = (ready(containers("--restart", "unless-stopped", command=POLITE)) for _ in range(2))
    down("stop")
    systemctl("stop", service(up))  # as at shutdown
    for one in (up, down):
        link(one).unlink(missing_ok=True)
        (FILES / service(one)).unlink()
    sysbox("_boot", check=True)
    up.await_state("running")
    assert down.inspect("State.Status") == "exited"
    assert (link(up).is_symlink(), link(down).is_symlink()) == (True, False)


@pytest.fixture
def joined(containers: Containers) -> tuple[Container, Container]:
    """One, and one in its namespaces: both come back at boot."""
    net = ready(containers("--restart", "always", command=POLITE))
    shared = (f"--network=container:{net.id}", f"--pid=container:{net.id}")
    return net, ready(containers("--restart", "always", *shared, command=POLITE))


def end_as_at_shutdown(*those: Container) -> None:
    systemctl("stop", *(service(one) for one in those))
    for one in those:
        one.await_state("exited")


def test_what_joins_another_is_started_after_it(joined: tuple[Container, Container]) -> None:
    """In one transaction, as that of the boot is, wherever it is named in it."""
    net, child = joined
    end_as_at_shutdown(child, net)
    wanted = f"--property=Wants={service(child)} {service(net)}"
    after = wanted.replace("Wants=", "After=")
    command = ("systemd-run", "--quiet", "--wait", "--collect", wanted, after, "true")
    subprocess.run(command, check=True, timeout=60 * SLOWNESS)
    for one in joined:
        assert one.inspect("State.Running")
    assert child.namespace("net") == net.namespace("net")


def test_what_joins_another_is_brought_back_after_it(
    joined: tuple[Container, Container], sysbox: Sysbox
) -> None:
    """On a host that kept its state and not its /etc."""
    end_as_at_shutdown(*reversed(joined))
    for one in joined:
        link(one).unlink()
        (FILES / service(one)).unlink()
    systemctl("daemon-reload")
    sysbox("_boot", check=True)
    for one in joined:
        one.await_state("running")


def test_why_what_joins_another_is_not_started(joined: tuple[Container, Container]) -> None:
    """In its record and its journal; a stop of the other is a stop all the same."""
    net, child = joined
    end_as_at_shutdown(child, net)
    systemctl("start", service(child), check=False)
    reason = "whose namespace it shares, is not running"
    assert reason in child.inspect("State.Error")
    assert child.inspect("State.Status") == "exited"
    assert (child.inspect("Sysbox.End.Phase"), child.inspect("Sysbox.End.How")) == (
        "plan",
        "exited",
    )
    assert reason in child.inspect("Sysbox.End.Error")
    told = ("journalctl", "-q", "-o", "cat", "-u", service(child))

    def in_the_journal() -> bool:
        return reason in subprocess.run(told, capture_output=True, text=True, check=True).stdout

    eventually(in_the_journal, "its journal has the reason")
    assert net.inspect("State.Status") == "exited"
    net("start")
    child("start")
    assert child.inspect("State.Error") == ""


def test_a_policy_is_changed(sysbox: Sysbox, containers: Containers) -> None:
    """At once, of a container with one and of one without."""
    one, other = ready(containers("--restart", "always", command=POLITE)), containers()
    sysbox("update", "--restart", "no", one.id, check=True)
    os.kill(one.pid, signal.SIGKILL)
    one.await_state("exited")
    eventually(lambda: systemctl("is-active", service(one), check=False) == "failed", "not again")
    assert not link(one).is_symlink()
    sysbox("update", "--restart", "unless-stopped", other.id, check=True)
    assert other.inspect("HostConfig.RestartPolicy.Name") == "unless-stopped"
    pid = other.pid
    os.kill(pid, signal.SIGKILL)
    started_again(other, pid)
    other("restart", "-t", "0")
    assert systemctl("is-enabled", service(other)) == "enabled"
    assert sysbox("update", "--restart", "often", one.id).returncode == 1


def test_a_first_policy_acts_at_once_and_a_stop_is_still_graceful(
    sysbox: Sysbox, containers: Containers
) -> None:
    one = ready(containers(command=POLITE))
    told = sysbox("update", "--restart", "on-failure:2", one.id, check=True)
    assert told.stderr == ""
    shown = systemctl("show", "-P", "Restart", "-P", "StartLimitBurst", service(one)).split()
    assert sorted(shown) == ["3", "on-failure"]
    systemctl("stop", one.scope)
    one.await_state("exited")
    assert one.inspect("State.ExitCode") == 7
    one("start")
    assert systemctl("show", "-P", "FragmentPath", service(one)) == str(FILES / service(one))


def test_a_policy_for_one_in_the_foreground_waits_and_says_so(sysbox: Sysbox, image: str) -> None:
    held = popen("run", "--rm=false", "-i", "--name", "held", image, "cat", stdin=subprocess.PIPE)
    eventually(
        lambda: sysbox("inspect", "-f", "{{.State.Running}}", "held").stdout == "true\n", "up"
    )
    told = sysbox("update", "--restart", "always", "held", check=True)
    assert told.stderr == "sysbox: held: --restart acts from the next start on\n"
    held.communicate()
    sysbox("rm", "-f", "held", check=True)


def test_between_an_end_and_the_next_start(containers: Containers) -> None:
    """It is restarting all the time: while its end is recorded, while systemd waits, while it is started."""
    one = containers("--restart", "always", command=("sh", "-c", "sleep 0.1; exit 3"))
    seen = set()

    def look() -> bool:
        seen.add(one.inspect("State.Status"))
        return bool(one.inspect("RestartCount") > 2)

    eventually(look, "three restarts")
    assert seen <= {"running", "restarting"}
    one("stop")
    assert one.inspect("State.Status") == "exited"


@pytest.mark.parametrize("said", ["disable", "mask"])
def test_what_an_administrator_says_of_the_boot_holds(
    containers: Containers, sysbox: Sysbox, said: str
) -> None:
    one = ready(containers("--restart", "always", command=POLITE))
    assert one.inspect("Sysbox.AtBoot") == "enabled"
    systemctl(said, service(one))
    word = {"disable": "disabled", "mask": "masked"}[said]
    assert one.inspect("Sysbox.AtBoot") == word
    # a stop and a start of its user's change nothing about that
    one("stop")
    if said == "mask":
        refused = sysbox("start", one.id)
        assert f"{service(one)} is masked" in refused.stderr
    else:
        one("start")
        assert not link(one).is_symlink()
        one("stop")
    # the next boot, on a host that keeps its state and not its /etc
    sysbox("_halt", check=True)
    for path in (link(one), FILES / service(one), UNITS / service(one)):
        path.unlink(missing_ok=True)
    systemctl("daemon-reload")
    sysbox("_boot", check=True)
    assert one.inspect("State.Status") == "exited"
    assert one.inspect("Sysbox.AtBoot") == word
    systemctl({"disable": "enable", "mask": "unmask"}[said], service(one))
    one("start")
    assert one.inspect("Sysbox.AtBoot") == "enabled"


def test_a_start_that_waits_for_the_stopper(sysbox: Sysbox, containers: Containers) -> None:
    """The stopper of the last run keeps the scope's name, and the start that waits for it holds the lock."""
    one = containers("--restart", "always", "--stop-signal", "KILL")
    one("stop")
    lock = os.open(f"{paths.CONTAINERS}/{one.id}/lock", os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert sysbox("_stop", one.id, timeout=20).returncode == 0
    finally:
        os.close(lock)


def test_a_first_policy_of_one_that_runs(sysbox: Sysbox, containers: Containers) -> None:
    """systemd may still have the transient service of the run before, and would start that."""
    for number in range(3):
        one = containers()
        sysbox("update", "--restart", "always", one.id, check=True)
        if number == 0:
            # wanted at boot from here on
            systemctl("daemon-reload")
        one("restart", "-t", "0")
        assert systemctl("show", "-P", "Restart", service(one)) == "always"
        assert link(one).is_symlink()


def test_removed_as_it_ends(sysbox: Sysbox, containers: Containers) -> None:
    """Between two runs, when nothing of it is there: its service goes too, and is not started without end."""
    patterns = []
    for _ in range(4):
        one = containers("--restart", "always")
        os.kill(one.pid, signal.SIGKILL)
        sysbox("rm", "-f", one.id, check=True)
        patterns.append(f"*{one.id}*")
    listing = ("list-units", "--all", "--plain", "--no-legend", *patterns)
    eventually(lambda: not systemctl(*listing), "no unit of theirs")


def test_removed_with_the_container(sysbox: Sysbox, containers: Containers) -> None:
    one = ready(containers("--restart", "always", command=POLITE))
    assert sysbox("rm", one.id).returncode == 1
    one("rm", "-f")
    assert not link(one).is_symlink()
    assert not (FILES / service(one)).exists()
    listing = ("list-units", "--all", "--plain", "--no-legend", f"*{one.id}*")
    eventually(lambda: not systemctl(*listing), "no unit of its own")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--restart", "sometimes"), "not a restart policy"),
        (("--restart", "always:3"), "only on-failure"),
        (("--restart", "always", "--rm"), "--rm"),
    ],
)
def test_bad_policies(sysbox: Sysbox, image: str, words: tuple[str, ...], reason: str) -> None:
    done = sysbox("run", "-d", *words, image, "true")
    assert done.returncode == 125
    assert reason in done.stderr


def test_of_one_with_rm(sysbox: Sysbox, containers: Containers) -> None:
    """As docker: a restart is no end that removes it; what it has written stays. The next stop removes it."""
    one = containers("--rm", "--name", "kept")
    one.sh("echo written > /file")
    pid = one.pid
    one("restart", "-t", "0")
    assert (one.inspect("State.Status"), one.sh("cat /file")) == ("running", "written")
    assert one.pid != pid
    assert sysbox("gc", check=True).stdout == ""
    one("stop", "-t", "0")
    eventually(lambda: sysbox("inspect", one.id).returncode == 1, "it is removed")


def test_of_one_with_rm_that_cannot_start(
    sysbox: Sysbox, containers: Containers, tmp_path: Path
) -> None:
    """It is removed, as after any end."""
    (tmp_path / "there").mkdir()
    one = containers("--rm", "--mount", f"type=bind,src={tmp_path}/there,dst=/there")
    (tmp_path / "there").rmdir()
    assert sysbox("restart", "-t", "0", one.id).returncode == 1
    assert sysbox("inspect", one.id).returncode == 1
    assert sysbox("gc", check=True).stdout == ""
