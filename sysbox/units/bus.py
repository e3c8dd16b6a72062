"""A blocking D-Bus connection to systemd that costs a millisecond: no main loop, no imports.

It connects to PID 1's private socket, as systemctl(1) does: no broker in between, and no Hello, AddMatch or
Subscribe, since PID 1 sends its signals to every private peer. If that fails (not root), it connects to the
system bus. SYSBOX_BUS=private or =system chooses one of them.
"""

from __future__ import annotations

import _socket
import errno
import posix
import select
import time

from sysbox.base.errors import SystemdError
from sysbox.units import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from struct import Struct
    from typing import Any, Self, TypeVar

    _Answer = TypeVar("_Answer")
else:
    from _struct import Struct

SYSTEMD = "org.freedesktop.systemd1"
MANAGER = "org.freedesktop.systemd1.Manager"
MANAGER_PATH = "/org/freedesktop/systemd1"
PROPERTIES = "org.freedesktop.DBus.Properties"

PRIVATE_SOCKET = "/run/systemd/private"
SYSTEM_SOCKET = "/run/dbus/system_bus_socket"
TIMEOUT = 25.0  # seconds, as in libdbus and sd-bus

_DBUS = "org.freedesktop.DBus"
_KEPT_SIGNALS = 4096  # of watched members; the oldest are dropped first
_LINE_MAX = 1 << 14
EVER = float("inf")  # seconds
_CLOSED = "io.github.sysbox.Disconnected"
# the last two come from a broker that has lost PID 1, which may have got the call or not
_LOST = (_CLOSED, f"{_DBUS}.Error.NoReply", f"{_DBUS}.Error.Disconnected")
_POLL = 0.02  # seconds, only while PID 1 re-executes
_TIMEVAL = Struct("ll").pack


