"""`stop`, `kill` and `rm` with flags of podman: --cidfile, --ignore, `rm --time`."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from containers import Containers, eventually, popen
from lane import Sysbox

from sysbox.container import store
from sysbox.lifecycle import cidfile
from sysbox.netns.leases import NetworkLock

DEAF = ("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done")


def test_by_file(containers: Containers, sysbox: Sysbox, tmp_path: Path) -> None:
    """As the services that `podman generate systemd` wrote do; the name of --replace may have passed on."""
    file = tmp_path / "id"
    one = containers("--cidfile", str(file), "--init")
    another = containers()
    for verb, status in (("kill", 137), ("stop", 143)):
        assert sysbox(verb, "--cidfile", str(file), check=True).stdout == f"{one.id}\n"
        one.await_state("exited")
        assert one.inspect("State.ExitCode") == status
        one("start")
    done = sysbox("rm", "-f", another.id[:12], "--cidfile", str(file), check=True)
    assert done.stdout == f"{another.id[:12]}\n{one.id}\n"
    assert file.read_text() == one.id  # it belongs to whoever named it


@pytest.mark.parametrize("verb", ["stop", "rm"])
def test_missing_ones_are_ignored(
    verb: str, containers: Containers, sysbox: Sysbox, tmp_path: Path
) -> None:
    gone, file = tmp_path / "gone", tmp_path / "id"
    one = containers("--cidfile", str(file))
    one("rm", "-f")
    for words in (("nosuch",), ("--cidfile", str(file)), ("--cidfile", str(gone))):
        done = sysbox(verb, *words)
        assert (done.returncode, done.stdout) == (1, ""), words
        assert "no such" in done.stderr, words
        done = sysbox(verb, "--ignore", *words)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), words
    done = sysbox(verb, "-i", "nosuch", "no/such")
    assert done.returncode == 0, done.stderr
    assert sysbox(verb, "--ignore").returncode == 1  # but something is to be named


def test_rm_by_force_says_what_is_missing(sysbox: Sysbox, tmp_path: Path) -> None:
    done = sysbox("rm", "-f", "nosuch", "f" * 64, "--cidfile", str(tmp_path / "gone"), check=True)
    assert done.stderr.splitlines() == [
        f"sysbox: --cidfile {tmp_path}/gone: no such file",
        "sysbox: no such container: nosuch",
        f"sysbox: no such container: {'f' * 64}",
    ]
    assert sysbox("rm", "-fi", "nosuch", check=True).stderr == ""


@pytest.mark.parametrize("text", ["", "victim", "a" * 63, "../victim", "a" * 64 + "\nvictim"])
def test_only_an_id_counts(
    text: str, containers: Containers, sysbox: Sysbox, tmp_path: Path
) -> None:
    """A file that became another's, such as /etc/hostname, names no container."""
    victim = containers("--name", "victim")
    file = tmp_path / "id"
    file.write_text(text)
    for verb in (("stop", "-t", "0"), ("kill",), ("rm", "-f", "-i")):
        done = sysbox(*verb, "--cidfile", str(file))
        assert done.returncode == 1, verb
        assert "has no container's id" in done.stderr
    assert victim.inspect("State.Running") is True


SLOW = "trap 'echo bye; sleep 0.3; echo $? >/v/end; exit' TERM; echo ready; while :; do sleep 0.02; done"


@pytest.mark.parametrize("flags", [(), ("--rm",), ("--restart", "always")])
def test_rm_stops_first(
    flags: tuple[str, ...], containers: Containers, sysbox: Sysbox, tmp_path: Path
) -> None:
    """With a time, `rm -f` ends it gracefully."""
    one = containers(*flags, "-v", f"{tmp_path}:/v", command=("sh", "-c", SLOW))
    eventually(lambda: "ready" in one("logs"), "the payload is ready")
    idle = containers()
    idle("kill")
    idle.await_state("exited")
    refused = sysbox("rm", "-t", "20", one.id)
    assert refused.returncode == 1
    assert "need --force" in refused.stderr
    done = sysbox("rm", "-f", "-t", "20", one.id, idle.id, "nosuch", check=True)
    assert done.stdout == f"{one.id}\n{idle.id}\n"
    assert done.stderr == "sysbox: no such container: nosuch\n"
    assert (tmp_path / "end").read_text() == "0\n"
    assert sysbox("ps", "-aq", check=True).stdout == ""


