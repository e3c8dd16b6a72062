"""A container whose supervisor cannot look after it: it is ended and recorded there and then."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from containers import Containers, eventually, systemctl
from faults import calls_between, injection, settled, traced, unclean
from lane import SYSBOX, Sysbox
from test_faults import NEVER_FAIL, RUN, nothing_more

from sysbox.base import paths

FIRST, LAST = "MESSAGE=container start", "setitimer("


def unattended(file: Path, *words: str) -> Iterator[tuple[str, subprocess.CompletedProcess[str]]]:
    """Have each call fail between the start of what a command starts and its wait for that.

    It must not sleep in steps until it has said itself how that ended. A run may make fewer calls before
    than the first one did, as where nothing of an earlier run is awaited: then a later one failed, which is
    left out.
    """
    for _ in range(2):  # the first fills caches, and so makes calls of its own
        whole = traced(["-o", str(file)], *words)
        assert whole.returncode == 0, whole.stderr
    window = calls_between(file, FIRST, LAST)
    met = 0
    for kind, number in window:
        if kind in NEVER_FAIL:
            continue
        trace = injection(kind, "EIO", number)
        trace[1:4] = [str(file), "-e", f"trace={kind},clock_nanosleep,%network,setitimer"]
        done = traced(trace, *words)
        where = f"EIO from {kind} number {number}: {done.stderr.strip()}"
        assert unclean(done, payload=True) == "", where
        said = file.read_text(errors="replace")
        assert said.count("clock_nanosleep(") < 100, where
        before = said.partition("(INJECTED)")[0]
        if FIRST in before and LAST not in before.partition(FIRST)[2]:
            met += 1
            yield where, done
    assert met > len(window) / 2, f"{met} of {len(window)}"


def test_who_cannot_attend_to_it_gives_it_up(sysbox: Sysbox, image: str, tmp_path: Path) -> None:
    """At once, whichever call fails: it is a child of the command, which nobody else reaps."""
    failed = 0
    for where, done in unattended(tmp_path / "calls", *RUN, image, "true"):
        failed += done.returncode == 125
        assert sysbox("ps", "-aq").stdout == "", where
    assert failed
    nothing_more(sysbox)


def test_what_nobody_attends_to_has_ended(
    containers: Containers, sysbox: Sysbox, tmp_path: Path
) -> None:
    """One that was there before stays, with its end and the reason."""
    one = containers(command=("sleep", "0.1"))
    one.await_state("exited")
    failed = 0
    for where, done in unattended(tmp_path / "calls", "start", "-a", one.id):
        ended = one.inspect("State")
        assert (ended["Status"], ended["Pid"]) == ("exited", 0), where
        assert bool(ended["Error"]) == (done.returncode == 1), where
        failed += done.returncode == 1
    assert failed
    assert settled(sysbox) == []


def test_a_supervisor_that_fails_gives_it_up(containers: Containers, sysbox: Sysbox) -> None:
    """Of one in the background: its user is told, and so is who asks later."""
    one = containers("--restart", "always", verb=("create",))
    stopper = Path(f"/run/systemd/system/sysbox-stop-{one.id}.service")
    stopper.symlink_to("/dev/null")
    try:
        done = sysbox("start", one.id)
    finally:
        stopper.unlink()
        systemctl("daemon-reload")
    assert (done.returncode, stopper.name in done.stderr) == (1, True), done.stderr
    assert one.inspect("State.Running") is False
    assert stopper.name in one.inspect("State.Error")


def test_a_supervisor_that_cannot_become_the_monitor_gives_it_up(containers: Containers) -> None:
    """Its user was told that it runs; who asks later is told why it does not any more."""
    one = containers("--restart", "on-failure:1", verb=("create",))
    unit = f"sysbox-{one.id}.service"
    strace = f"/usr/bin/strace -D -o /dev/null -P {paths.LIBEXEC}/sysbox-monitor -e inject=execve:error=EIO"
    drop_in = Path(f"/run/systemd/system/{unit}.d/strace.conf")
    drop_in.parent.mkdir()
    drop_in.write_text(
        f"[Service]\nExecStart=\nExecStart={strace} {SYSBOX} _supervise {one.id}\n",
        encoding="ascii",
    )
    try:
        systemctl("daemon-reload")
        one("start")
        one.await_state("exited")
        eventually(lambda: one.inspect("RestartCount") == 1, "it is started once more")
        one.await_state("exited")
    finally:
        shutil.rmtree(drop_in.parent)
        systemctl("daemon-reload")
    assert one.inspect("State.ExitCode") == 137
    assert "sysbox-monitor: Input/output error" in one.inspect("State.Error")