class Bus:
    """One connection. Calls may be pipelined: `send` several, then take each `reply`."""

    def __init__(
        self, sock: _socket.socket, *, private: bool, manager: bool = True, within: float = EVER
    ) -> None:
        self.private = private
        self._until = time.monotonic() + within  # nothing is waited for after that
        self._manager = manager  # for calls to the manager, with its signals
        self._watched = {"JobRemoved"}  # names of signals
        self._use(sock)

    def _use(self, sock: _socket.socket) -> None:
        self._sock = sock
        self._serial = 0
        # authentication needs no answer before the first call, so both leave in one write
        uid = str(posix.geteuid()).encode("ascii").hex()
        self._out = bytearray(f"\0AUTH EXTERNAL {uid}\r\nBEGIN\r\n".encode("ascii"))
        self._in = bytearray()
        self._authenticated = False
        self._replies: dict[int, wire.Message] = {}
        self._waiting: set[int] = set()
        self._signals: list[wire.Message] = []
        self._complete: set[str] = set()  # the names of which no signal was lost
        self._poll = select.poll()
        self._poll.register(sock.fileno(), select.POLLIN)
        if not self.private:
            self._join_system_bus()

    def reconnect(self) -> None:
        """Connect again, as is needed after PID 1 re-executed itself.

        Raises SystemdError, for which `is_lost` is true, while PID 1 or the broker accepts no connection.
        """
        self._sock.close()
        path = PRIVATE_SOCKET if self.private else SYSTEM_SOCKET
        try:
            left = max(self._until - time.monotonic(), 0.001)
            self._use(_open(path, min(left, TIMEOUT)))
        except OSError as error:
            raise self._lost(error) from None

    def retry(self, ask: Callable[[], _Answer], timeout: float = TIMEOUT) -> _Answer:
        """Return what `ask` returns; if the connection is lost, reconnect and ask again, up to `timeout` s.

        `ask` must be harmless when repeated. PID 1 drops all connections when it re-executes itself, and a
        broker does when it is restarted. Raises SystemdError.
        """
        deadline = min(time.monotonic() + timeout, self._until)
        while True:
            try:
                return ask()
            except SystemdError as error:
                if not is_lost(error) or time.monotonic() > deadline:
                    raise
            time.sleep(_POLL)
            try:
                self.reconnect()
            except SystemdError as error:
                if not is_lost(error):
                    raise

    @classmethod
    def connect(cls, within: float = EVER) -> Bus:
        """Connect to the system manager; nothing is sent before the first call.

        What is asked must be answered `within` seconds, all calls together, else they raise SystemdError.
        Raises SystemdError if no systemd answers, naming the sockets that were tried.
        """
        wanted = posix.environ.get(b"SYSBOX_BUS", b"auto").decode("utf-8", "replace")
        ways = {
            "auto": ((PRIVATE_SOCKET, True), (SYSTEM_SOCKET, False)),
            "private": ((PRIVATE_SOCKET, True),),
            "system": ((SYSTEM_SOCKET, False),),
        }.get(wanted)
        if ways is None:
            raise SystemdError(f"SYSBOX_BUS={wanted}: must be auto, private or system")
        tried = []
        for path, private in ways:
            try:
                sock = _open(path, min(within, TIMEOUT))
                return cls(sock, private=private, within=within)
            except OSError as error:
                tried.append(f"{path}: {posix.strerror(error.errno or errno.EIO)}")
        none = SystemdError(f"no systemd to talk to ({'; '.join(tried)})", dbus_name=_CLOSED)
        none.hint = "PID 1 must be systemd; where it is not, `sysbox host start` boots one as root"
        raise none

    @classmethod
    def broker(cls, patience: float = TIMEOUT) -> Bus:
        """Connect to the system bus, to call other services than the manager. Raises SystemdError.

        `patience` is how long, in seconds, connecting and sending may block on a broker that does not read.
        """
        try:
            return cls(_open(SYSTEM_SOCKET, patience), private=False, manager=False)
        except OSError as error:
            why = posix.strerror(error.errno or errno.EIO)
            raise SystemdError(f"{SYSTEM_SOCKET}: {why}", dbus_name=_CLOSED) from None

    def _join_system_bus(self) -> None:
        rule = f"type='signal',sender='{SYSTEMD}',interface='{MANAGER}'"
        self._forget(self._queue(_DBUS, "/org/freedesktop/DBus", _DBUS, "Hello"))
        if not self._manager:
            return
        self._forget(self._queue(_DBUS, "/org/freedesktop/DBus", _DBUS, "AddMatch", "s", (rule,)))
        self._forget(self._queue(SYSTEMD, MANAGER_PATH, MANAGER, "Subscribe"))

    def _forget(self, serial: int) -> None:
        self._waiting.discard(serial)

    def _queue(
        self,
        to: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        args: Any = (),
        flags: int = 0,
    ) -> int:
        serial = self._next_serial()
        self._out += wire.method_call(serial, to, path, interface, member, signature, args, flags)
        self._waiting.add(serial)
        return serial

    def _next_serial(self) -> int:
        self._serial += 1
        return self._serial

    def send(
        self,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        args: Any = (),
        to: str = SYSTEMD,
        flags: int = 0,
    ) -> int:
        """Send a call without waiting; returns its serial, by which `reply` waits for the answer.

        `flags` are those of the message: `wire.NO_AUTO_START`.
        """
        serial = self._queue(to, path, interface, member, signature, args, flags)
        self._flush()
        return serial

    def call(
        self,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        args: Any = (),
        timeout: float = TIMEOUT,
        to: str = SYSTEMD,
    ) -> tuple[Any, ...]:
        """Call and wait; returns the reply's values. Raises SystemdError with the error's `dbus_name`."""
        return self.reply(self.send(path, interface, member, signature, args, to), timeout)

    def reply(self, serial: int, timeout: float = TIMEOUT) -> tuple[Any, ...]:
        """The values of the reply to `serial`; raises SystemdError for an error or after `timeout`."""
        deadline = time.monotonic() + timeout
        try:
            while serial not in self._replies:
                self._receive(deadline)
        except SystemdError:
            self._waiting.discard(serial)
            raise
        # not after an interrupt: the reply can still be asked for
        self._waiting.discard(serial)
        message = self._replies.pop(serial)
        if message.kind == wire.ERROR:
            text = message.args[0] if message.args and type(message.args[0]) is str else ""
            raise SystemdError(
                f"systemd: {text or message.error_name}", dbus_name=message.error_name
            )
        return message.args

    def watch(self, member: str) -> None:
        """Keep the manager's signals of this name from now on; JobRemoved is always kept."""
        self._watched.add(member)
        self._complete.add(member)

    def has_all(self, member: str) -> bool:
        """Whether every signal of this name was kept since `watch`: not if the connection was made anew."""
        return member in self._complete

    def wait_signal(
        self, member: str, predicate: Callable[[tuple[Any, ...]], bool], timeout_s: float = TIMEOUT
    ) -> tuple[Any, ...]:
        """The values of the first kept signal that `predicate` accepts; later ones stay queued.

        Raises SystemdError if none came within `timeout_s` seconds.
        """
        self.watch(member)
        deadline = time.monotonic() + timeout_s
        seen = 0
        while True:
            for index in range(seen, len(self._signals)):
                signal = self._signals[index]
                if signal.member == member and predicate(signal.args):
                    del self._signals[index]
                    return signal.args
            seen = len(self._signals) if len(self._signals) < _KEPT_SIGNALS else 0
            self._receive(deadline)

    def pending(self, member: str) -> list[tuple[Any, ...]]:
        """Take the kept signals of this name that have arrived; returns their values. Raises SystemdError."""
        if self._readable(0):
            self._receive(time.monotonic() + 1)
        found = [signal.args for signal in self._signals if signal.member == member]
        self._signals = [signal for signal in self._signals if signal.member != member]
        return found

    def fileno(self) -> int:
        """For poll(2) beside other descriptors."""
        return self._sock.fileno()

    def detach(self) -> int:
        """The descriptor of the connection, which the caller must close from now on."""
        return self._sock.detach()

    def close(self) -> None:
        """Close the connection; calls that were sent are still carried out."""
        self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _flush(self) -> None:
        try:
            self._sock.sendall(self._out)
        except OSError as error:
            raise self._lost(error) from None
        self._out.clear()

    def _lost(self, error: OSError | None) -> SystemdError:
        why = posix.strerror(error.errno or errno.EIO) if error else "systemd closed the connection"
        return SystemdError(f"systemd: {why}", dbus_name=_CLOSED)

    def _readable(self, seconds: float) -> bool:
        try:
            return bool(self._poll.poll(seconds * 1000))
        except OSError as error:
            # no reply can be read any more, so the caller must not wait for one
            raise self._lost(error) from None

    def _receive(self, deadline: float) -> None:
        """Wait for bytes, and keep the replies and signals that are complete. Raises SystemdError."""
        if self._authenticated and self._sort_complete():
            return  # an interrupt had left it
        remaining = min(deadline, self._until) - time.monotonic()
        if remaining <= 0 or not self._readable(remaining):
            raise SystemdError(
                "systemd did not answer in time", dbus_name="org.freedesktop.DBus.Error.Timeout"
            )
        try:
            data = self._sock.recv(1 << 16, _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError as error:
            raise self._lost(error) from None
        if not data:
            raise self._lost(None)
        self._in += data
        if not self._authenticated and not self._read_authentication():
            return
        self._sort_complete()

    def _sort_complete(self) -> bool:
        """Keep the replies and signals that are complete; whether there was a message."""
        found = False
        try:
            while (size := wire.message_size(self._in)) and size <= len(self._in):
                found = True
                data = bytes(self._in[:size])
                if self._is_watched(data):
                    self._sort(wire.parse(data))
                # only now: an interrupt would lose it
                del self._in[:size]
        except wire.WireError as error:
            raise SystemdError(f"systemd: {error}", dbus_name=_CLOSED) from None
        return found

    def _read_authentication(self) -> bool:
        """Read the server's authentication line; True once it has come. Raises SystemdError if refused."""
        line, found, rest = bytes(self._in).partition(b"\r\n")
        if not found:
            if len(line) > _LINE_MAX:
                raise SystemdError("systemd: no D-Bus server answers", dbus_name=_CLOSED)
            return False
        if not line.startswith(b"OK "):
            raise SystemdError(
                "systemd: D-Bus authentication was refused",
                dbus_name="org.freedesktop.DBus.Error.AccessDenied",
            )
        self._in = bytearray(rest)
        self._authenticated = True
        # sd-bus may have read our first call together with BEGIN; it then handles it only when the socket
        # becomes readable again, so a message that needs no answer follows
        self._out += wire.method_call(
            self._next_serial(), SYSTEMD, "/", f"{_DBUS}.Peer", "Ping", flags=wire.NO_REPLY_EXPECTED
        )
        self._flush()
        return True

    def _is_watched(self, data: bytes) -> bool:
        """False for a signal that is not watched: PID 1 sends a private peer the signals of every unit."""
        return data[1] != wire.SIGNAL or any(name.encode() in data for name in self._watched)

    def _sort(self, message: wire.Message) -> None:
        if message.kind in (wire.RETURN, wire.ERROR):
            if message.reply_serial in self._waiting:
                self._replies[message.reply_serial] = message
        elif message.kind == wire.SIGNAL and message.member in self._watched:
            self._signals.append(message)
            if len(self._signals) > _KEPT_SIGNALS:
                del self._signals[0]
                self._complete.clear()


def _open(path: str, patience: float = TIMEOUT) -> _socket.socket:
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        # for connect(2) too, which blocks while the socket's backlog is full
        sock.setsockopt(
            _socket.SOL_SOCKET,
            _socket.SO_SNDTIMEO,
            _TIMEVAL(*divmod(int(patience * 1e6), 1_000_000)),
        )
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


def is_lost(error: SystemdError) -> bool:
    """Whether the connection itself broke, as it does when PID 1 re-executes (daemon-reexec)."""
    return error.dbus_name in _LOST
