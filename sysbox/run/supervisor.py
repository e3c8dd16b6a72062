"""Supervise a container from the caller's process: copy its streams, pass signals on, wait for its end."""

from __future__ import annotations

import _signal
import errno
import posix
import select
import time

from sysbox.base.errors import OutputError, signal_status
from sysbox.base.wait import ready
from sysbox.container.records import Ended
from sysbox.linux import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from sysbox.run.cgroup_watch import OutOfMemory, Reports
    from sysbox.run.detach_keys import Finder
    from sysbox.run.stdio import Streams
    from sysbox.units.journal import Sink

_CHUNK = 1 << 16
_HELD = 1 << 16  # bytes of typed input that the container has yet to read
_INSISTENT = 10.0  # seconds within which ctrl-c has to be pressed three times
_LONGEST = 86400.0  # seconds: poll(2) takes no more than 24 days
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
    """Block the signals that are passed on: they are the container's, and stay pending until it runs."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, FORWARDED)


def release_signals() -> None:
    """Unblock them; the pending ones arrive first."""
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, FORWARDED)


class InterruptCounter:
    """Counts ctrl-c: a user who presses it three times wants to leave, whatever SIGINT does inside."""

    def __init__(self) -> None:
        self._pressed: list[float] = []

    def is_third(self, number: int) -> bool:
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
        self._log = _Log(streams.log, pid) if streams.log else None
        self._pumps = [
            _Pump(
                *(terminal if fd < 0 else fd for fd in pump),
                closes=streams.input,
                log=self._log,
                keys=keys if pump[-1] < 0 else b"",
            )
            for pump in streams.pumps
        ]
        self._saved: list[Any] | None = None
        self._reported = False  # the file of reports.event was removed
        # descriptor -> called when it can be read
        self.watches: dict[int, Callable[[], None]] = {}
        # (seconds, function): called once `wait` has lasted so long; what ends sooner need not pay for it
        self.later: list[tuple[float, Callable[[], None]]] = []
        # a signal that this process gets -> the one that it sends
        self.passed_on: Callable[[int], int] = lambda number: number
        # called at the third ctrl-c, before SIGKILL; None: ctrl-c is passed on however often it comes
        self.on_third_interrupt: Callable[[], None] | None = None
        self.detached = False  # the detach keys were pressed; the process still runs
        # called at its end, before it is reaped
        self.at_last: list[Callable[[], None]] = []

    def wait(self, oom: OutOfMemory | None, reports: Reports | None = None) -> Ended:
        """Wait until it has ended and its output is copied, or until the detach keys are pressed.

        The terminal is restored then.
        """
        self._forward_signals()
        if self._terminal >= 0:
            from sysbox.run import terminal

            # set before the size is copied, so that no later change is missed
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
            for function in self.at_last:
                function()
            if self._log:
                self._log.close()
            # reaped last: until then its pid is not reused, and lines can be sent in its name
            status = posix.waitpid(self._pid, 0)[1]
        finally:
            self._restore_terminal()
        ended = ended_of(status)
        if reports:
            ended = ended.replace(usage=reports.usage())
        return ended.replace(oom=oom.killed(), oom_told=oom.all_reported) if oom else ended

    def _loop(self, oom: OutOfMemory | None, reports: Reports | None) -> None:
        begin = time.monotonic()
        while True:
            poll = select.poll()
            for fd, events in self._awaited(oom, reports).items():
                poll.register(fd, events)
            ready = poll.poll(self._patience(oom, begin))
            if oom and oom.patience() is not None and not ready:
                oom.look()
            if any(fd == self._pidfd for fd, _ in ready):
                return
            for fd, events in ready:
                if reports and fd == reports.event and not reports.on_event():
                    self._reported = True
                if oom and fd == oom.awaited()[0]:
                    oom.on_event()
                if fd in self.watches:
                    self.watches[fd]()
                for pump in self._pumps:
                    pump.on_event(fd, events)
            if any(pump.detached for pump in self._pumps):
                self.detached = True
                return

    def _patience(self, oom: OutOfMemory | None, begin: float) -> float | None:
        """For how many milliseconds to wait, None is for ever; calls what of `later` has its time."""
        patience = oom.patience() if oom else None
        lasted = time.monotonic() - begin
        for one in [one for one in self.later if one[0] <= lasted]:
            self.later.remove(one)
            one[1]()
        if not self.later:
            return patience
        left = min(_LONGEST, *(one[0] - lasted for one in self.later)) * 1000
        return left if patience is None else min(patience, left)

    def _awaited(self, oom: OutOfMemory | None, reports: Reports | None) -> dict[int, int]:
        """Each descriptor with all its events: one pump reads a terminal, another writes to it."""
        awaited = {self._pidfd: select.POLLIN, **dict.fromkeys(self.watches, select.POLLIN)}
        if oom and oom.awaited()[1]:
            awaited[oom.awaited()[0]] = oom.awaited()[1]
        if reports and reports.event >= 0 and not self._reported:
            awaited[reports.event] = select.POLLPRI
        for pump in self._pumps:
            for fd, events in pump.awaits():
                awaited[fd] = awaited.get(fd, 0) | events
        return awaited

    def _forward_signals(self) -> None:
        interrupts = InterruptCounter()

        def forward(number: int, _: object) -> None:
            if self.on_third_interrupt and interrupts.is_third(number):
                self.on_third_interrupt()
                number = _signal.SIGKILL
            process.send(self._pidfd, self.passed_on(number))

        for number in FORWARDED:
            # the container's own terminal handles ctrl-c; a signal that arrives here is for the container
            _signal.signal(number, forward)
        release_signals()

    def _restore_terminal(self) -> None:
        if self._saved is not None:
            from sysbox.run import terminal

            terminal.restore(self._saved)


class _Log:
    """The container's output in the journal (src/journal.c)."""

    def __init__(self, sink: Sink, pid: int) -> None:
        from sysbox.linux import _journal

        self._journal = _journal
        self._fd = sink.fd
        _journal.begin(sink.fd, pid, sink.identifier, sink.rate, sink.burst)

    def write(self, stream: int, data: bytes) -> None:
        """Write all of it, however long journald takes; b"" is the end. `stream`: 0 output, 1 errors."""
        if not data:
            self._journal.end(stream)
        view = memoryview(data)
        while view := view[self._journal.write(stream, view) :]:
            ready(writing=[self._fd])
        while not self._journal.flush():
            ready(writing=[self._fd])

    def close(self) -> None:
        """Send what is left, and wait until journald has read it."""
        self._journal.close()