def test_rm_waits_no_longer_than_it_is_told(containers: Containers, sysbox: Sysbox) -> None:
    one = containers("--stop-timeout", "500", command=("sh", "-c", "trap '' TERM; sleep 1000"))
    sysbox(
        "rm", "-f", "--time", "0", one.id, check=True
    )  # which would reach the limit of a command
    assert sysbox("ps", "-aq", check=True).stdout == ""


def test_several_stop_at_the_same_time(containers: Containers, sysbox: Sysbox) -> None:
    """Each has the whole time, and all of them together have no more."""
    seconds = 6
    every = [containers(command=DEAF) for _ in range(4)]
    policed = containers("--restart", "always", "--stop-timeout", str(seconds), command=DEAF)
    gone = containers("--rm")
    for one in (*every, policed):
        eventually(lambda one=one: "ready" in one("logs"), "the payload is ready")  # type: ignore[misc]
    names = [one.id for one in (*every, policed, gone)]
    begun = time.monotonic()
    done = sysbox("stop", "-t", str(seconds), every[0].id[:12], *names, "nosuch")
    took = time.monotonic() - begun
    assert done.returncode == 1
    assert done.stderr.startswith("sysbox: no such container: nosuch\n")
    assert done.stdout.split() == [every[0].id[:12], *names]
    # one after the other it would be five times as long
    assert seconds <= took < 3 * seconds, took
    for one in (*every, policed):
        assert (one.inspect("State.Status"), one.inspect("State.ExitCode")) == ("exited", 137)
    assert sysbox("inspect", gone.id).returncode == 1


def test_what_was_started_again_meanwhile_is_not_killed(
    containers: Containers, sysbox: Sysbox
) -> None:
    """Of the containers that a `stop` waits for, somebody starts one which has ended already."""
    deaf = containers(command=DEAF)
    eventually(lambda: "ready" in deaf("logs"), "the payload is ready")
    quick = containers("--init")
    before = quick.pid
    with popen("stop", "-t", "5", deaf.id, quick.id) as stopping:
        quick.await_state("exited")
        quick("start")
        assert stopping.wait(60) == 0
    assert quick.inspect("State.Running") is True
    assert quick.pid != before


def test_ctrl_c_of_a_stop_leaves_no_mark(containers: Containers, sysbox: Sysbox) -> None:
    """Of none of them, whichever is being waited for: a reboot much later is none of the stop's."""
    both = [containers("--systemd=always", command=DEAF) for _ in range(2)]
    marks = [Path(store.load(one.id).run_directory, "stopped") for one in both]
    for one in both:
        eventually(lambda one=one: "ready" in one("logs"), "the payload is ready")  # type: ignore[misc]
    with popen("stop", "-t", "500", *(one.id for one in both)) as stopping:
        eventually(lambda: all(mark.exists() for mark in marks), "both are asked to stop")
        stopping.send_signal(signal.SIGINT)
        assert stopping.wait(60) == 130
    assert not any(mark.exists() for mark in marks)


def test_a_file_of_one_that_is_gone_is_written_anew(
    containers: Containers, sysbox: Sysbox, image: str, tmp_path: Path
) -> None:
    """A service of podman's does not remove it: it goes with the container there."""
    file = tmp_path / "id"
    run = ("run", "--rm", "--replace", "--name", "again", "--cidfile", str(file), image)
    for _ in range(2):
        assert sysbox(*run, "sh", "-c", "exit 3").returncode == 3
    old = containers("--name", "again", "--cidfile", str(file))
    other = sysbox("run", "--rm", "--cidfile", str(file), image, "true")
    assert other.returncode == 125
    assert "the file exists already" in other.stderr
    assert file.read_text() == old.id
    assert sysbox(*run, "true").returncode == 0  # of the one that is replaced
    assert file.read_text() != old.id
    file.write_text("mine")
    assert sysbox(*run, "true").returncode == 125
    assert file.read_text() == "mine"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_status_says_which_signal_ended_a_start(
    number: signal.Signals, sysbox: Sysbox, image: str
) -> None:
    with NetworkLock():  # which keeps the start from its end; what undoes it needs the lock too
        run = popen("run", "--rm", image, "true")
        eventually(lambda: sysbox("ps", "-aq").stdout, "it is made")
        run.send_signal(number)
    _, error = run.communicate(timeout=60)
    assert (run.returncode, error) == (128 + number, "")


