"""The parent's side of a start: fork a child that parks, talk to it, learn when its command runs."""

from __future__ import annotations

import _signal
import _socket
import errno
import fcntl
import posix
import select

from sysbox.base.errors import FAILED, KernelError, SpecError, StartError, SysboxError, SystemdError
from sysbox.linux import _sys, namespace, process
from sysbox.run.handshake import (
    BORN,
    CONSOLE,
    LISTENING,
    PROCEED,
    SCOPED,
    STARTING,
    TAKEN,
    UNSHARED,
    WAITING,
    Channel,
)
from sysbox.run.process import PROFILE_HINT, PROFILE_REFUSES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn, Self

    from sysbox.container.store import Record
    from sysbox.run.init import Inherited
    from sysbox.security.seccomp import Filter

    OnListener = Callable[[int, int], Callable[[], None] | None]

_NS_GET_NSTYPE = 0xB703  # ioctl_ns(2)
_P_PIDFD = 3  # waitid(2)
_PATIENCE = 1000  # ms
_GOING = 50  # ms in which a child whose end shows elsewhere has ended
_ENDING = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP)  # they end a start
# the ends of a process whose filter refuses even exit(2) (`_sys.leave`), or kills it
_REFUSED = (_signal.SIGILL, _signal.SIGTRAP, _signal.SIGSEGV, _signal.SIGABRT, _signal.SIGSYS)


KILLED = "its process was killed before its command ran"
KILLED_HINT = (
    "the kernel does so where memory is short (--memory, MemoryMax=): `journalctl -k` tells"
)


def _may_follow(error: BaseException) -> bool:
    """Whether the end of the child may be what has caused it."""
    if isinstance(error, StartError):
        return error.phase == "handshake"
    return isinstance(error, KernelError | SystemdError)


class _Interruptible:
    """A context in which signals that end a start do so at once, though they are held for the container.

    The process at the other end of a socket may never answer.
    """

    def __init__(self, *, wanted: bool = True) -> None:
        self._signals = _ENDING if wanted else ()

    def __enter__(self) -> None:
        self._held = _signal.pthread_sigmask(_signal.SIG_BLOCK, ())
        try:
            _signal.pthread_sigmask(_signal.SIG_UNBLOCK, self._signals)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, self._held)


