"""Clients over TCP (RFC 7766): each message has its length before it, in two bytes.

What a client may hold is bounded: connections, questions at a time, time for a whole question, and answers
that it does not read.
"""

from __future__ import annotations

import socket

from sysbox.resolver import wire
from sysbox.resolver.loop import READ, WRITE, Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    # asks for an answer: the question, the client's address, and what to call with the answer
    Ask = Callable[[bytes, str, Callable[[bytes], None]], None]

_ALL, _OF_ONE = 256, 16  # connections
_PATIENCE = 10.0  # seconds for a whole question, and between two
_AT_A_TIME = 16  # questions of one connection that are being answered
_UNREAD = 1 << 18  # bytes of answers that the client has not read
_PIECE = 4096  # bytes
_HEADER = 2  # bytes


class Streams:
    """All connections."""

    def __init__(self, loop: Loop, is_client: Callable[[str], bool], ask: Ask) -> None:
        self.loop = loop
        self.ask = ask
        self._is_client = is_client
        self._open: dict[str, int] = {}  # client -> connections
        self.count = 0

    def accept(self, listener: socket.socket) -> None:
        """Take the connections that wait."""
        for _ in range(_OF_ONE):
            try:
                sock, address = listener.accept()
            except OSError:
                return  # ignoring: none waits any more, or its client has gone
            sock.setblocking(False)
            client = address[0]
            mine = self._open.get(client, 0)
            if mine >= _OF_ONE or self.count >= _ALL or not self._is_client(client):
                sock.close()
                continue
            self._open[client] = mine + 1
            self.count += 1
            _Connection(self, sock, client)

    def closed(self, client: str) -> None:
        self.count -= 1
        left = self._open[client] - 1
        if left:
            self._open[client] = left
        else:
            del self._open[client]


class _Connection:
    """One connection. A client that sends what is no question is disconnected."""

    def __init__(self, owner: Streams, sock: socket.socket, client: str) -> None:
        self._owner = owner
        self._socket = sock
        self._client = client
        self._in = b""
        self._out = b""
        self._asked = 0  # questions that are being answered
        self._events = READ
        self._closed = False
        self._timer = owner.loop.later(_PATIENCE, self._close)
        owner.loop.watch(sock.fileno(), READ, self._ready)

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._timer.cancel()
            self._owner.loop.forget(self._socket.fileno())
            self._socket.close()
            self._owner.closed(self._client)

    def _ready(self) -> None:
        if self._out and not self._flush():
            return
        if self._asked >= _AT_A_TIME:
            self._wait()
            return
        try:
            piece = self._socket.recv(_PIECE)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            self._close()
            return
        self._in += piece
        self._take()

    def _take(self) -> None:
        """Ask the questions that are complete."""
        while not self._closed and self._asked < _AT_A_TIME and len(self._in) >= _HEADER:
            length = int.from_bytes(self._in[:_HEADER], "big")
            if not 0 < length <= wire.QUESTION_MAX:
                self._close()
                return
            if len(self._in) < _HEADER + length:
                break
            question = self._in[_HEADER : _HEADER + length]
            self._in = self._in[_HEADER + length :]
            self._timer.cancel()
            self._timer = self._owner.loop.later(_PATIENCE, self._close)
            self._asked += 1
            self._owner.ask(question, self._client, self._answer)
        self._wait()

    def _answer(self, answer: bytes) -> None:
        """Send one; b"" for a message that was no question."""
        self._asked -= 1
        if self._closed:
            return
        if not answer or len(self._out) + len(answer) > _UNREAD:
            self._close()
            return
        self._out += len(answer).to_bytes(_HEADER, "big") + answer
        if self._flush():
            self._take_later()

    def _take_later(self) -> None:
        """Go on with the questions that have arrived meanwhile: not from within `_take`."""
        if self._asked == _AT_A_TIME - 1:
            self._owner.loop.later(0.0, self._take)
        self._wait()

    def _flush(self) -> bool:
        """Send what can be sent; False where the connection is closed."""
        try:
            self._out = self._out[self._socket.send(self._out) :]
        except BlockingIOError:
            pass
        except OSError:
            self._close()
            return False
        self._wait()
        return True

    def _wait(self) -> None:
        """Wait for what can be done: nothing is read while too many questions are being answered."""
        if self._closed:
            return
        events = (READ if self._asked < _AT_A_TIME else 0) | (WRITE if self._out else 0)
        if events == self._events:
            return
        self._events = events
        if events:
            self._owner.loop.watch(self._socket.fileno(), events, self._ready)
        else:
            # not watched without events: the end of a connection is reported whether it is asked for or not
            self._owner.loop.forget(self._socket.fileno())
