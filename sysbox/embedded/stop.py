"""Stop an embedded host, or clear what a dead one left behind."""

from __future__ import annotations

import os
import select
import signal

from sysbox import errors, files
from sysbox.embedded import cgroups, state
from sysbox.embedded.lock import Lock
from sysbox.embedded.state import Host

POWER_OFF = (
    signal.SIGRTMIN + 4
)  # systemd(1): "Powers off the machine, starts the poweroff.target unit"
STOP_TIMEOUT = 60.0


def stop(name: str, timeout: float = STOP_TIMEOUT) -> bool:
    """Stop everything in order, then its PID 1; False if the host was not up.

    What is still there after `timeout` seconds is killed.
    """
    state.check_name(name)
    with Lock(name):
        host = state.load(name)
        up = host is not None and host.alive
        if host is not None and up:
            _end(host, POWER_OFF if host.phase == state.RUNNING else signal.SIGKILL, timeout)
        clear(name)
    return up


def clear(name: str) -> None:
    """Kill what is left of a host and remove its cgroups and run directory; state is kept."""
    host = state.load(name)
    if host is not None and host.alive:
        _end(host, signal.SIGKILL, 10.0)
    elif host is not None:
        _reap(host.pid)
    cgroups.remove(name)
    files.remove_tree(state.run_directory(name))


def purge(name: str) -> None:
    """Remove the state of a host that is stopped; never that of the default one's containers."""
    files.remove_tree(state.state_directory(name))
    try:
        os.rmdir(state.STATE)
    except OSError:
        pass  # another host's: ignoring


def _end(host: Host, number: int, timeout: float) -> None:
    try:
        leader = os.pidfd_open(host.pid)
    except ProcessLookupError:
        return
    try:
        if not host.alive:
            return
        for send in (number, signal.SIGKILL):
            signal.pidfd_send_signal(leader, send)
            if select.select([leader], [], [], timeout)[0]:
                _reap(host.pid)
                return
        raise errors.SysboxError(
            f"PID 1 of the embedded host '{host.name}' (pid {host.pid}) does not end",
            hint="look at its processes' state: one may hang in the kernel",
        )
    except ProcessLookupError:
        return
    finally:
        os.close(leader)


def _reap(pid: int) -> None:
    """Collect it where it is our own child (a boot that failed)."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass
