"""Stop an embedded host, or clear what a dead one left behind."""

from __future__ import annotations

import os
import select
import signal
import time

from sysbox.base import errors, files
from sysbox.base.wait import until
from sysbox.embedded import cgroups, state
from sysbox.embedded.lock import Lock
from sysbox.embedded.state import Host
from sysbox.host import exists, read_text
from sysbox.netns import leases

POWER_OFF = (
    signal.SIGRTMIN + 4
)  # systemd(1): "Powers off the machine, starts the poweroff.target unit"
STOP_TIMEOUT = 60.0
KILL_TIMEOUT = 10.0
PATIENCE = 0.5
GRACE = 2.0
_STEP = 0.05
FINAL = (
    "systemd-shutdow\n"  # what PID 1 has become when it kills what is left (systemd-shutdown(8))
)


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
        if clear(name):
            _release_network()
    return up


def clear(name: str) -> bool:
    """Kill what is left of a host and remove its cgroups and run directory; state is kept.

    Whether it was the last one on the machine's network.
    """
    host = state.load(name)
    if host is not None and host.alive:
        _end(host, signal.SIGKILL, KILL_TIMEOUT)
    elif host is not None:
        _reap(host.pid)
    cgroups.remove(name)
    last = leases.forget_host(name)
    files.remove_tree(state.run_directory(name))
    return last


def _release_network() -> None:
    """Remove the bridges and the rules of all embedded hosts from the machine's network.

    They stay while a container is on a bridge, and where the machine has containers of its own.
    """
    from sysbox.netns import bridges, firewall  # packages that only this takes

    if exists(firewall.MARK):
        return

    def released() -> bool:
        try:
            for bridge in bridges.made_by_sysbox():
                bridges.remove(bridge.name)
            firewall.remove()
            files.unlink(firewall.MARK)
        except errors.Conflict:
            return False  # the kernel takes the links of containers that have ended away at leisure
        except (errors.SysboxError, OSError):
            pass  # ignoring: they do no harm, and the next container takes them as they are
        return True

    until(released, GRACE, _STEP)


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
        for send, patience in ((number, timeout), (signal.SIGKILL, KILL_TIMEOUT)):
            signal.pidfd_send_signal(leader, send)
            if _ended(host, leader, patience):
                _reap(host.pid)
                return
    except ProcessLookupError:
        return
    finally:
        os.close(leader)
    raise errors.SysboxError(
        f"PID 1 of the embedded host '{host.name}' (pid {host.pid}) does not end",
        hint="a process that entered it from the machine (nsenter) must end, or be continued, first",
    )


def _ended(host: Host, leader: int, timeout: float) -> bool:
    """Whether it ends in time.

    The kernel ends a pid namespace only when all in it have been waited for (pid_namespaces(7)), and
    those that wait for our clients' commands may be stopped themselves: they are continued.
    """
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        if select.select([leader], [], [], min(left, PATIENCE))[0]:
            return True
        if read_text(f"/proc/{host.pid}/comm") == FINAL:
            # all units are stopped; left are clients that heed no SIGTERM
            deadline = min(deadline, time.monotonic() + GRACE)
        for pid in cgroups.client_pids(host.name):
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass  # it has ended: ignoring
    return False


def _reap(pid: int) -> None:
    """Collect it where it is our own child (a boot that failed)."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass
