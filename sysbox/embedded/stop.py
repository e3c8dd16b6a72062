"""Stop an embedded host, or clear what a dead one left behind."""

from __future__ import annotations

import os
import signal
import time

from sysbox.base import errors, files
from sysbox.base.wait import ready, until
from sysbox.embedded import cgroups, state
from sysbox.embedded.lock import Lock
from sysbox.embedded.state import Host
from sysbox.host import exists, read_text
from sysbox.netns import leases, shared_rules
from sysbox.netns.shared import SHARED

# systemd(1): "Powers off the machine, starts the poweroff.target unit"
POWER_OFF = signal.SIGRTMIN + 4
STOP_TIMEOUT = 60.0
KILL_TIMEOUT = 10.0
PATIENCE = 0.5
GRACE = 2.0
_STEP = 0.05
# the name of PID 1 once it kills the remaining processes (systemd-shutdown(8))
FINAL = "systemd-shutdow\n"


def stop(name: str, timeout: float = STOP_TIMEOUT) -> None:
    """Stop a host's units in order, then its PID 1; a host that is not up is success.

    A host that has not ended after `timeout` seconds is killed. Raises SysboxError if that fails.
    """
    state.check_name(name)
    with Lock(name):
        host = state.load(name)
        if host is not None and host.alive:
            _end(host, POWER_OFF if host.phase == state.RUNNING else signal.SIGKILL, timeout)
        if clear(name):
            _release_network()


def clear(name: str) -> bool:
    """Kill what is left of a host and remove its cgroups and run directory; its state is kept.

    Returns whether it was the last host on the machine's network.
    """
    host = state.load(name)
    if host is not None and host.alive:
        _end(host, signal.SIGKILL, KILL_TIMEOUT)
    elif host is not None:
        _reap(host.pid)
    cgroups.remove(name)
    if exists(SHARED):
        _leave_network(name)
    last = leases.forget_host(name)
    files.remove_tree(state.run_directory(name))
    return last


def _leave_network(name: str) -> None:
    """Remove the rules and the bridges that are of this host alone: one that was killed has left them."""
    from sysbox.netns import bridges, firewall  # few machines have hosts on their network

    def removed() -> bool:
        try:
            for bridge in bridges.made_by_sysbox() if left else ():
                if bridge.name in left:
                    bridges.remove(bridge.name)
        except errors.Conflict:
            return False  # the kernel removes the links of ended containers only after a while
        return True

    try:
        left = firewall.leave(name)
        until(removed, GRACE, _STEP)
    except errors.SysboxError:
        # ignoring: the next start of a container on a network makes all rules again
        shared_rules.forget(name)


def _release_network() -> None:
    """Remove the embedded hosts' bridges and packet filter rules from the machine's network.

    They stay while a container is on a bridge, and if the machine has containers of its own.
    """
    from sysbox.netns import bridges, firewall  # here: only this needs their packages

    if exists(firewall.MARK):
        return

    def released() -> bool:
        try:
            for bridge in bridges.made_by_sysbox():
                bridges.remove(bridge.name)
            firewall.remove()
            files.unlink(firewall.MARK)
        except errors.Conflict:
            return False  # the kernel removes the links of ended containers only after a while
        except (errors.SysboxError, OSError):
            pass  # ignoring: they do no harm, and the next container uses them as they are
        return True

    until(released, GRACE, _STEP)


def purge(name: str) -> None:
    """Remove the state of a stopped host; the default host's containers are kept."""
    files.remove_tree(state.state_directory(name))
    try:
        os.rmdir(state.STATE)
    except OSError:
        pass  # ignoring: another host has state


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
    """Wait for the host's PID 1; whether it ends in `timeout` seconds.

    The kernel ends a pid namespace only when all its processes have been waited for (pid_namespaces(7)), and
    the parents that wait for joined commands may be stopped: they get SIGCONT.
    """
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        if ready([leader], seconds=min(left, PATIENCE)):
            return True
        if read_text(f"/proc/{host.pid}/comm") == FINAL:
            # all units are stopped; what remains are joined commands that ignore SIGTERM
            deadline = min(deadline, time.monotonic() + GRACE)
        for pid in cgroups.client_pids(host.name):
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass  # ignoring: it has ended
    return False


def _reap(pid: int) -> None:
    """Reap PID 1 if it is this process's child (after a failed boot)."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass
