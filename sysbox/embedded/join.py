"""Join an embedded host's namespaces and cgroups, and continue in a child that is a process of the host.

Hot, as `enter` is. A process cannot change its own pid namespace (setns(2): "only for children"), so the
called process stays outside and waits for the child: it passes signals on and ends as the child ends.
"""

from __future__ import annotations

import _signal
import posix
import sys

from sysbox.base import errors
from sysbox.embedded import caller_root, state
from sysbox.embedded.state import Host
from sysbox.host import exists
from sysbox.linux import _sys, cgroup
from sysbox.linux.namespace import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
)
from sysbox.linux.process import PR_SET_PDEATHSIG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

CGROUPS = "/sys/fs/cgroup"
_PASSED_ON = (
    _signal.SIGTERM,
    _signal.SIGINT,
    _signal.SIGHUP,
    _signal.SIGQUIT,
    _signal.SIGUSR1,
    _signal.SIGUSR2,
    _signal.SIGWINCH,
)
_TERMINAL_STOPS = (_signal.SIGTSTP, _signal.SIGTTIN, _signal.SIGTTOU)
_LONG = 3600.0  # seconds
# si_code of a signal that the terminal sent (sigaction(2)): the whole process group has it
_FROM_KERNEL = 0x80


def call(host: Host, main: Callable[[], int]) -> int:
    """Run `main` in a child process on the host; like fork(2) it returns in two processes.

    In the child it returns (or raises) what `main` does, in the waiting parent the child's exit status.
    """
    group = join(host)
    signals = {*_PASSED_ON, _signal.SIGCHLD}
    before = _signal.pthread_sigmask(_signal.SIG_BLOCK, signals)
    sys.stdout.flush()
    sys.stderr.flush()
    child, pidfd = _sys.clone3(0, group)
    if group >= 0:
        posix.close(group)
    if child == 0:
        _sys.prctl(PR_SET_PDEATHSIG, _signal.SIGKILL)  # a kill -9 of the waiting parent ends both
        _signal.pthread_sigmask(_signal.SIG_SETMASK, before)
        return main()
    posix.close(pidfd)
    try:
        return _wait(child, signals)
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, before)


def join(host: Host) -> int:
    """Join the host's namespaces and cgroups; the pid namespace takes effect for children only.

    Returns an fd of the cgroup in which clone3(2) must make them, or -1: they inherit this process's. The
    working directory is kept if the host has it. Raises SysboxError if the host has just ended.
    """
    directory = _working_directory()
    caller_root.keep(directory, network=host.private_network)
    kinds = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC
    if host.private_network:
        kinds |= CLONE_NEWNET
    try:
        leader = posix.pidfd_open(host.pid)
        try:
            if not host.alive:  # only now: with a pidfd open the pid is not reused unnoticed
                raise ProcessLookupError
            _sys.setns(leader, kinds)
            # before the cgroup namespace: with nsdelegate, cgroup v2 refuses to move a process in from a
            # cgroup that is not visible inside the namespace (cgroup_namespaces(7))
            group = _join_cgroups()
            _sys.setns(leader, CLONE_NEWCGROUP)
        finally:
            posix.close(leader)
    except ProcessLookupError:
        raise errors.SysboxError(
            f"the embedded host '{host.name}' has just ended", hint="run the command again"
        ) from None
    except OSError as error:
        raise errors.KernelError.of("join", f"the embedded host '{host.name}'", error) from None
    try:
        posix.chdir(directory)
    except OSError:
        posix.chdir("/")
    return group


def _working_directory() -> str:
    try:
        return posix.getcwd()
    except OSError:
        return "/"


def _join_cgroups() -> int:
    """Move this process into the host's part of each hierarchy; the result is that of `join`.

    In a v1 hierarchy of controllers that is the host's root cgroup, since systemd removes empty cgroups there
    that it does not know. In systemd's own hierarchy and in the unified one, where a cgroup with children may
    have no processes, it is the cgroup CLIENTS. In a unified one beside v1 only the child is made, by
    clone3(2): a move there would wait for an RCU grace period (see cgroup.enter).
    """
    if exists(f"{CGROUPS}/cgroup.procs"):
        cgroup.enter((_clients(CGROUPS),))
        return -1
    unified, directories = -1, []
    for name in posix.listdir(CGROUPS):
        path = f"{CGROUPS}/{name}"
        if name == "unified":
            flags = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC
            unified = posix.open(_clients(path), flags)
        elif name == "systemd":
            directories.append(_clients(path))
        elif exists(f"{path}/cgroup.procs"):
            directories.append(path)
    cgroup.enter(tuple(directories))
    return unified


def _clients(path: str) -> str:
    """The cgroup of joined commands below `path`, which is made by the first of them."""
    clients = f"{path}/{state.CLIENTS}"
    if not exists(clients):
        try:
            posix.mkdir(clients, 0o755)
        except FileExistsError:
            pass  # another client was first
    return clients


def _wait(child: int, signals: set[int]) -> int:
    while True:
        received: Any = _signal.sigtimedwait(signals, _LONG)
        if received is not None and received.si_signo != _signal.SIGCHLD:
            if received.si_code != _FROM_KERNEL:
                posix.kill(child, received.si_signo)
            continue
        pid, status = posix.waitpid(child, posix.WNOHANG | posix.WUNTRACED)
        if pid == 0:
            continue
        if posix.WIFSTOPPED(status):
            # if the terminal stopped the child, stop too, so that the shell sees its job stopped (SIGCONT
            # will go to the whole group). SIGSTOP may be systemd's at shutdown, before SIGKILL: go on
            if posix.WSTOPSIG(status) in _TERMINAL_STOPS:
                posix.kill(posix.getpid(), _signal.SIGSTOP)
        elif posix.WIFSIGNALED(status):
            return errors.signal_status(posix.WTERMSIG(status))
        else:
            return posix.WEXITSTATUS(status)
