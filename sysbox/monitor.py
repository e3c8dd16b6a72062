"""Waiting for a container in this process, with the caller's streams."""

from __future__ import annotations

import _signal
import _socket
import _struct
import errno
import posix
import select
import time

from sysbox.errors import signal_status
from sysbox.linux import process
from sysbox.records import Ended

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from sysbox.detachkeys import Finder
    from sysbox.streams import Streams
    from sysbox.witness import OutOfMemory, Reports

_CHUNK = 1 << 16
_HELD = 1 << 16  # bytes of what is typed that the container has yet to read
_INSISTENT = 10.0  # seconds in which ctrl-c is pressed three times
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


class Insistence:
    """Counts ctrl-c: who presses it three times wants to leave, whatever the container makes of SIGINT."""

    def __init__(self) -> None:
        self._pressed: list[float] = []

    def third(self, number: int) -> bool:
        """Whether this signal is the third SIGINT within some seconds."""
        if number == _signal.SIGINT:
            self._pressed = [*self._pressed[-2:], time.monotonic()]
        return len(self._pressed) == 3 and self._pressed[-1] - self._pressed[0] < _INSISTENT


class Foreground:
    """The caller's process as supervisor: copies streams, passes signals on, waits."""

    def __init__(
        self, pid: int, pidfd: int, streams: Streams, terminal: int, *, keys: bytes = b""
    ) -> None:
        """`keys` detach from the terminal, where there is one."""
        self._pid = pid
        self._pidfd = pidfd
        self._terminal = terminal
        self._pumps = [
            _Pump(
                *(terminal if fd < 0 else fd for fd in pump),
                closes=streams.input,
                journals=dict.fromkeys(streams.journals, pid),
                keys=keys if pump[-1] < 0 else b"",
            )
            for pump in streams.pumps
        ]
        self._saved: list[Any] | None = None
        self._reported = False  # reports.event has said the last that it will say
        # descriptor -> what is done when it can be read
        self.watches: dict[int, Callable[[], None]] = {}
        # signal -> the one that is passed on in its place
        self.instead: dict[int, int] = {}
        # called at the third ctrl-c, before SIGKILL; None: ctrl-c is passed on however often it comes
        self.insisted: Callable[[], None] | None = None
        self.detached = False  # the keys were pressed, and it goes on

    def wait(self, oom: OutOfMemory | None, reports: Reports | None = None) -> Ended:
        """Until it has ended and its output is copied, or the keys to detach are pressed.

        The terminal is then as it was before.
        """
        self._forward_signals()
        if self._terminal >= 0:
            from sysbox import terminal

            # before the first look at its size: none that it gets later is missed
            _signal.signal(_signal.SIGWINCH, lambda *_: terminal.copy_size(self._terminal))
            terminal.copy_size(self._terminal)
            self._saved = terminal.raw()
        try:
            self._loop(oom, reports)
            if self.detached:
                return Ended(code=0, signal=0)
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
        while True:
            poll = select.poll()
            for fd, events in self._awaited(oom, reports).items():
                poll.register(fd, events)
            ready = poll.poll()
            if any(fd == self._pidfd for fd, _ in ready):
                return
            for fd, events in ready:
                if reports and fd == reports.event and not reports.woken():
                    self._reported = True
                if oom and fd == oom.event:
                    oom.woken()
                if fd in self.watches:
                    self.watches[fd]()
                for pump in self._pumps:
                    pump.turn(fd, events)
            if any(pump.left for pump in self._pumps):
                self.detached = True
                return

    def _awaited(self, oom: OutOfMemory | None, reports: Reports | None) -> dict[int, int]:
        """Each descriptor with all that is awaited of it: one pump reads a terminal, another writes to it."""
        awaited = {self._pidfd: select.POLLIN, **dict.fromkeys(self.watches, select.POLLIN)}
        if oom and oom.event >= 0:
            awaited[oom.event] = select.POLLIN
        if reports and reports.event >= 0 and not self._reported:
            awaited[reports.event] = select.POLLPRI
        for pump in self._pumps:
            for fd, events in pump.awaits():
                awaited[fd] = awaited.get(fd, 0) | events
        return awaited

    def _forward_signals(self) -> None:
        insistence = Insistence()

        def forward(number: int, _: object) -> None:
            if self.insisted and insistence.third(number):
                self.insisted()
                number = _signal.SIGKILL
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

    def __init__(
        self, source: int, *sinks: int, closes: int, journals: dict[int, int], keys: bytes
    ) -> None:
        self._source = source
        self._sinks = list(sinks)
        self._into_container = sinks[0] > 2
        self._closes = closes if closes in sinks else -1
        # fd -> the pid that its lines are sent for
        self._journals = {fd: _journal(fd, pid) for fd, pid in journals.items() if fd in sinks}
        self._pending = b""
        self._waiting: list[int] = []  # sinks that have yet to get it, the first one in part
        self._written = 0  # how much of it the first one has
        self.left = False  # the keys that detach were pressed
        self._keys: Finder | None = None
        if self._into_container:
            # its reader may be slow while it writes to us: waiting for it here would hang both
            posix.set_blocking(sinks[0], False)
            if keys:
                from sysbox.detachkeys import Finder

                self._keys = Finder(keys)

    def awaits(self) -> Iterable[tuple[int, int]]:
        """What to poll for: descriptors, and events."""
        if self._waiting:
            yield self._waiting[0], select.POLLOUT
        # the keys are found even while the container reads nothing
        if self._source >= 0 and len(self._pending) < (_HELD if self._keys else 1):
            yield self._source, select.POLLIN

    def turn(self, fd: int, events: int) -> None:
        """poll(2) has said this of a descriptor, which may be another pump's."""
        failed = events & ~(select.POLLIN | select.POLLOUT)
        for awaited, wanted in tuple(self.awaits()):
            if fd != awaited or not events & wanted | failed:
                continue
            if wanted == select.POLLIN:
                self._fill()
            self._write()

    def _fill(self) -> None:
        data = self._read()
        if data is None:
            return
        if not data:
            self._source = -1
        if self._keys:
            data, self.left = self._keys.feed(data)
        self._take(data)

    def drain(self) -> None:
        """After the end: what is still in the pipe."""
        if self._into_container or self._source < 0:
            return
        posix.set_blocking(self._source, False)
        self._write_all()
        while data := self._read():
            self._take(data)
            self._write_all()

    def _read(self) -> bytes | None:
        """What there is; None where that is nothing yet, b"" at the end."""
        try:
            return posix.read(self._source, _CHUNK)
        except BlockingIOError:
            return None
        except OSError:
            # EIO is how a terminal's master says that the other side is closed
            return b""

    def _take(self, data: bytes) -> None:
        if data and not self._waiting:
            self._waiting = list(self._sinks)
        self._pending += data

    def _write_all(self) -> None:
        while self._waiting:
            self._write()
            if self._waiting:
                select.select([], self._waiting[:1], [])

    def _write(self) -> None:
        """To each sink in its turn; the next one gets it whole, however many turns this one takes."""
        while self._waiting:
            sink = self._waiting[0]
            view = memoryview(self._pending)[self._written :]
            try:
                send = self._journals.get(sink)
                while view:
                    count = send(view) if send else posix.write(sink, view)
                    self._written += count
                    view = view[count:]
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in (errno.EPIPE, errno.EIO, errno.ECONNRESET, errno.ENOTCONN):
                    raise
                # its reader has left; the container's other streams go on
                self._sinks.remove(sink)
            del self._waiting[0]
            self._written = 0
        self._pending = b""
        if self._source < 0 and self._closes >= 0:
            posix.close(self._closes)
            self._closes = -1
