"""A web server on loopback whose every byte a test decides: it lies, stalls, cuts and leads astray.

with Hostile() as server:
    server.routes["GET /v2/app/manifests/1"] = reply(200, b"{}")
    server.requests       # what came, with headers in lower case
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Self

LOOPBACK = "127.0.0.1"
_LONGEST = 64 << 20


class Seen:
    """One request."""

    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        self.method, self.target, self.headers, self.body = method, target, headers, body

    def __repr__(self) -> str:
        return f"{self.method} {self.target} {self.headers}"


Reply = bytes | Iterable[bytes]
Route = Reply | Callable[[Seen], Reply]


def reply(status: int, body: bytes = b"", *, length: int | None = None, **headers: str) -> bytes:
    """An answer with a Content-Length, which may lie; `content_type=` is the header Content-Type."""
    size = len(body) if length is None else length
    lines = [f"HTTP/1.1 {status} as told", f"Content-Length: {size}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunked(status: int, *chunks: bytes, end: bool = True, **headers: str) -> bytes:
    """An answer in chunks, without its end if that is asked for."""
    lines = [f"HTTP/1.1 {status} as told", "Transfer-Encoding: chunked", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    parts = [b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks]
    return "\r\n".join([*lines, "", ""]).encode() + b"".join(parts) + (b"0\r\n\r\n" if end else b"")


def slowly(data: bytes, pause: float) -> Iterable[bytes]:
    """One byte at a time."""
    for at in range(len(data)):
        time.sleep(pause)
        yield data[at : at + 1]


def in_turn(*routes: Route) -> Callable[[Seen], Reply]:
    """One after the other; the last one from then on."""
    left = list(routes)

    def take(seen: Seen) -> Reply:
        one = left.pop(0) if len(left) > 1 else left[0]
        return one(seen) if callable(one) else one

    return take


class Hostile:
    """The server; a context manager. `any` is the route of all that have none, else 404."""

    def __init__(self, tls: tuple[Any, Any] | None = None) -> None:
        self.routes: dict[str, Route] = {}
        self.requests: list[Seen] = []
        self.connections = 0
        self.tunnel: tuple[str, int] | None = None  # where CONNECT leads, as a proxy
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        self.host = f"{LOOPBACK}:{self.port}"
        self.url = f"{'https' if tls else 'http'}://{self.host}"
        self._tls: ssl.SSLContext | None = None
        if tls:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(*tls)
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._ended = False

    def seen(self, start: str) -> list[Seen]:
        """The requests whose `METHOD TARGET` begins with that."""
        return [one for one in self.requests if f"{one.method} {one.target}".startswith(start)]

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        for one in (self._listener, *self._open):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _start(self, run: Callable[..., None], *given: Any) -> None:
        thread = threading.Thread(target=run, args=given, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._ended:
            try:
                one, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._start(self._serve, one)

    def _serve(self, one: socket.socket) -> None:
        try:
            if self._tls:
                one = self._tls.wrap_socket(one, server_side=True)
            self._open.add(one)
            with one, one.makefile("rb") as file:
                while (seen := _read(file)) is not None:
                    self.requests.append(seen)
                    if seen.method == "CONNECT" and self.tunnel:
                        _pass_on(one, self.tunnel)
                        return
                    for part in self._reply(seen):
                        one.sendall(part)
                    # a lie about the length would confuse the next answer
                    return
        except (OSError, ssl.SSLError, ValueError):
            pass
        finally:
            self._open.discard(one)

    def _reply(self, seen: Seen) -> Iterable[bytes]:
        path = seen.target.partition("?")[0]
        route: Route = reply(404)
        for key in (f"{seen.method} {seen.target}", f"{seen.method} {path}", "any"):
            if key in self.routes:
                route = self.routes[key]
                break
        found = route(seen) if callable(route) else route
        return [found] if isinstance(found, bytes) else found


def _read(file: Any) -> Seen | None:
    line = file.readline(_LONGEST).decode("latin-1").split()
    if len(line) != 3:
        return None
    headers = {}
    while text := file.readline(_LONGEST).decode("latin-1").strip():
        name, _, value = text.partition(":")
        headers[name.lower()] = value.strip()
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(file.readline(), 16):
            body += file.read(size)
            file.readline()
        file.readline()
    else:
        body = file.read(int(headers.get("content-length", 0)))
    return Seen(line[0], line[1], headers, body)


def _pass_on(one: socket.socket, target: tuple[str, int]) -> None:
    """Be a tunnel until an end closes."""
    with socket.create_connection(target) as other:
        one.sendall(b"HTTP/1.1 200 established\r\n\r\n")
        ways = {one: other, other: one}
        while True:
            for ready in select.select(list(ways), [], [])[0]:
                data = ready.recv(1 << 16)
                if not data:
                    return
                ways[ready].sendall(data)
