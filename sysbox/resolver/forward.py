"""Questions on their way to other resolvers.

A forged answer is the danger (CVE-2008-1447): each question leaves from a socket of its own, which the kernel
gives a random port and which receives from that server alone, with a random id; an answer must repeat the
question byte for byte. Nothing that other resolvers say is kept here.
"""

from __future__ import annotations

import _socket
import errno
import posix

from sysbox.resolver import wire
from sysbox.resolver.loop import READ, WRITE, Loop
from sysbox.resolver.upstream import Upstream, endpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sysbox.resolver.answers import Forward
    from sysbox.resolver.wire import Wire

    Reply = Callable[[bytes], None]

_PENDING = 2048  # questions at a time
_PENDING_OF_ONE = 128  # of one client
_SIBLINGS = 8
_SIBLING = 0.5  # seconds for the resolver of another network on this host, which may have to start
_FIRST, _AGAIN, _LAST = (
    1.0,
    2.0,
    5.0,
)  # seconds for a server: in the first round, in the second, the last one
_NEXT = (wire.SERVFAIL, wire.REFUSED, wire.NOTIMP, wire.FORMERR)  # another server may know better
_FLAGS = _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC
_STREAM_HEADER = 2  # bytes: the length of a message over TCP


class Forwarder:
    """Has other resolvers answer, several questions at a time."""

    def __init__(self, loop: Loop, codec: Wire, upstream: Upstream) -> None:
        self.loop = loop
        self.wire = codec
        self.upstream = upstream
        self.pending = 0
        self._of_client: dict[str, int] = {}

    def ask(
        self, data: bytes, forward: Forward, client: str, reply: Reply, *, stream: bool = False
    ) -> None:
        """Forward a question; `reply` gets the answer, once. One too many is refused at once."""
        count = self._of_client.get(client, 0)
        if self.pending >= _PENDING or count >= _PENDING_OF_ONE:
            reply(wire.failure(data, forward.question.section, wire.SERVFAIL))
            return
        self.pending += 1
        self._of_client[client] = count + 1
        _Exchange(self, data, forward, client, reply, stream=stream).next()

    def done(self, client: str) -> None:
        self.pending -= 1
        left = self._of_client[client] - 1
        if left:
            self._of_client[client] = left
        else:
            del self._of_client[client]


class _Exchange:
    """One question, with all that were asked and may still answer."""

    def __init__(
        self,
        owner: Forwarder,
        data: bytes,
        forward: Forward,
        client: str,
        reply: Reply,
        *,
        stream: bool,
    ) -> None:
        self._owner = owner
        self._data = data
        self._forward = forward
        self._client = client
        self._reply = reply
        self._stream = stream
        self._tries: list[_Try] = []
        self._timer = owner.loop.later(0.0, lambda: None)
        self._best = b""  # an answer that is none, if no server has a better one
        self._plan = self._whom()

    def _whom(self) -> list[tuple[str, bool, float]]:
        """(server, whether it is a sibling, seconds to wait for it), in order."""
        plan = [(one, True, _SIBLING) for one in self._forward.siblings[:_SIBLINGS]]
        if self._forward.outside:
            asked = self._forward.servers or self._owner.upstream.servers()
            servers = self._owner.upstream.in_order(asked)
            plan += [(one, False, _FIRST) for one in servers]
            plan += [(one, False, _AGAIN) for one in servers[:-1]]
            plan += [(one, False, _LAST) for one in servers[-1:]]
        plan.reverse()
        return plan

    def next(self) -> None:
        """Ask the next one, while those before may still answer."""
        self._timer.cancel()
        while self._plan:
            server, sibling, seconds = self._plan.pop()
            try:
                one = _Try(self, server, sibling=sibling)
            except (OSError, UnicodeError):
                continue  # no route to it, or it is no address
            self._tries.append(one)
            self._timer = self._owner.loop.later(seconds, self._later(one))
            return
        self._end(b"")

    def _later(self, one: _Try) -> Callable[[], None]:
        return lambda: self._late(one)

    def _late(self, one: _Try) -> None:
        if not one.sibling:
            self._owner.upstream.was_late(one.server)
        self.next()

    def take(self, one: _Try, answer: bytes) -> None:
        """An answer to this very question, with the id of the try."""
        code = wire.code_of(answer)
        current = one is self._tries[-1]
        if one.sibling and code != wire.NOERROR:
            if current:
                self.next()
            return
        if not one.sibling:
            self._owner.upstream.has_answered(one.server)
        if code in _NEXT and (self._plan or not current):
            self._best = self._best or answer
            if current:
                self.next()
            return
        self._end(answer)

    def failed(self, one: _Try) -> None:
        """It cannot be reached, as its host says."""
        if one is self._tries[-1]:
            self._late(one)

    def _end(self, answer: bytes) -> None:
        self._timer.cancel()
        for one in self._tries:
            one.close()
        self._tries = []  # each refers to this, so that only the garbage collector would free them
        self._owner.done(self._client)
        self._reply(self._finished(answer or self._best))

    def _finished(self, answer: bytes) -> bytes:
        section = self._forward.question.section
        if answer and wire.is_negative(answer):
            try:
                answer = self._owner.wire.not_kept(answer)
            except ValueError:
                answer = b""
        if not answer:
            code = wire.SERVFAIL if self._forward.outside else wire.NXDOMAIN
            return wire.failure(self._data, section, code)
        if not self._stream and len(answer) > self._forward.question.accepts:
            return wire.failure(self._data, section, wire.NOERROR, truncated=True)
        return self._data[:2] + answer[2:]

    @property
    def question(self) -> bytes:
        return self._data

    @property
    def section(self) -> bytes:
        return self._forward.question.section

    @property
    def is_stream(self) -> bool:
        return self._stream

    @property
    def loop(self) -> Loop:
        return self._owner.loop


class _Try:
    """One server that was asked, over a socket of its own."""

    def __init__(self, exchange: _Exchange, server: str, *, sibling: bool) -> None:
        """Send the question, or begin to connect. Raises OSError."""
        self.server = server
        self.sibling = sibling
        self._exchange = exchange
        self._id = posix.urandom(2)
        message = self._id + exchange.question[2:]
        family, address = endpoint(server)
        kind = _socket.SOCK_STREAM if exchange.is_stream else _socket.SOCK_DGRAM
        self._socket = _socket.socket(family, kind | _FLAGS)
        self._in = b""
        try:
            if exchange.is_stream:
                self._out = len(message).to_bytes(_STREAM_HEADER, "big") + message
                self._connect(address)
            else:
                # receives from this server alone, and learns that nobody listens there
                self._socket.connect(address)
                self._socket.send(message)
                exchange.loop.watch(self._socket.fileno(), READ, self._receive)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Take no answer any more."""
        if self._socket.fileno() >= 0:
            self._exchange.loop.forget(self._socket.fileno())
            self._socket.close()

    def _receive(self) -> None:
        try:
            answer = self._socket.recv(wire.ANSWER_MAX)
        except BlockingIOError:
            return
        except OSError:
            self._fail()
            return
        if wire.answers_to(answer, self._id, self._exchange.section):
            self._exchange.take(self, answer)

    def _fail(self) -> None:
        self.close()
        self._exchange.failed(self)

    def _connect(self, address: Any) -> None:
        try:
            self._socket.connect(address)
        except BlockingIOError:
            pass
        self._exchange.loop.watch(self._socket.fileno(), WRITE, self._send)

    def _send(self) -> None:
        try:
            failed = self._socket.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
            if failed:
                raise OSError(failed, posix.strerror(failed))
            self._out = self._out[self._socket.send(self._out) :]
        except BlockingIOError:
            return
        except OSError:
            self._fail()
            return
        if not self._out:
            self._exchange.loop.watch(self._socket.fileno(), READ, self._read)

    def _read(self) -> None:
        try:
            piece = self._socket.recv(wire.ANSWER_MAX)
            if not piece:
                raise OSError(errno.ECONNRESET, "")
        except BlockingIOError:
            return
        except OSError:
            self._fail()
            return
        self._in += piece
        length = int.from_bytes(self._in[:_STREAM_HEADER], "big")
        if len(self._in) < _STREAM_HEADER + length or len(self._in) < _STREAM_HEADER:
            return
        answer = self._in[_STREAM_HEADER : _STREAM_HEADER + length]
        if wire.answers_to(answer, self._id, self._exchange.section):
            self._exchange.take(self, answer)
        else:
            self._fail()
