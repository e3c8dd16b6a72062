"""A small DNS client, and servers for a resolver to ask, over real sockets."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable

import dnslib  # noqa: TID253 (no start waits for a test)

SILENCE = 5.0  # seconds that a server waits for a question
# seconds: a resolver that is asked for the first time has to start; a slow machine says that it is one
TIMEOUT = 20.0 * float(os.environ.get("SYSBOX_TEST_SLOWNESS", "1"))


def question(name: str, kind: str = "A", *, size: int = 0, ident: int = 0) -> bytes:
    """A question as bytes; `size` adds the extension of RFC 6891."""
    record = dnslib.DNSRecord.question(name, kind)
    record.header.id = ident or int.from_bytes(os.urandom(2), "big")
    if size:
        record.add_ar(dnslib.EDNS0(udp_len=size))
    return bytes(record.pack())


def exchange(
    server: tuple[str, int], data: bytes, source: str = "", timeout: float = TIMEOUT
) -> bytes | None:
    """The answer to a datagram, or None after `timeout` seconds."""
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout)
        if source:
            sock.bind((source, 0))
        sock.sendto(data, server)
        try:
            return sock.recv(65535)
        except TimeoutError:
            return None


def receive_stream(sock: socket.socket) -> bytes:
    """One message from a connection; b"" at its end."""
    data = b""
    while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2], "big"):
        piece = sock.recv(65537)
        if not piece:
            return b""
        data += piece
    return data[2:]


def exchange_stream(server: tuple[str, int], data: bytes, source: str = "") -> bytes:
    """The answer over TCP."""
    where = (source, 0) if source else None
    with socket.create_connection(server, TIMEOUT, source_address=where) as sock:
        sock.sendall(len(data).to_bytes(2, "big") + data)
        return receive_stream(sock)


def ask(
    server: tuple[str, int],
    name: str,
    kind: str = "A",
    source: str = "",
    *,
    size: int = 0,
    stream: bool = False,
) -> tuple[str, list[str]]:
    """(response code, the data of the answers, sorted) of a question; ("TIMEOUT", []) without an answer."""
    data = question(name, kind, size=size)
    answer = exchange_stream(server, data, source) if stream else exchange(server, data, source)
    if answer is None:
        return "TIMEOUT", []
    record = dnslib.DNSRecord.parse(answer)
    assert answer[:2] == data[:2]
    assert record.header.qr == 1
    assert str(record.q.qname) == str(dnslib.DNSRecord.parse(data).q.qname)
    code = str(dnslib.RCODE[record.header.rcode])
    return code + ("+TC" if record.header.tc else ""), sorted(str(one.rdata) for one in record.rr)


class Server:
    """A server on UDP and TCP that answers each question by a function; it counts what it was asked."""

    def __init__(self, address: tuple[str, int], answer: Callable[[bytes], bytes | None]) -> None:
        self.asked: list[bytes] = []
        self.sources: list[tuple[str, int]] = []
        self._answer = answer
        self._datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._datagram.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._datagram.bind(address)
        self._stream = socket.create_server(address)
        self._closed = False
        targets = (self._serve, self._serve_stream)
        self._threads = [threading.Thread(target=target, daemon=True) for target in targets]
        for thread in self._threads:
            thread.start()

    def _reply(self, data: bytes) -> bytes | None:
        self.asked.append(data)
        return self._answer(data)

    def _serve(self) -> None:
        while True:
            try:
                data, source = self._datagram.recvfrom(65535)
                if self._closed:
                    return
                if not data:
                    continue
                self.sources.append(source)
                answer = self._reply(data)
                if answer is not None:
                    self._datagram.sendto(answer, source)
            except OSError:
                return

    def _serve_stream(self) -> None:
        while True:
            try:
                sock, _ = self._stream.accept()
            except OSError:
                return
            with sock:
                sock.settimeout(SILENCE)
                data = receive_stream(sock)
                answer = self._reply(data)
                if answer is not None:
                    sock.sendall(len(answer).to_bytes(2, "big") + answer)

    def wait_for(self, count: int) -> None:
        """Wait until it was asked so many different questions."""
        deadline = time.monotonic() + TIMEOUT
        while len(set(self.asked)) < count:
            assert time.monotonic() < deadline, f"{len(set(self.asked))} of {count} questions came"
            time.sleep(0.002)

    def close(self) -> None:
        self._closed = True
        for sock in (self._datagram, self._stream):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # a datagram socket is not connected, but its reader wakes up
        # before the descriptors are free: a thread that has just taken one's number would read from the
        # socket that has it next, and the answer to another test's question would be lost
        for thread in self._threads:
            thread.join()
        self._datagram.close()
        self._stream.close()


def says(*values: str, kind: str = "A", ttl: int = 300) -> Callable[[bytes], bytes]:
    """Answers each question with these records."""

    def answer(data: bytes) -> bytes:
        asked = dnslib.DNSRecord.parse(data)
        reply = asked.reply()
        for value in values:
            kinds = {"A": dnslib.A, "TXT": dnslib.TXT}
            reply.add_answer(
                dnslib.RR(
                    asked.q.qname, getattr(dnslib.QTYPE, kind), rdata=kinds[kind](value), ttl=ttl
                )
            )
        return bytes(reply.pack())

    return answer


def refuses(code: str, *, soa: bool = False) -> Callable[[bytes], bytes]:
    """Answers each question with a response code, and an SOA record that would have it kept for a day."""

    def answer(data: bytes) -> bytes:
        asked = dnslib.DNSRecord.parse(data)
        reply = asked.reply()
        reply.header.rcode = getattr(dnslib.RCODE, code)
        if soa:
            times = (1, 86400, 86400, 86400, 86400)
            rdata = dnslib.SOA("a.example", "b.example", times)
            reply.add_auth(dnslib.RR("example", dnslib.QTYPE.SOA, rdata=rdata, ttl=86400))
        return bytes(reply.pack())

    return answer