def test_each_has_its_own_time(containers: Containers) -> None:
    """Whatever stands before it on the command line."""
    for_ever = containers("--stop-timeout", "-1", command=DEAF)
    long = containers("--stop-timeout", "500", command=DEAF)
    short = containers("--stop-timeout", "1", command=DEAF)
    for one in (for_ever, long, short):
        eventually(lambda one=one: "ready" in one("logs"), "the payload is ready")  # type: ignore[misc]
    with popen("stop", for_ever.id, long.id, short.id) as stopping:
        try:
            assert stopping.stdout
            assert stopping.stdout.readline() == f"{short.id}\n"
        finally:
            stopping.kill()
    assert short.inspect("State.ExitCode") == 137
    assert long.inspect("State.Running") is True


def test_one_of_a_policy_that_was_started_again_is_not_waited_for(containers: Containers) -> None:
    deaf, policed = containers(command=DEAF), containers("--init", "--restart", "always")
    eventually(lambda: "ready" in deaf("logs"), "the payload is ready")
    began = time.monotonic()
    with popen("stop", "-t", "5", deaf.id, policed.id) as stopping:
        policed.await_state("exited")
        policed("start")
        assert stopping.wait(60) == 0
    # systemd's own time for the service would be over
    assert time.monotonic() - began < 20
    assert policed.inspect("State.Running") is True


@pytest.mark.parametrize("how", ["removed", "renamed"])
def test_rm_takes_no_other_container_of_that_name(
    how: str, containers: Containers, sysbox: Sysbox
) -> None:
    """While `rm -f --time` waits, a name may become another's."""
    told = ("sh", "-c", "trap 'echo asked' TERM; echo ready; while :; do sleep 0.1; done")
    slow = containers("--name", "slow", command=told)
    eventually(lambda: "ready" in slow("logs"), "the payload is ready")
    name = "slow"
    if how == "removed":
        name = "quick"
        quick = containers("--rm", "--init", "--name", name)
    with popen("rm", "-f", "--time", "4", name, slow.id) as removing:
        eventually(lambda: "asked" in slow("logs"), "it is asked to stop")
        if how == "removed":
            eventually(lambda: sysbox("inspect", quick.id).returncode == 1, "it is removed")
        else:
            sysbox("rename", "slow", "old", check=True)
        other = containers("--name", name)
        assert removing.wait(60) == 0
    assert other.inspect("State.Running") is True
    assert sysbox("inspect", slow.id).returncode == 1


def test_two_commands_want_one_file(
    containers: Containers, sysbox: Sysbox, image: str, tmp_path: Path
) -> None:
    """One of them gets it, also where it is that of a container which is gone."""
    file = tmp_path / "id"
    for number in range(6):
        file.write_text(f"{number}" * 64)
        both = [popen("create", "--cidfile", str(file), image, "true") for _ in range(2)]
        ended = sorted((one.wait(60), one.communicate()[0].strip()) for one in both)
        assert [status for status, _ in ended] == [0, 125]
        assert file.read_text() == ended[0][1]
        sysbox("rm", ended[0][1], check=True)


def test_only_the_own_file_is_removed(tmp_path: Path) -> None:
    """A start that failed had the file; by now it may be another's."""
    file = tmp_path / "id"
    file.write_text("b" * 64)
    cidfile.remove(str(file), "a" * 64)
    assert file.exists()
    cidfile.remove(str(file), "b" * 64)
    assert not file.exists()
