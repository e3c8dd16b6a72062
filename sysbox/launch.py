"""The parent's side of a start: fork a child that parks, talk to it, know when its command runs."""

from __future__ import annotations

import _signal
import errno
import fcntl
import posix

from sysbox import child
from sysbox.channel import BORN, CONSOLE, PROCEED, UNSHARED, Channel
from sysbox.errors import FAILED, KernelError, SpecError, StartError, SysboxError
from sysbox.linux import _sys, namespace, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from sysbox.child import Inherited
    from sysbox.errors import StartError


_NS_GET_NSTYPE = 0xB703  # ioctl_ns(2)


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


def fork(run: Callable[[Channel], NoReturn], flags: int = 0, pid_namespace: int = -1) -> Parked:
    """Fork a child that runs `run` with its end of a channel, in another pid namespace if its fd is
    given.

    Raises KernelError.
    """
    ours, theirs = Channel.pair()
    own = -1
    try:
        if pid_namespace >= 0:
            # a pid namespace is entered by the children of whoever joins it, never by itself
            own = posix.open("/proc/self/ns/pid", posix.O_RDONLY | posix.O_CLOEXEC)
            _sys.setns(pid_namespace, namespace.CLONE_NEWPID)
        pid, pidfd = _sys.clone3(flags)
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


def fork_inside(
    enter: Callable[[], None],
    run: Callable[[Channel], NoReturn],
    *,
    keep: tuple[int, ...],
    cgroup: int = -1,
) -> Parked:
    """Fork a child that runs `run` where `enter` leads; the cgroup (v2) is given by its fd.

    Of the descriptors it has 0, 1, 2 and those in `keep`; those that lead elsewhere are for `enter` to close.

    A process is visible in a pid namespace from its birth, with its root, its directory and its files:
    with CAP_SYS_PTRACE a container could walk out through them (CVE-2016-9962). So a helper outside
    enters everything else first, and only its child, made our own by CLONE_PARENT, is born inside.

    Raises KernelError, StartError.
    """
    ours, theirs = Channel.pair()
    heard, told = Channel.pair()
    try:
        helper, helper_fd = _sys.clone3(0, cgroup)
        if helper == 0:
            _help(enter, run, theirs, told, keep)
    except OSError as error:
        ours.close()
        what = "fork the process that enters the container"
        raise KernelError(what, "", error.errno or 0, hint=_no_room(error)) from None
    finally:
        theirs.close()
        told.close()
    posix.close(helper_fd)
    try:
        born, pidfd = heard.receive(BORN)
    except BaseException:
        ours.close()
        raise
    finally:
        heard.close()
        posix.waitpid(helper, 0)
    return Parked(born["pid"], pidfd, ours)


def _help(
    enter: Callable[[], None],
    run: Callable[[Channel], NoReturn],
    theirs: Channel,
    told: Channel,
    keep: tuple[int, ...],
) -> NoReturn:
    try:
        # what leaked from whoever called us would be seen as well
        process.close_fds_except({theirs.fileno(), told.fileno(), *keep})
        enter()
        pid, pidfd = _sys.clone3(namespace.CLONE_PARENT)
        if pid == 0:
            told.close()
            run(theirs)
        told.send(BORN, {"pid": pid}, fd=pidfd)
    except SysboxError as error:
        told.fail("namespaces", error.message, error.hint, error.status)
    except OSError as error:
        told.fail("namespaces", f"enter the container: {error.strerror}", _no_room(error), FAILED)
    finally:
        posix._exit(0)


def _no_room(error: OSError) -> str:
    if error.errno != errno.EAGAIN:
        return ""
    return "no process more may be in it: raise --pids-limit, or TasksMax of its slice"


def _open_namespace(kind: str, path: str) -> int:
    fd = -1
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
        if fcntl.ioctl(fd, _NS_GET_NSTYPE) == namespace.KINDS[kind][0]:
            return fd
        reason = "it is a namespace of another kind"
    except OSError as error:
        reason = "it is not a namespace" if fd >= 0 else posix.strerror(error.errno or errno.EIO)
    if fd >= 0:
        posix.close(fd)
    raise SpecError(f"cannot join the {kind} namespace {path}: {reason}")
