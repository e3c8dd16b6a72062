"""The back-off of a restart policy: it grows, a start by hand ends it, and systemd allows for it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from containers import PATIENCE, Container, Containers, eventually, popen, systemctl
from lane import Sysbox

from sysbox.container import store
from sysbox.container.locks import Lock
from sysbox.container.records import Final
from sysbox.run import backoff


def service(one: Container) -> str:
    return f"sysbox-{one.id}.service"


def quick_ends(one: Container) -> int:
    """How many runs in a row have ended quickly."""
    final = store.final(one.id)
    assert final is not None
    return final.quick_ends


@contextmanager
def drop_in(one: Container, setting: str) -> Iterator[None]:
    """With one more setting of its service."""
    path = Path(f"/run/systemd/system/{service(one)}.d/test.conf")
    path.parent.mkdir()
    path.write_text(f"[Service]\n{setting}\n")
    try:
        systemctl("daemon-reload")
        yield
    finally:
        path.unlink()
        path.parent.rmdir()
        systemctl("daemon-reload")


def has_it_wait(one: Container, ends: int) -> None:
    """Kill it, as if that many runs had ended quickly before."""
    before = Final(exit_code=1, started_ns=1, finished_ns=2, quick_ends=ends)
    with Lock(one.id):
        store.write_final(store.load(one.id), before)
    os.kill(one.pid, signal.SIGKILL)

    def waits() -> bool:
        run = store.runtime(one.id)
        return run is not None and run.restarting and run.supervised()

    eventually(waits, "it waits")


def test_the_back_off_grows(containers: Containers) -> None:
    """Seen as a state, and ended by a stop."""
    one = containers("--restart", "always", command=("false",))
    eventually(lambda: one.inspect("State.Restarting"), "it waits")
    eventually(lambda: one.inspect("RestartCount") > 3, "some restarts")
    one("stop")
    assert one.inspect("State.Status") == "exited"
    waits = [
        backoff.back_off(Final(exit_code=1, started_ns=1, finished_ns=2, quick_ends=n))
        for n in range(1, 20)
    ]
    assert waits == sorted(waits)
    assert waits[0] == 0
    assert waits[-1] < backoff.back_off(None) + 60


def test_a_start_by_hand_begins_the_back_off_anew(containers: Containers) -> None:
    """Where the policy has given up, too: the next run is the first in a row, and not the fourth."""
    one = containers("--restart", "on-failure:2", command=("false",))
    given_up = "the policy has given up"
    eventually(
        lambda: not one.inspect("State.Restarting") and one.inspect("RestartCount") == 2, given_up
    )
    one.await_state("exited")
    eventually(lambda: systemctl("is-active", service(one), check=False) != "activating", "the end")
    assert quick_ends(one) == 3
    with drop_in(one, "Restart=no"):
        one("start")
        one.await_state("exited")
    assert quick_ends(one) == 1


def test_systemd_allows_for_the_wait(containers: Containers) -> None:
    """Where TimeoutStartSec= is shorter, as by default on some hosts: each start failed by it, for ever."""
    one = containers("--restart", "always")
    with drop_in(one, "TimeoutStartSec=1s"):
        has_it_wait(one, 5)
        status = systemctl("show", "-P", "StatusText", service(one))
        assert status == "waiting 3.1 s before the next start"
        one.await_state("running")
        assert systemctl("show", "-P", "Result", service(one)) == "success"
        assert one.inspect("RestartCount") == 1


def test_a_start_by_hand_ends_the_wait(containers: Containers) -> None:
    one = containers("--restart", "always")
    has_it_wait(one, 20)
    started = popen("start", one.id)
    assert started.wait(PATIENCE) == 0
    assert one.inspect("State.Running")
    one("stop")
    assert one.inspect("State.ExitCode") in (137, 143)


def test_several_start_it_at_once(containers: Containers) -> None:
    """Each hears the answer: one that did not waited until it saw the container between two waits."""
    one = containers("--restart", "always", command=("false",))
    one("stop")
    with drop_in(one, "ExecStartPre=/bin/sleep 1"):
        clients = [popen("start", one.id) for _ in range(3)]
        answers = [
            (client.communicate(timeout=PATIENCE)[1], client.returncode) for client in clients
        ]
        assert answers == [("", 0)] * 3
        one("stop")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_attach_while_nothing_runs(
    containers: Containers, number: signal.Signals
) -> None:
    """There is no process to pass it on to; the container is started again all the same."""
    one = containers(
        "--restart", "always", command=("sh", "-c", "while :; do echo again; sleep 0.1; done")
    )
    attached = popen("attach", one.id)
    assert attached.stdout is not None
    attached.stdout.readline()  # it is attached
    has_it_wait(one, 20)

    def left() -> bool:
        attached.send_signal(number)
        return attached.poll() is not None

    eventually(left, "it has left")
    assert attached.returncode == 0
    assert "detached" in attached.communicate()[1]
    assert one.inspect("State.Restarting")
    one("start")
    assert one.inspect("State.Running")


def test_one_that_is_started_again_is_not_removed(sysbox: Sysbox, containers: Containers) -> None:
    """Not either in the moments when its end is recorded, and when systemd waits before it starts it."""
    one = containers("--restart", "always", command=("false",))
    eventually(lambda: one.inspect("State.Restarting"), "it restarts")
    for _ in range(20):
        refused = sysbox("rm", one.id)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr.splitlines()[0].endswith((" is restarting", " is running"))
    one("start")
    for _ in range(20):
        assert sysbox("rm", one.id).returncode == 1
    with drop_in(one, "RestartSec=1h"):
        eventually(
            lambda: systemctl("show", "-P", "SubState", service(one)) == "auto-restart", "it waits"
        )
        assert sysbox("rm", one.id, timeout=PATIENCE).returncode == 1


@pytest.mark.parametrize("policy", ["no", "always"])
def test_a_stop_before_the_start_has_begun(containers: Containers, policy: str) -> None:
    """It holds, and who waits for the start hears of it."""
    one = containers("--restart", policy)
    one("stop")
    with drop_in(one, "ExecStartPre=/bin/sleep 5"):
        client = popen("start", one.id)
        eventually(
            lambda: systemctl("is-active", service(one), check=False) == "activating", "it starts"
        )
        one("stop")
        assert "its service was stopped while it started" in client.communicate(timeout=PATIENCE)[1]
    assert client.returncode == 1
    assert one.inspect("State.Status") == "exited"


def test_a_service_that_fails_before_it_begins(containers: Containers) -> None:
    """systemd tries it again, and `start` does not wait for the end of that."""
    one = containers("--restart", "always")
    one("stop")
    with drop_in(one, "ExecStartPre=/bin/false\nRestartSec=1h"):
        client = popen("start", one.id)
        client.communicate(timeout=PATIENCE)
        assert client.returncode == 1
        assert systemctl("show", "-P", "SubState", service(one)) == "auto-restart"
        one("stop")
