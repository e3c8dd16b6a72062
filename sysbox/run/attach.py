"""Attach to a container that its service supervises: its output comes here, our input goes there.

The monitor serves a socket (see src/output.c): it sends the output, and passes the descriptor of the
container's input. Several commands may be attached at once; each may detach without ending the container.
"""

from __future__ import annotations

import _signal
import _socket
import posix
import select
import time

from sysbox.base.errors import Conflict, SysboxError
from sysbox.base.frozen import Frozen
from sysbox.base.wait import ready
from sysbox.container import store, systemd_mode
from sysbox.linux import process
from sysbox.run import attach_socket, restart, supervisor, terminal
from sysbox.run.detach_keys import Finder
from sysbox.run.exit import await_end
from sysbox.run.signals import passed_on
from sysbox.units import unit_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.container.records import Record

DETACHED = -1  # in place of an exit status

_CHUNK = 1 << 16
_HELD = 1 << 16  # bytes of input; no more is read while the container has yet to take as many
_STEP = 0.02  # seconds
_PATIENCE = 5.0  # seconds until a restarted container has to serve its socket


class AttachOptions(Frozen):
    """Which streams, signals and keys `attach` passes on."""

    interactive: bool = True  # pass standard input on
    closes_input: bool = False  # the end of standard input closes the container's input
    outputs: tuple[int, ...] = (1, 2)  # 1 is standard output, 2 is standard error
    pass_signals: bool = True
    keys: bytes = b"\x10\x11"  # the key sequence that detaches; b"" for none
    # called at the third ctrl-c: True kills the container, False detaches; None: ctrl-c is passed on
    on_third_interrupt: Callable[[], bool] | None = None


class _LeaveRequest(Exception):
    """The user has pressed ctrl-c for the third time, or once while nothing runs: detach."""


def attach(record: Record, options: AttachOptions) -> int:
    """Stay attached until the container ends or the user detaches; its exit status, or DETACHED.

    Raises Conflict.
    """
    try:
        return _follow(record, options)
    except _LeaveRequest:
        attach_socket.is_expected(record)  # nobody comes
        return DETACHED


def _follow(record: Record, options: AttachOptions) -> int:
    """Attach to each of its runs in turn."""
    while True:
        # before there is a connection, so that no signal is lost; a container that is still being started
        # gets them from then on
        passing = options.pass_signals and _pass_signals_on(record, options)
        socket, given = _connect(record)
        if options.pass_signals and not passing:
            _pass_signals_on(record, options)
        supervisor.release_signals()
        code = _Attachment(record, socket, given, options).run()
        if code == DETACHED:
            return code
        if unit_file.has_policy(record):
            if options.pass_signals:
                _leave_by_signals()
            # systemd takes longer than this to start the container again
            attach_socket.expect(record)
        await_end(record)
        if not restart.runs_again(record):
            attach_socket.is_expected(record)
            return systemd_mode.exit_status(record.spec, record.argv, code)


def _leave_by_signals() -> None:
    """Until it runs again, which can take a minute, there is nothing that a signal could be passed on to."""

    def leave(*_: object) -> None:
        raise _LeaveRequest

    for number in supervisor.FORWARDED:
        _signal.signal(number, leave)


def _pass_signals_on(record: Record, options: AttachOptions) -> bool:
    runtime = store.runtime(record.id)
    if runtime is None or not runtime.alive():
        return False
    pidfd = process.pidfd(runtime.pid)
    replaced = passed_on(record)
    interrupts = supervisor.InterruptCounter()

    def forward(number: int, _: object) -> None:
        if options.on_third_interrupt and interrupts.is_third(number):
            if not options.on_third_interrupt():
                raise _LeaveRequest
            number = _signal.SIGKILL
        try:
            process.send(pidfd, replaced(number))
        except SysboxError:
            pass  # the container has just ended, which the socket reports

    for number in supervisor.FORWARDED:
        _signal.signal(number, forward)
    return True


