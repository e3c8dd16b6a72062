"""Forked workers that do one job after the other: threads would wait for the interpreter's lock.

    with Crew(3, work) as crew:       work(job, fd, report) -> result, in a worker
        crew.give({"n": 1}, fd)       while crew.free
        for message in crew.wait():   what a worker reports, and its results

A worker ends with its parent, even with one that was killed. Its error is raised in the parent.
"""

from __future__ import annotations

import _signal
import posix
import select
import socket
import traceback

from sysbox.base import codec
from sysbox.base.errors import FAILED, KernelError, SysboxError
from sysbox.base.frozen import Frozen
from sysbox.linux import _sys
from sysbox.linux.process import PR_SET_PDEATHSIG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self

    Data = dict[str, Any]
    Report = Callable[[Data], None]
    Work = Callable[[Data, int, Report], Data]

_ENDING = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP)
_MOST = 1 << 16  # bytes of one message
_SHOWN = 8000  # characters of one error's text


class Message(Frozen):
    """What a worker said about a job: a report, or the result with which the job is done."""

    job: dict[str, Any]
    data: dict[str, Any]
    done: bool


class _Worker:
    """One worker as its parent sees it."""

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid = pid
        self.channel = channel
        self.job: Data | None = None


class Crew:
    """At most `most` workers, forked when they are needed; a context manager, at whose end all are gone."""

    def __init__(self, most: int, work: Work) -> None:
        self._most = most
        self._work = work
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            try:
                posix.kill(worker.pid, _signal.SIGKILL)
            except ProcessLookupError:
                pass  # ignoring: it has ended, and the kernel has reaped it
        while self._workers:
            self._reap(self._workers[-1])

    @property
    def free(self) -> bool:
        """Whether `give` finds a worker, or may fork one."""
        return len(self._workers) < self._most or any(one.job is None for one in self._workers)

    @property
    def busy(self) -> bool:
        """Whether a job is not done yet."""
        return any(one.job is not None for one in self._workers)

    def give(self, job: Data, fd: int = -1) -> None:
        """Give a free worker a job, and a copy of a descriptor. Raises KernelError."""
        worker = next((one for one in self._workers if one.job is None), None)
        try:
            if worker is None:
                worker = self._fork()
            worker.job = job
            socket.send_fds(worker.channel, [codec.dumps(job)], [fd] if fd >= 0 else [])
        except OSError as error:
            raise KernelError.of("start", "a worker", error) from None

    def wait(self, timeout: float) -> list[Message]:
        """The messages that are there, or come within `timeout` seconds.

        Raises a worker's error, and SysboxError for a worker that was killed.
        """
        poll = select.poll()
        by_fd = {one.channel.fileno(): one for one in self._workers}
        for fd in by_fd:
            poll.register(fd, select.POLLIN)
        return [self._receive(by_fd[fd]) for fd, _ in poll.poll(timeout * 1000)]

    def _receive(self, worker: _Worker) -> Message:
        try:
            text = worker.channel.recv(_MOST)
        except ConnectionResetError:
            text = b""
        if not text:
            raise self._ended(worker)
        kind, data = codec.loads(text, "a worker's message")
        job = worker.job or {}
        if kind == "error":
            raise restored(data)
        if kind == "done":
            worker.job = None
        return Message(job=job, data=data, done=kind == "done")

    def _ended(self, worker: _Worker) -> SysboxError:
        what = str((worker.job or {}).get("what", "a job"))
        status = posix.waitstatus_to_exitcode(self._reap(worker))
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        return SysboxError(
            f"{what}: its worker was ended {how}",
            hint="was the host out of memory? `journalctl -k` knows; the next attempt goes on from here",
        )

    def _reap(self, worker: _Worker) -> int:
        self._workers.remove(worker)
        worker.channel.close()
        try:
            return posix.waitpid(worker.pid, 0)[1]
        except ChildProcessError:
            return (
                0  # the caller of this process ignores SIGCHLD (wait(2)): the kernel has reaped it
            )

    def _fork(self) -> _Worker:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = posix.getpid()
        # one that is made and not known yet when a signal ends this would go on beside what is undone
        held = _signal.pthread_sigmask(_signal.SIG_BLOCK, _ENDING)
        try:
            pid = posix.fork()
            if pid:
                self._workers.append(_Worker(pid, ours))
        finally:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, held)
        if pid:
            theirs.close()
            return self._workers[-1]
        try:
            _become_worker(parent)
            for channel in (ours, *(one.channel for one in self._workers)):
                channel.close()
            _serve(theirs, self._work)
        finally:
            posix._exit(0)


def _become_worker(parent: int) -> None:
    _sys.prctl(PR_SET_PDEATHSIG, _signal.SIGKILL)
    if posix.getppid() != parent:
        posix._exit(0)  # the parent ended before it could be asked for
    # a terminal sends it to all processes of the job, and the parent decides
    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
    for number in (_signal.SIGTERM, _signal.SIGHUP):
        _signal.signal(number, _signal.SIG_DFL)


def _serve(channel: socket.socket, work: Work) -> None:
    def say(kind: str, data: Data) -> None:
        channel.send(codec.dumps([kind, data]))

    while True:
        text, fds, _, _ = socket.recv_fds(channel, _MOST, 1)
        if not text:
            return
        try:
            result = work(
                codec.loads(text, "a job"), fds[0] if fds else -1, lambda data: say("report", data)
            )
        except BaseException as error:  # noqa: BLE001 (the parent raises it)
            say("error", described(error))
            return
        finally:
            for fd in fds:
                posix.close(fd)
        say("done", result)


def described(error: BaseException) -> Data:
    """An error as plain data: one of ours with its attributes, any other as its traceback."""
    if not isinstance(error, SysboxError):
        return {"text": "".join(traceback.format_exception(error))[-_SHOWN:]}
    plain = {key: value for key, value in vars(error).items() if type(value) in (str, int, bool)}
    plain["message"] = error.message[:_SHOWN]
    return {"classes": [one.__name__ for one in type(error).__mro__], "attributes": plain}


def restored(data: Data) -> Exception:
    """The error again, of its own class, or of the nearest base class that this process has loaded."""
    if "text" in data:
        return RuntimeError(f"a worker failed:\n{data['text']}")
    known = _subclasses(SysboxError)
    kind = next((known[name] for name in data["classes"] if name in known), SysboxError)
    error = kind.__new__(kind)
    Exception.__init__(error, data["attributes"]["message"])
    vars(error).update({"hint": "", "status": FAILED} | data["attributes"])
    return error


def _subclasses(kind: type[SysboxError]) -> dict[str, type[SysboxError]]:
    found = {kind.__name__: kind}
    for below in kind.__subclasses__():
        found.update(_subclasses(below))
    return found
