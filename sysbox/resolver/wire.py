"""DNS messages as they are sent. The library dnslib reads and writes them; nothing else parses a message.

RFC 1035 has the format, RFC 6891 the extension by which a client says what it can receive over UDP.
"""

from __future__ import annotations

import posix

from sysbox.base import program
from sysbox.base.frozen import Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

A, PTR, AAAA, ANY = 1, 12, 28, 255
INTERNET = 1  # the class IN
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)

QUESTION_MAX = (
    1232  # bytes: of a question, over UDP and TCP; with every usual extension it has some 100
)
ANSWER_MAX = 65535  # bytes over TCP, and the most that a client may ask for over UDP
_UDP_PLAIN = 512  # bytes: of an answer to a client without the extension
_UDP_OURS = 1232  # bytes that we say we receive: fits a packet of IPv6's least MTU, so it is never fragmented
_HEADER = 12  # bytes
_EXTENSION = 41  # the type OPT
_NAME_MAX = 255  # bytes on the wire, with the lengths of the labels


class Question(Frozen):
    """A question that a client has asked."""

    labels: tuple[bytes, ...]  # of the name, in lower case
    kind: int  # the type: A, AAAA, PTR, ...
    internet: bool  # whether its class is IN
    opcode: int  # 0 is a query
    limit: int  # bytes of an answer of ours over UDP
    accepts: int  # bytes of any answer over UDP
    extended: bool  # whether the client knows the extension
    section: bytes  # the question section as it was sent
    parsed: Any  # dnslib's own record


class Wire:
    """Reads questions and writes answers."""

    def __init__(self) -> None:
        try:
            import dnslib
        except ImportError:
            program.load_site()
            import dnslib

        self._lib: Any = dnslib

    def parse(self, data: bytes) -> Question | None:
        """The question in a message; None for a message that is none, is malformed, or is too large.

        The first twelve bytes are looked at before the library sees the message: an answer is not a
        question, and one with records in it is none that a resolver of ours gets.
        """
        if not _HEADER < len(data) <= QUESTION_MAX or data[2] & 0x80:
            return None
        if data[4:10] != b"\0\1\0\0\0\0" or data[10:12] > b"\0\2":
            return None
        try:
            record = self._lib.DNSRecord.parse(data)
            buffer = self._lib.DNSBuffer(data)
            buffer.offset = _HEADER
            self._lib.DNSQuestion.parse(buffer)
        except Exception:  # noqa: BLE001 (the library has no common error; whatever it is, it is no question)
            return None
        name = record.q.qname.label
        section = data[_HEADER : buffer.offset]
        # a pointer in a question leads into the header: the name is not in the section, byte for byte
        if sum(map(len, name)) + len(name) + 5 != len(section) or len(section) > _NAME_MAX + 4:
            return None
        sizes = [one.rclass for one in record.ar if one.rtype == _EXTENSION]
        accepts = max(_UDP_PLAIN, *sizes) if sizes else _UDP_PLAIN
        return Question(
            labels=tuple(label.lower() for label in name),
            kind=record.q.qtype,
            internet=record.q.qclass == INTERNET,
            opcode=record.header.opcode,
            limit=min(accepts, _UDP_OURS),
            accepts=accepts,
            extended=bool(sizes),
            section=section,
            parsed=record,
        )

    def question(self, name: str, kind: int) -> bytes:
        """A question of our own, with a random id."""
        record = self._lib.DNSRecord(q=self._lib.DNSQuestion(name, kind))
        return posix.urandom(2) + bytes(record.pack())[2:]

    def answer(
        self,
        question: Question,
        code: int,
        records: tuple[tuple[int, str], ...] = (),
        *,
        limit: int,
    ) -> bytes:
        """An answer: the records are (type, address or name), each with a time to live of 0.

        One that has more than `limit` bytes is sent without records and says so: the client asks again over
        TCP. No answer has an SOA record, so a negative one may not be kept (RFC 2308, 5).
        """
        data = self._pack(question, code, records)
        if len(data) <= limit:
            return data
        short = bytearray(self._pack(question, code, ()))
        short[2] |= 2  # TC
        return bytes(short)

    def _pack(self, question: Question, code: int, records: tuple[tuple[int, str], ...]) -> bytes:
        lib = self._lib
        asked = question.parsed
        header = lib.DNSHeader(
            id=asked.header.id,
            qr=1,
            opcode=question.opcode,
            aa=0,
            ra=1,
            rd=asked.header.rd,
            rcode=code,
        )
        reply = lib.DNSRecord(header, q=asked.q)
        kinds = {A: lib.A, AAAA: lib.AAAA, PTR: lib.PTR}
        for kind, value in records:
            reply.add_answer(lib.RR(asked.q.qname, kind, rdata=kinds[kind](value), ttl=0))
        if question.extended:
            reply.add_ar(lib.EDNS0(udp_len=_UDP_OURS))
        return bytes(reply.pack())

    def not_kept(self, data: bytes) -> bytes:
        """A negative answer of another resolver, with a time to live of 0 in its authority section.

        "No such name" must not outlive the start of a container that has the name. Raises ValueError for a
        message that cannot be read.
        """
        try:
            record = self._lib.DNSRecord.parse(data)
            for one in record.auth:
                one.ttl = 0
            return bytes(record.pack())
        except Exception:  # noqa: BLE001 (as above)
            raise ValueError("not a DNS message") from None


def failure(question: bytes, section: bytes, code: int, *, truncated: bool = False) -> bytes:
    """An answer without records, from the bytes of the question and of its question section."""
    flags = 0x80 | (question[2] & 0x79) | (2 if truncated else 0)
    return question[:2] + bytes((flags, 0x80 | code)) + b"\0\1\0\0\0\0\0\0" + section


def code_of(answer: bytes) -> int:
    """The response code, of a message with a header."""
    return answer[3] & 15


def answers_to(answer: bytes, ident: bytes, section: bytes) -> bool:
    """Whether a message is an answer to this very question: its id, and its question byte for byte."""
    return (
        answer[:2] == ident
        and len(answer) >= _HEADER
        and answer[2] & 0x80 != 0
        and answer[4:6] == b"\0\1"
        and answer[_HEADER : _HEADER + len(section)] == section
    )


def is_negative(answer: bytes) -> bool:
    """Whether it says that there is no such name, or nothing of the kind that was asked for."""
    code = code_of(answer)
    whole = answer[2] & 2 == 0
    return code == NXDOMAIN or (code == NOERROR and whole and answer[6:8] == b"\0\0")
