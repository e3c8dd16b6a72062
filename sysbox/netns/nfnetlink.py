"""The kernel's nf_tables without nft(8): elements of maps, and what there is, each in one message.

Starting nft(8) takes longer than making the rest of a container's network. linux/netfilter/nf_tables.h has
the attributes; a test compares what is written here with what nft(8) shows.
"""

from __future__ import annotations

import _socket
import _struct
import errno as _errno

from sysbox.base.errors import KernelError
from sysbox.base.frozen import Frozen
from sysbox.netns import rtnetlink as rt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

_NETLINK_NETFILTER = 12
_TABLES = 10  # NFNL_SUBSYS_NFTABLES
_BATCH_BEGIN, _BATCH_END = 16, 17
NEWSETELEM, DELSETELEM = 12, 14
_GETCHAIN = 4
_FLAG_DUMP = 0x300
_DONE = 3
_GENERIC = _struct.Struct(">BBH")  # struct nfgenmsg: family, version, resource id
_HEADER = _struct.Struct("=IHHII")
INET = 1  # NFPROTO_INET: IPv4 and IPv6
_NESTED = 0x8000
# attributes of a chain
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_USE = 1, 3, 4, 5, 6
# of a list of elements, of an element, of data
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS, _ELEMENT = 1, 2, 3, 1
_KEY, _DATA, _USERDATA, _VALUE = 1, 2, 6, 1
_COMMENT = 0  # the type of a comment in user data (libnftnl)
_PER_MESSAGE = 256  # elements: a nested attribute has at most 64 KiB
_NF_DROP = 0


class Chain(Frozen):
    """One chain in the kernel."""

    family: int
    table: str
    name: str
    base: bool  # it is called by a hook
    drops: bool  # its policy
    used: int  # its rules, and the jumps to it


class Socket:
    """A socket to the packet filter of the network namespace that the calling process is in.

    Raises KernelError where the kernel has no nfnetlink.
    """

    def __init__(self) -> None:
        try:
            self._socket = _socket.socket(
                _socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, _NETLINK_NETFILTER
            )
        except OSError as error:
            raise KernelError.of("talk to", "the packet filter", error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def commit(self, messages: list[tuple[int, int, bytes]]) -> int:
        """Do all or nothing of (type, flags, body); the first errno, or 0.

        Raises KernelError where the kernel does not answer.
        """
        wire = _message(_BATCH_BEGIN, rt.NLM_F_REQUEST, 0, _GENERIC.pack(0, 0, _TABLES))
        for number, (kind, flags, body) in enumerate(messages, 1):
            flags |= rt.NLM_F_REQUEST | rt.NLM_F_ACK
            wire += _message(_TABLES << 8 | kind, flags, number, _GENERIC.pack(INET, 0, 0) + body)
        last = len(messages) + 1
        wire += _message(_BATCH_END, rt.NLM_F_REQUEST, last, _GENERIC.pack(0, 0, _TABLES))
        try:
            self._socket.setsockopt(
                _socket.SOL_SOCKET, _socket.SO_SNDBUF, max(len(wire) * 2, 1 << 16)
            )
            self._socket.sendto(wire, (0, 0))
        except OSError as error:
            raise KernelError.of("talk to", "the packet filter", error) from None
        return self._answers(len(messages))

    def _answers(self, wanted: int) -> int:
        found: dict[int, int] = {}
        while len(found) < wanted:
            try:
                # the kernel answers before sendto returns
                data = self._socket.recv(1 << 16, _socket.MSG_DONTWAIT)
            except BlockingIOError:
                break  # a refusal of the batch as a whole is one answer
            except OSError as error:
                raise KernelError.of("talk to", "the packet filter", error) from None
            found.update({number: code for number, (code, _) in rt.parse_acks(data).items()})
        failures = [code for _, code in sorted(found.items()) if code]
        return failures[0] if failures else (0 if len(found) >= wanted else _errno.EIO)

    def chains(self) -> list[Chain]:
        """All chains of nf_tables, of any program. Raises KernelError; EOPNOTSUPP, EINVAL without it."""
        body = _GENERIC.pack(0, 0, 0)
        kind = _TABLES << 8 | _GETCHAIN
        found: list[Chain] = []
        try:
            self._socket.sendto(_message(kind, rt.NLM_F_REQUEST | _FLAG_DUMP, 1, body), (0, 0))
            while True:
                data = self._socket.recv(1 << 16)
                at = 0
                while at + _HEADER.size <= len(data):
                    length, answer, _, _, _ = _HEADER.unpack_from(data, at)
                    if answer == rt.NLMSG_ERROR:
                        (code,) = _struct.unpack_from("=i", data, at + _HEADER.size)
                        raise KernelError("list", "the chains of nf_tables", -code)
                    if answer == _DONE or length < _HEADER.size:
                        return found
                    found.append(_chain(data[at + _HEADER.size : at + length]))
                    at += rt.align(length)
        except OSError as error:
            raise KernelError.of("list", "the chains of nf_tables", error) from None


def _chain(body: bytes) -> Chain:
    values = dict(rt.attributes(body[_GENERIC.size :]))

    def text(kind: int) -> str:
        return values.get(kind, b"").rstrip(b"\0").decode("ascii", "replace")

    def number(kind: int, otherwise: int) -> int:
        return int.from_bytes(values[kind], "big") if kind in values else otherwise

    return Chain(
        family=body[0],
        table=text(_CHAIN_TABLE),
        name=text(_CHAIN_NAME),
        base=_CHAIN_HOOK in values,
        drops=number(_CHAIN_POLICY, 1) == _NF_DROP,
        used=number(_CHAIN_USE, 0),
    )


def elements(table: str, name: str, members: list[tuple[bytes, bytes, str]]) -> list[bytes]:
    """The bodies of the messages that add or delete elements of a map: (key, data, comment) each.

    To delete one its key is enough: then `data` is b"".
    """
    head = rt.text(_LIST_TABLE, table) + rt.text(_LIST_SET, name)
    made = []
    for start in range(0, len(members), _PER_MESSAGE):
        parts = [_element(*member) for member in members[start : start + _PER_MESSAGE]]
        made.append(head + rt.nested(_LIST_ELEMENTS | _NESTED, *parts))
    return made


def _element(key: bytes, data: bytes, comment: str) -> bytes:
    parts = rt.nested(_KEY | _NESTED, rt.attribute(_VALUE, key))
    if data:
        parts += rt.nested(_DATA | _NESTED, rt.attribute(_VALUE, data))
    if comment:
        text = comment.encode("ascii") + b"\0"
        parts += rt.attribute(_USERDATA, bytes((_COMMENT, len(text))) + text)
    return rt.nested(_ELEMENT | _NESTED, parts)


def join(*fields: bytes) -> bytes:
    """The fields of a concatenation: each padded to four bytes."""
    return b"".join(field + b"\0" * (rt.align(len(field)) - len(field)) for field in fields)


def _message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    length = _HEADER.size + len(body)
    return (
        _HEADER.pack(length, kind, flags, sequence, 0) + body + b"\0" * (rt.align(length) - length)
    )
