"""Waiting for a container in this process, with the caller's streams."""

from __future__ import annotations

import _signal
import _socket
import _struct
import errno
import posix
import select

from sysbox.errors import signal_status
from sysbox.linux import process
from sysbox.records import Ended

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sysbox.streams import Streams
    from sysbox.witness import OutOfMemory, Reports

_CHUNK = 1 << 16
FORWARDED = (
    _signal.SIGTERM, _signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGUSR1, _signal.SIGUSR2,
)  # fmt: skip


def ended_of(status: int) -> Ended:
    """From the status word of waitpid(2)."""
    if posix.WIFSIGNALED(status):
        signal = posix.WTERMSIG(status)
        return Ended(code=signal_status(signal), signal=signal)
    return Ended(code=posix.WEXITSTATUS(status))


def hold_signals() -> None:
    """From here on the signals that are passed on are the container's: they wait until they can be."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, FORWARDED)


def release_signals() -> None:
    """They arrive again, those first that were held."""
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, FORWARDED)


class Foreground:
    """The caller's process as supervisor: copies streams, passes signals on, waits."""

    def __init__(self, pid: int, pidfd: int, streams: Streams, terminal: int) -> None:
        self._pid = pid
        self._pidfd = pidfd
        self._terminal = terminal
        self._pumps = [
            _Pump(
                *(terminal if fd < 0 else fd for fd in pump),
                closes=streams.input,
                journals=dict.fromkeys(streams.journals, pid),
            )
            for pump in streams.pumps
        ]
        self._saved: list[Any] | None = None
        # descriptor -> what is to be done when it can be read
        self.watches: dict[int, Callable[[], None]] = {}
        # signal -> the one that is passed on in its place
        self.instead: dict[int, int] = {}

    def wait(self, oom: OutOfMemory | None, reports: Reports | None = None) -> Ended:
        """Until it has ended and its output is copied; the terminal is then as it was before."""
        self._forward_signals()
        if self._terminal >= 0:
            from sysbox import terminal

            # before the first look at its size: none that it gets later is missed
            _signal.signal(_signal.SIGWINCH, lambda *_: terminal.copy_size(self._terminal))
            terminal.copy_size(self._terminal)
            self._saved = terminal.raw()
        try:
            self._loop(oom, reports)
            if reports:
                reports.read()
            for pump in self._pumps:
                pump.drain()
            # reaped last: until then its number is its own, and its lines are sent in its name
            status = posix.waitpid(self._pid, 0)[1]
        finally:
            self._restore_terminal()
        ended = ended_of(status)
        if reports:
            ended = ended.replace(usage=reports.usage())
        return ended.replace(oom=oom.killed(ended.signal)) if oom else ended

    def _loop(self, oom: OutOfMemory | None, reports: Reports | None) -> None:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if oom and oom.event >= 0:
            poll.register(oom.event, select.POLLIN)
        if reports and reports.event >= 0:
            poll.register(reports.event, select.POLLPRI)
        for pump in self._pumps:
            pump.register(poll)
        for fd in self.watches:
            poll.register(fd, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self._pidfd:
                    return
                if reports and fd == reports.event and not reports.woken():
                    poll.unregister(fd)
                if oom and fd == oom.event:
                    oom.woken()
                if fd in self.watches:
                    self._watched(fd, poll)
                for pump in self._pumps:
                    if fd in (pump.source, pump.blocked_on):
                        pump.turn(poll)

    def _watched(self, fd: int, poll: select.poll) -> None:
        before = set(self.watches)
        self.watches[fd]()
        # it may have gone away, or become another
        for gone in before - set(self.watches):
            poll.unregister(gone)
        for new in set(self.watches) - before:
            poll.register(new, select.POLLIN)

    def _forward_signals(self) -> None:
        def forward(number: int, _: object) -> None:
            process.send(self._pidfd, self.instead.get(number, number))

        for number in FORWARDED:
            # a terminal of its own takes the keys; what else arrives here is for the container
            _signal.signal(number, forward)
        release_signals()

    def _restore_terminal(self) -> None:
        if self._saved is not None:
            from sysbox import terminal

            terminal.restore(self._saved)


def _journal(fd: int, pid: int) -> Callable[[memoryview], int]:
    """Write to a stream of the journal's as another process, which root may (unix(7), SCM_CREDENTIALS)."""
    socket = _socket.socket(fileno=fd)
    who = _struct.pack("iII", pid, posix.getuid(), posix.getgid())
    rights = [(_socket.SOL_SOCKET, _socket.SCM_CREDENTIALS, who)]
    return lambda data: socket.sendmsg([data], rights, _socket.MSG_NOSIGNAL)


class _Pump:
    """Copies one stream to one or more, without ever blocking on the container's side."""

    def __init__(self, source: int, *sinks: int, closes: int, journals: dict[int, int]) -> None:
        self.source = source
        self.blocked_on = -1
        self._sinks = list(sinks)
        self._into_container = sinks[0] > 2
        self._closes = closes if closes in sinks else -1
        # fd -> the pid that its lines are sent for
        self._journals = {fd: _journal(fd, pid) for fd, pid in journals.items() if fd in sinks}
        self._pending = b""
        if self._into_container:
            # its reader may be slow while it writes to us: waiting for it here would hang both
            posix.set_blocking(sinks[0], False)

    def register(self, poll: select.poll) -> None:
        try:
            poll.register(self.source, select.POLLIN)
        except OSError:
            self.source = -1

    def turn(self, poll: select.poll) -> None:
        """Something can be read, or the sink takes more."""
        if not self._pending:
            self._pending = self._read()
            if not self._pending:
                poll.unregister(self.source)
                self._finish()
                return
        self._write()
        waiting = bool(self._pending)
        if waiting and self.blocked_on < 0:
            self.blocked_on = self._sinks[0]
            poll.unregister(self.source)
            poll.register(self.blocked_on, select.POLLOUT)
        elif not waiting and self.blocked_on >= 0:
            poll.unregister(self.blocked_on)
            self.blocked_on = -1
            poll.register(self.source, select.POLLIN)

    def drain(self) -> None:
        """After the end: what is still in the pipe."""
        if self._into_container or self.source < 0:
            return
        posix.set_blocking(self.source, False)
        while data := self._read():
            self._pending = data
            self._write()

    def _read(self) -> bytes:
        try:
            return posix.read(self.source, _CHUNK)
        except OSError:
            # EIO is how a terminal's master says that the other side is closed
            return b""

    def _write(self) -> None:
        for sink in list(self._sinks):
            view = memoryview(self._pending)
            try:
                send = self._journals.get(sink)
                while view:
                    view = view[send(view) if send else posix.write(sink, view) :]
            except BlockingIOError:
                self._pending = bytes(view)
                return
            except OSError as error:
                if error.errno in (errno.EPIPE, errno.EIO, errno.ECONNRESET, errno.ENOTCONN):
                    # whoever read this has left; the container's other streams go on
                    self._sinks.remove(sink)
                    continue
                raise
        self._pending = b""

    def _finish(self) -> None:
        if self._closes >= 0:
            posix.close(self._closes)
        self.source = -1