class _Pump:
    """Copies one stream to another, and to the log, without ever blocking on the container's side."""

    def __init__(
        self, source: int, sink: int, *, closes: int, log: _Log | None, keys: bytes
    ) -> None:
        self._source = source
        self._sink = sink
        self._into_container = sink > 2
        self._closes = closes if closes == sink else -1
        self._log = None if self._into_container else log
        self._stream = int(sink == 2)  # of the log
        self._pending = b""  # what the sink has yet to get
        self.detached = False  # the detach keys were pressed
        self._keys: Finder | None = None
        if self._into_container:
            # never block here: a container that writes before it reads would wait for us, and we for it
            posix.set_blocking(sink, False)
            if keys:
                from sysbox.run.detach_keys import Finder

                self._keys = Finder(keys)
        else:
            # the container can open the other end and read what poll(2) has announced
            posix.set_blocking(source, False)

    def awaits(self) -> Iterable[tuple[int, int]]:
        """What to poll for: descriptors, and events."""
        if self._pending:
            yield self._sink, select.POLLOUT
        # input is read for the detach keys even while the container reads nothing
        if self._source >= 0 and len(self._pending) < (_HELD if self._keys else 1):
            yield self._source, select.POLLIN

    def on_event(self, fd: int, events: int) -> None:
        """Handle poll(2)'s `events` of `fd`, which may be another pump's."""
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
            data, self.detached = self._keys.feed(data)
        self._take(data)

    def drain(self) -> None:
        """Copy what is still in the pipe after the container's end."""
        if self._into_container or self._source < 0:
            return
        self._write_all()
        while data := self._read():
            self._take(data)
            self._write_all()

    def _read(self) -> bytes | None:
        """What can be read now; None if nothing yet, b"" at the end."""
        try:
            return posix.read(self._source, _CHUNK)
        except BlockingIOError:
            return None
        except OSError:
            # EIO is how a terminal's master says that the other side is closed
            return b""

    def _take(self, data: bytes) -> None:
        if self._log:
            self._log.write(self._stream, data)
        if self._sink >= 0:
            self._pending += data

    def _write_all(self) -> None:
        while self._pending:
            ready(writing=[self._sink])
            self._write()

    def _write(self) -> None:
        view = memoryview(self._pending)
        try:
            while view:
                view = view[posix.write(self._sink, view) :]
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO, errno.ECONNRESET, errno.ENOTCONN):
                if self._into_container:
                    raise
                raise OutputError(self._sink, error) from None
            # its reader has left; the container's other streams go on, and its log
            self._sink = -1
            view = view[:0]
        self._pending = bytes(view)
        if self._pending:
            return
        if self._source < 0 and self._closes >= 0:
            posix.close(self._closes)
            self._closes = -1