class Parked:
    """A child that waits until it may go on, and exits when this process does.

    A context manager: if its block raises, the child is destroyed. A failure that the child has reported is
    raised instead, or that it was killed, since the block's error may only follow from it, as when a link
    finds no namespace.
    """

    def __init__(self, pid: int, pidfd: int, channel: Channel) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self._channel = channel
        self._builder: tuple[int, int] | None = None  # its (pid, pidfd), until it is reaped
        self.held: set[int] | None = None  # the mask of signals that entering the context restores
        # called each second while we wait for the child
        self.meanwhile: Callable[[], None] | None = None
        # called once with the descriptor by which its system calls are answered, and its pid
        self.on_listener: OnListener | None = None
        # what that returned: called each second while who answers may hold the child up
        self._answered: Callable[[], None] | None = None

    def __enter__(self) -> Self:
        try:
            if self.held is not None:
                _signal.pthread_sigmask(_signal.SIG_SETMASK, self.held)
        except BaseException:
            self.destroy()
            raise
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None:
            return
        reported = self._channel.reported_failure() if isinstance(error, SysboxError) else None
        reported = reported or (self._killed() if _may_follow(error) else None)
        self.destroy()
        if reported:
            raise reported from None

    def await_child(self) -> None:
        """Wait for #0: this is the builder so far, and becomes its child. Raises StartError."""
        born: Any = self._channel.receive(BORN)[0].get("pid")  # 0
        self._builder = self.pid, self.pidfd
        self.pid, self.pidfd = self._own_child(born)

    def await_namespaces(self) -> None:
        """Wait for #1. Raises StartError."""
        self._channel.receive(UNSHARED)  # 1

    def scoped(self, addresses: tuple[str, ...]) -> None:
        """Send #2: it is in its scope, and its links are there."""
        self._channel.send(SCOPED, {"addresses": addresses})  # 2

    def await_console(self) -> int:
        """Wait for #3: the master of the container's terminal."""
        self._await(self._channel.fileno())
        return self._channel.receive(CONSOLE)[1]  # 3

    def proceed(self) -> None:
        """Send #4: its command may run."""
        self._channel.send(PROCEED)  # 4

    def await_birth(self) -> None:
        """Wait until the helper has had another child of ours born in its place, and has exited.

        Processes of its pid namespace may control the newborn already: its message is believed only as far
        as the pid is a child of ours. Raises StartError.
        """
        self._pass_listener()
        self._await(self._channel.fileno())
        try:
            born: Any = self._channel.receive(BORN)[0].get("pid")
        except StartError as error:
            raise self._refused(error) or error from None
        self._await(self.pidfd)
        posix.waitpid(self.pid, 0)
        posix.close(self.pidfd)
        self.pidfd = -1
        self.pid, self.pidfd = self._own_child(born)

    def _pass_listener(self) -> None:
        """Take the descriptor of its filter, if others are to answer its calls, and pass it on.

        It comes by its number, since sendmsg(2) may be one of these calls. Raises StartError, KernelError.
        """
        if not self.on_listener:
            return
        pass_on, self.on_listener = self.on_listener, None
        self._await(self._channel.fileno())
        number: Any = self._channel.receive(LISTENING)[0].get("fd")
        try:
            fd = _sys.pidfd_getfd(self.pidfd, number)
        except (OSError, TypeError, OverflowError):
            raise StartError("the listener of its filter is gone", phase="handshake") from None
        try:
            with _Interruptible():
                self._answered = pass_on(fd, self.pid)
        finally:
            posix.close(fd)
        self._channel.send(TAKEN)

    def _own_child(self, pid: Any) -> tuple[int, int]:
        """(the pid of a child of ours, which another process has told us, its pidfd). Raises StartError."""
        pidfd = -1
        try:
            # a child of ours: its pid cannot be reused before we reap it
            pidfd = posix.pidfd_open(pid)
            posix.waitid(_P_PIDFD, pidfd, posix.WEXITED | posix.WNOHANG | posix.WNOWAIT)
        except (OSError, TypeError, OverflowError):
            if pidfd >= 0:
                posix.close(pidfd)  # not our child: `destroy` must not kill it
            raise StartError("the newborn is not a child of sysbox", phase="handshake") from None
        return pid, pidfd

    def await_waiting(self) -> None:
        """Wait until a container that is only created needs nothing more of us. Raises StartError."""
        try:
            self._pass_listener()
            self._await(self._channel.fileno())
            self._channel.receive(WAITING)
        finally:
            self._channel.close()

    def await_exec(self) -> None:
        """Wait for #5: its command runs. Raises StartError."""
        try:
            self._pass_listener()
            self._await(self._channel.fileno())
            self._channel.receive(b"")  # 5
            refused = self._refused()
        finally:
            self._channel.close()
        self._reap_builder()
        if refused:
            raise refused

    def _await(self, fd: int) -> None:
        """Wait until `fd` can be read; `meanwhile` may raise, and a signal where an agent holds it up."""
        if not (self.meanwhile or self._answered):
            return
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        with _Interruptible(wanted=self._answered is not None):
            while not poll.poll(_PATIENCE):
                for each in (self.meanwhile, self._answered):
                    if each:
                        each()

    def _refused(self, error: StartError | None = None) -> StartError | None:
        """The error to raise if its filter has ended the child before the command ran, else None."""
        if error and error.phase != "handshake":
            return None  # it has said why
        if not process.is_fork(self.pid):
            return None
        ended = posix.waitid(_P_PIDFD, self.pidfd, posix.WEXITED | posix.WNOWAIT)
        code = ended.si_status if ended else 0
        if code not in (_REFUSED if ended and ended.si_code != posix.CLD_EXITED else (FAILED,)):
            return None
        return StartError(PROFILE_REFUSES, phase="process", hint=PROFILE_HINT)

    def _killed(self) -> StartError | None:
        """The error to raise if something else than its filter has killed the child, else None."""
        if self.pidfd < 0:
            return None  # the helper is reaped, and what it has had born is not known yet
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        if not poll.poll(_GOING) or not process.is_fork(self.pid):
            return None
        ended = posix.waitid(_P_PIDFD, self.pidfd, posix.WEXITED | posix.WNOWAIT)
        if not ended or ended.si_code == posix.CLD_EXITED or ended.si_status != _signal.SIGKILL:
            return None
        return StartError(KILLED, phase="handshake", hint=KILLED_HINT)

    def destroy(self) -> None:
        """Kill and reap it; a child that is gone already is fine."""
        self._channel.close()
        if self._builder:
            destroy(*self._builder)
            self._builder = None
        destroy(self.pid, self.pidfd)

    def _reap_builder(self) -> None:
        """It has ended, or is about to: the child needed nothing of it any more."""
        if self._builder:
            pid, pidfd = self._builder
            self._builder = None
            posix.waitpid(pid, 0)
            posix.close(pidfd)