def _connect(record: Record) -> tuple[_socket.socket, int]:
    """(connection to the monitor, descriptor of the container's input or -1). Raises Conflict."""
    deadline = time.monotonic() + _PATIENCE
    accepted = False
    while True:
        socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        try:
            socket.connect(attach_socket.path_of(record))
            accepted = True
            word, given = _greeting(socket)
            if word == b"H":
                return socket, given
            if word == b"F":
                raise _full(record)
        except (FileNotFoundError, ConnectionError):
            pass
        # refused; or closed without a greeting, by a monitor that is ending, or by one of sysbox's first
        # version that has no room for another client
        socket.close()
        status = restart.status(record).state
        if status not in ("running", "paused", "restarting"):
            raise Conflict(
                f"container {record.name} is not running", hint=f"`sysbox start {record.name}`"
            )
        if status == "running" and time.monotonic() > deadline:
            if accepted:
                raise _full(record)
            raise Conflict(
                f"container {record.name} belongs to the command that runs it in the foreground",
                hint="`sysbox logs -f` shows its output; `run -d` makes one to attach to",
            )
        time.sleep(_STEP)


def _greeting(socket: _socket.socket) -> tuple[bytes, int]:
    """The first packet, and the descriptor that came with it, or -1."""
    word, control, _, _ = socket.recvmsg(1, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in control:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            return word, int.from_bytes(data[:4], "little")
    return word, -1


def _full(record: Record) -> Conflict:
    return Conflict(
        f"container {record.name} cannot be attached to: 64 are attached already, and that is the limit",
        hint="`sysbox logs -f` shows its output; detach one of the others first",
    )


class _Attachment:
    """One connection, from the first packet to the last."""

    def __init__(
        self, record: Record, socket: _socket.socket, given: int, options: AttachOptions
    ) -> None:
        self._record = record
        self._socket = socket
        self._options = options
        self._keys = Finder(options.keys if record.spec.tty else b"")
        self._input = given
        self._reading = self._input >= 0 and options.interactive
        self._ended = False  # standard input
        self._held = b""  # input that the container has yet to take
        if self._reading:
            # never block here: a container that writes before it reads would wait for us, and we for it
            posix.set_blocking(self._input, False)

    def run(self) -> int:
        saved = None
        if self._input >= 0 and self._record.spec.tty:
            # set before the size is copied, so that no later change is missed
            _signal.signal(_signal.SIGWINCH, lambda *_: terminal.copy_size(self._input))
            terminal.copy_size(self._input)
            saved = terminal.raw() if self._options.interactive else None
        try:
            return self._copy()
        finally:
            terminal.restore(saved)
            self._socket.close()
            if self._input >= 0:
                posix.close(self._input)

    def _copy(self) -> int:
        while True:
            poll = select.poll()
            poll.register(self._socket.fileno(), select.POLLIN)
            if self._reading and len(self._held) < _HELD:
                poll.register(0, select.POLLIN)
            if self._held:
                poll.register(self._input, select.POLLOUT)
            for fd, _ in poll.poll():
                if fd == 0 and not self._take_input():
                    return DETACHED
                if fd == self._socket.fileno():
                    packet = self._socket.recv(_CHUNK)
                    if not packet or packet[:1] == b"E":
                        return int(packet[1:] or b"137")
                    if int(packet[:1]) in self._options.outputs:
                        self._write(int(packet[:1]), packet[1:])
            self._give_input()

    def _write(self, fd: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[posix.write(fd, view) :]
            except BlockingIOError:
                ready(writing=[fd])

    def _take_input(self) -> bool:
        """Read standard input; False when the detach keys were pressed."""
        try:
            data = posix.read(0, _CHUNK)
        except OSError:
            data = b""  # the terminal has hung up
        if not data:
            self._reading = False
            self._ended = True
        passed, pressed = self._keys.feed(data)
        self._held += passed
        return not pressed

    def _give_input(self) -> None:
        """Write as much of the held input as the container takes now."""
        try:
            while self._held:
                self._held = self._held[posix.write(self._input, self._held) :]
        except BlockingIOError:
            return
        except OSError:
            # every process has closed the container's input
            self._held = b""
            self._reading = False
        if self._ended and self._options.closes_input and self._input >= 0:
            posix.close(self._input)
            self._input = -1
            self._socket.send(b"C")
