"""Being attached to a container that its service supervises: its output here, our input there.

The monitor serves a socket (see src/output.c): it sends the output, and hands over the descriptor of the
container's input. Any number of commands may be attached at once, and each may leave without ending it.
"""

from __future__ import annotations

import _signal
import _socket
import posix
import select
import time

from sysbox import attachpoint, ending, restarting, state, systemd_mode, terminal
from sysbox.errors import Conflict, SpecError, SysboxError
from sysbox.frozen import Frozen
from sysbox.linux import process
from sysbox.monitor import FORWARDED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.records import Record

KEYS = "ctrl-p,ctrl-q"
DETACHED = -1  # in place of an exit status

_CHUNK = 1 << 16
_STEP = 0.02  # seconds
_PATIENCE = 5.0  # seconds for a container that is started again to serve its socket
_CONTROL = "@abcdefghijklmnopqrstuvwxyz[\\]^_"


class Wishes(Frozen):
    """How to be attached."""

    interactive: bool = True  # pass input on
    closes_input: bool = False  # whose end is that of the container's input
    pass_signals: bool = True
    keys: bytes = b"\x10\x11"  # that leave the container; b"" for none


def parse_keys(text: str, flag: str) -> bytes:
    """`ctrl-p,ctrl-q`: single characters, or ctrl- and a letter or one of @[\\]^_. Raises SpecError."""
    keys = bytearray()
    for key in text.split(",") if text else ():
        name = key.removeprefix("ctrl-") if len(key) > 1 else ""
        if len(key) == 1 and key.isascii():
            keys += key.encode()
        elif len(name) == 1 and name in _CONTROL:
            keys.append(_CONTROL.index(name))
        else:
            raise SpecError(
                f"{flag} {text!r}: {key!r} is no key", hint="as in ctrl-p,ctrl-q or a,b"
            )
    return bytes(keys)


def attach(record: Record, wishes: Wishes) -> int:
    """Until it ends, or the caller leaves: its exit status, or DETACHED. Raises Conflict."""
    while True:
        # before there is a connection, so that none is lost; after it, where it was only being started
        passing = wishes.pass_signals and _pass_signals_on(record)
        socket = _connect(record)
        if wishes.pass_signals and not passing:
            _pass_signals_on(record)
        code = _Attachment(record, socket, wishes).run()
        if code == DETACHED:
            return code
        if restarting.has_policy(record):
            # before it is started again, which takes longer than this
            attachpoint.expect(record)
        ending.await_end(record)
        if not restarting.goes_on(record):
            attachpoint.is_expected(record)
            return systemd_mode.exit_status(record.spec, record.argv, code)


def _pass_signals_on(record: Record) -> bool:
    runtime = state.runtime(record.id)
    if runtime is None or not runtime.alive():
        return False
    pidfd = process.pidfd(runtime.pid)
    instead = ending.passed_on(record)

    def forward(number: int, _: object) -> None:
        try:
            process.send(pidfd, instead.get(number, number))
        except SysboxError:
            pass  # it has just ended: the socket tells

    for number in FORWARDED:
        _signal.signal(number, forward)
    return True


def _connect(record: Record) -> _socket.socket:
    deadline = time.monotonic() + _PATIENCE
    while True:
        socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        try:
            socket.connect(attachpoint.path_of(record))
            return socket
        except (FileNotFoundError, ConnectionRefusedError):
            socket.close()
        status = state.status(record).state
        if status not in ("running", "paused", "restarting"):
            raise Conflict(
                f"container {record.name} does not run", hint=f"`sysbox start {record.name}`"
            )
        if status == "running" and time.monotonic() > deadline:
            raise Conflict(
                f"container {record.name} belongs to the command that runs it in the foreground",
                hint="`sysbox logs -f` shows its output; `run -d` makes one to attach to",
            )
        time.sleep(_STEP)


class _Attachment:
    """One connection, from the first packet to the last."""

    def __init__(self, record: Record, socket: _socket.socket, wishes: Wishes) -> None:
        self._record = record
        self._socket = socket
        self._wishes = wishes
        self._keys = _Keys(wishes.keys if record.spec.tty else b"")
        self._input = self._greeting()
        self._poll = select.poll()

    def _greeting(self) -> int:
        """The descriptor of the container's input, or -1."""
        _, control, _, _ = self._socket.recvmsg(1, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
        for level, kind, data in control:
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
                return int.from_bytes(data[:4], "little")
        return -1

    def run(self) -> int:
        saved = None
        if self._input >= 0 and self._record.spec.tty:
            # before the first look at its size: none that it gets later is missed
            _signal.signal(_signal.SIGWINCH, lambda *_: terminal.copy_size(self._input))
            terminal.copy_size(self._input)
            saved = terminal.raw() if self._wishes.interactive else None
        try:
            return self._copy()
        finally:
            terminal.restore(saved)
            self._socket.close()
            if self._input >= 0:
                posix.close(self._input)

    def _copy(self) -> int:
        self._poll.register(self._socket.fileno(), select.POLLIN)
        if self._input >= 0 and self._wishes.interactive:
            self._poll.register(0, select.POLLIN)
        while True:
            for fd, _ in self._poll.poll():
                if fd == 0:
                    if not self._take_input():
                        return DETACHED
                    continue
                packet = self._socket.recv(_CHUNK)
                if not packet or packet[:1] == b"E":
                    return int(packet[1:] or b"137")
                self._write(int(packet[:1]), packet[1:])

    def _write(self, fd: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[posix.write(fd, view) :]
            except BlockingIOError:
                select.select([], [fd], [])

    def _take_input(self) -> bool:
        """False when the keys to leave were pressed."""
        data = posix.read(0, _CHUNK)
        if not data:
            self._poll.unregister(0)
            if self._wishes.closes_input:
                posix.close(self._input)
                self._input = -1
                self._socket.send(b"C")
            return True
        passed, left = self._keys.feed(data)
        try:
            self._write(self._input, passed)
        except OSError:
            self._poll.unregister(0)  # it does not read any more
        return not left


class _Keys:
    """Finds the keys that leave in what is typed; what may be their beginning is held back."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """(what is to be passed on, whether the keys were pressed)."""
        if not self._keys:
            return data, False
        passed = bytearray()
        for byte in data:
            if byte == self._keys[self._held]:
                self._held += 1
                if self._held == len(self._keys):
                    return bytes(passed), True
                continue
            passed += self._keys[: self._held]
            self._held = int(byte == self._keys[0])
            if not self._held:
                passed.append(byte)
            elif len(self._keys) == 1:
                return bytes(passed), True
        return bytes(passed), False