def listening(record: Record, filtered: Filter | None, first: int = 0) -> OnListener | None:
    """`Parked.on_listener` for a filter; `first` is the container's first process, if there is one already.

    Raises SpecError where nobody listens, KernelError.
    """
    if filtered is None or not (filtered.listener or filtered.recorder):
        return None
    if filtered.recorder:
        from sysbox.run import recording

        return recording.join(record) if first else recording.begin(record)
    from sysbox.run import listener  # few containers need it

    return listener.Agent(record, filtered, first)


def let_start(path: str) -> None:
    """Have a created container, which waits at the socket `path`, run its command; return once that runs.

    Raises StartError with what its process reports; KernelError where nothing waits there.
    """
    socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    channel = Channel(socket)
    try:
        socket.connect(path)
        channel.receive(STARTING)
        channel.receive(b"")  # 5
    except OSError as error:
        raise KernelError.of("start the container that waits at", path, error) from None
    finally:
        channel.close()


def destroy(pid: int, pidfd: int) -> int | None:
    """Kill and reap a child of ours; the status word of waitpid(2), None if it was reaped already."""
    try:
        _signal.pidfd_send_signal(pidfd, _signal.SIGKILL)
    except OSError:
        pass  # ignoring: it is gone
    try:
        return posix.waitpid(pid, 0)[1]
    except ChildProcessError:
        return None


def park(inherited: Inherited, on_listener: OnListener | None = None) -> Parked:
    """Fork the child; it begins to make its namespaces and its root at once.

    Signals that end a start wait until the context is entered: before, nothing would destroy the child.
    With a user namespace it is the builder, and `await_child` comes next. Raises KernelError, SpecError for a
    namespace that cannot be joined.
    """
    # here, not above: `exec` does not need it; not later: the child imports nothing
    from sysbox.run import builder, init

    plan = inherited.plan.namespaces
    fds = [(kind, _open_namespace(kind, path)) for kind, path in plan.joined]
    others = [pair for pair in fds if pair[0] != "pid"]
    inside = next((fd for kind, fd in fds if kind == "pid"), -1)
    main = builder.main if plan.uids else init.main
    flags = namespace.CLONE_NEWPID if plan.new_pid else 0
    if plan.uids:
        flags = namespace.CLONE_NEWNS
    held = _signal.pthread_sigmask(_signal.SIG_BLOCK, _ENDING)
    try:
        parked = _fork(lambda channel: main(inherited, channel, others, inside), flags)
        parked.held = held
    except BaseException:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, held)
        raise
    finally:
        for _, fd in fds:
            posix.close(fd)
    parked.on_listener = on_listener
    return parked


def fork_helper(run: Callable[[Channel], NoReturn], cgroup: int = -1) -> Parked:
    """Fork a helper that runs `run`, in the cgroup (v2) of the fd. The helper ends by having another child of
    ours born: `await_birth` comes next. Raises KernelError.
    """
    return _fork(run, 0, cgroup)


def _fork(run: Callable[[Channel], NoReturn], flags: int, cgroup: int = -1) -> Parked:
    ours, theirs = Channel.pair()
    try:
        pid, pidfd = _sys.clone3(flags, cgroup)
        if pid == 0:
            _become_child(ours, theirs, run)
    except OSError as error:
        ours.close()
        what = "fork the container's process"
        raise KernelError(what, "", error.errno or 0, hint=_no_room(error)) from None
    finally:
        theirs.close()
    return Parked(pid, pidfd, ours)


def _become_child(ours: Channel, theirs: Channel, run: Callable[[Channel], NoReturn]) -> NoReturn:
    """Call `run` and exit, whatever is raised: the code that follows the fork is the parent's."""
    try:
        # at once; run/process.py sets it again, since a change of credentials clears it (prctl(2))
        _sys.prctl(process.PR_SET_PDEATHSIG, _signal.SIGKILL)
        ours.close()
        theirs.check_peer()
        run(theirs)
    finally:
        _sys.leave(FAILED)


def _no_room(error: OSError) -> str:
    if error.errno != errno.EAGAIN:
        return ""
    return "it has reached its process limit: raise --pids-limit, or TasksMax of its slice"


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
