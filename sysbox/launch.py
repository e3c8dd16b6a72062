"""The parent's side of a start: fork a child that parks, talk to it, know when its command runs."""

from __future__ import annotations

import _signal
import posix

from sysbox import child
from sysbox.channel import CONSOLE, PROCEED, UNSHARED, Channel
from sysbox.errors import KernelError, SpecError, StartError
from sysbox.linux import _sys, namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from sysbox.child import Inherited
    from sysbox.errors import StartError


class Parked:
    """A child that waits to be let go, or leaves when this process does."""

    def __init__(self, pid: int, pidfd: int, channel: Channel) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self._channel = channel

    def await_namespaces(self) -> None:
        """Wait for #1. Raises StartError."""
        self._channel.receive(UNSHARED)  # 1

    def proceed(self, address: str) -> None:
        """Let it go on: its scope is active, its links are there."""
        self._channel.send(PROCEED, {"address": address})  # 2

    def await_console(self) -> int:
        """Wait for #3: the master of the container's terminal."""
        return self._channel.receive(CONSOLE)[1]  # 3

    def await_exec(self) -> None:
        """Wait for #4: its command runs. Raises StartError."""
        try:
            self._channel.receive(b"")  # 4
        finally:
            self._channel.close()

    def reported(self) -> StartError | None:
        """Why the child gave up, if it has said so and nobody has listened yet."""
        return self._channel.last_word()

    def destroy(self) -> None:
        """Kill and reap it; a child that is gone already is fine."""
        self._channel.close()
        try:
            _signal.pidfd_send_signal(self.pidfd, _signal.SIGKILL)
        except ProcessLookupError:
            pass
        try:
            posix.waitpid(self.pid, 0)
        except ChildProcessError:
            pass


def park(inherited: Inherited) -> Parked:
    """Fork the child; it begins to make its namespaces and its root at once.

    Raises KernelError, SpecError for a namespace that cannot be joined.
    """
    plan = inherited.plan.namespaces
    fds = [(kind, _open_namespace(kind, path)) for kind, path in plan.joined]
    inside = [fd for kind, fd in fds if kind == "pid"]
    others = [pair for pair in fds if pair[0] != "pid"]
    try:
        return fork(
            lambda channel: child.main(inherited, channel, others),
            namespace.CLONE_NEWPID if plan.new_pid else 0,
            inside[0] if inside else -1,
        )
    finally:
        for _, fd in fds:
            posix.close(fd)


def fork(
    run: Callable[[Channel], NoReturn], flags: int = 0, pid_namespace: int = -1, cgroup: int = -1
) -> Parked:
    """Fork a child that runs `run` with its end of a channel, in another pid namespace and in another
    cgroup (v2) if their fds are given.

    Raises KernelError.
    """
    ours, theirs = Channel.pair()
    own = -1
    try:
        if pid_namespace >= 0:
            # a pid namespace is entered by the children of whoever joins it, never by itself
            own = posix.open("/proc/self/ns/pid", posix.O_RDONLY | posix.O_CLOEXEC)
            _sys.setns(pid_namespace, namespace.CLONE_NEWPID)
        pid, pidfd = _sys.clone3(flags, cgroup)
        if pid == 0:
            ours.close()
            run(theirs)
    except OSError as error:
        ours.close()
        raise KernelError.of("fork the container's process", "", error) from None
    finally:
        if own >= 0:
            _sys.setns(own, namespace.CLONE_NEWPID)
            posix.close(own)
        theirs.close()
    return Parked(pid, pidfd, ours)


def _open_namespace(kind: str, path: str) -> int:
    try:
        return posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError as error:
        raise SpecError(f"cannot join the {kind} namespace {path}: {error.strerror}") from None
