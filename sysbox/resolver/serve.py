"""The resolver's process: takes the sockets of systemd's, answers, and leaves when nobody asks."""

from __future__ import annotations

import gc
import posix
import socket

from sysbox.base.errors import SysboxError
from sysbox.netns import names
from sysbox.resolver import wire
from sysbox.resolver.answers import Answers, Forward
from sysbox.resolver.forward import Forwarder
from sysbox.resolver.loop import READ, Loop
from sysbox.resolver.streams import Streams
from sysbox.resolver.upstream import Upstream
from sysbox.resolver.zone import Zone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    # client -> its questions that wait, each with where it came from
    Queues = dict[str, list[tuple[bytes, tuple[str, int]]]]

IDLE = 30.0  # seconds. A shorter time would run into the limits of systemd's for starts
_FIRST_FD = 3  # sd_listen_fds(3)
_TAKEN = 4096  # datagrams that are received before any is answered
_WAITING = 256  # questions of one client that wait; those beyond are dropped
_TURN = 64  # questions that are answered in a turn, of all clients
# of a client whose questions are dropped: the socket's queue, which all share, must not fill up meanwhile
_TURN_OF_FLOOD = 4


def main(network: str) -> int:
    """Serve a network until nobody asks any more. Returns the exit status; raises SysboxError."""
    sockets = _passed()
    if not sockets:
        raise SysboxError(
            f"_resolve {network}: there are no sockets", hint="systemd starts it, by its socket"
        )
    Resolver(names.directory_of(network), sockets, Upstream()).run(IDLE)
    return 0


def _passed() -> list[socket.socket]:
    """The sockets that systemd has opened for this process."""
    text = posix.environ.get(b"LISTEN_PID", b""), posix.environ.get(b"LISTEN_FDS", b"")
    if text[0] != str(posix.getpid()).encode() or not text[1].isdigit():
        return []
    return [socket.socket(fileno=_FIRST_FD + at) for at in range(int(text[1]))]


class Resolver:
    """Serves datagram and stream sockets. A question from an address that is not the network's is dropped."""

    def __init__(self, directory: str, sockets: list[socket.socket], upstream: Upstream) -> None:
        self._loop = Loop()
        self._zone = Zone(directory)
        codec = wire.Wire()
        self._answers = Answers(self._zone, codec)
        self._forwarder = Forwarder(self._loop, codec, upstream)
        self._streams = Streams(self._loop, self._may_ask, self._ask_stream)
        for sock in sockets:
            sock.setblocking(False)
            stream = sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
            take = self._streams.accept if stream else self._datagrams()
            self._loop.watch(sock.fileno(), READ, _call(take, sock))

    def _datagrams(self) -> Callable[[socket.socket], None]:
        """The handler of a datagram socket, with the questions that wait there."""
        queues: Queues = {}
        return lambda sock: self._serve(sock, queues)

    def run(self, idle: float) -> None:
        """Serve until nothing has come for `idle` seconds."""
        gc.enable()  # unlike other commands, this one lives long enough for its garbage to matter
        self._loop.run(idle, lambda: self._forwarder.pending > 0 or self._streams.count > 0)

    def _serve(self, sock: socket.socket, queues: Queues) -> None:
        """Take what has arrived, and answer each client in its turn: one that asks too much waits itself.

        It returns after some answers, so that the other sockets have their turn too.
        """
        self._receive(sock, queues)
        # after the questions were received: what was true before they were sent is known now
        self._zone.refresh()
        each = max(_TURN // max(len(queues), 1), 1)
        for client in tuple(queues):
            queue = queues[client]
            turn = min(each, _TURN_OF_FLOOD) if len(queue) >= _WAITING else each
            for data, address in queue[:turn]:
                self._answer(sock, data, address)
            del queue[:turn]
            if not queue:
                del queues[client]
        if queues:
            self._loop.later(0.0, lambda: self._serve(sock, queues))

    def _may_ask(self, address: str) -> bool:
        return self._zone.is_client(address) or self._zone.is_host(address)

    def _receive(self, sock: socket.socket, queues: Queues) -> None:
        """Take what waits in the socket, and drop what is too much of one client."""
        is_client = self._zone.is_client
        for _ in range(_TAKEN):
            try:
                data, address = sock.recvfrom(wire.QUESTION_MAX + 1)
            except OSError:
                return  # ignoring: nothing waits
            queue = queues.get(address[0])
            if queue is None:
                if is_client(address[0]) or self._zone.is_host(address[0]):
                    queues[address[0]] = [(data, address)]
            elif len(queue) < _WAITING:
                queue.append((data, address))

    def _answer(self, sock: socket.socket, data: bytes, address: tuple[str, int]) -> None:
        def reply(answer: bytes) -> None:
            try:
                sock.sendto(answer, address)
            except OSError:
                pass  # ignoring: the client has gone, or its queue is full; it asks again

        found = self._answers.answer(data, address[0])
        if isinstance(found, Forward):
            self._forwarder.ask(data, found, address[0], reply)
        elif found is not None:
            reply(found)

    def _ask_stream(self, data: bytes, client: str, reply: Callable[[bytes], None]) -> None:
        self._zone.refresh()
        found = self._answers.answer(data, client, stream=True)
        if isinstance(found, Forward):
            self._forwarder.ask(data, found, client, reply, stream=True)
        else:
            reply(found or b"")


def _call(take: Callable[[socket.socket], None], sock: socket.socket) -> Callable[[], None]:
    return lambda: take(sock)
