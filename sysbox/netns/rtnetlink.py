"""rtnetlink(7) without a library: a batch of messages is one sendto(2), errors have the kernel's text.

Only the few requests that the start of a container needs; everything else goes through pyroute2 in
`bridges.py`. A test proves that both send the same attributes. No function opens a file or imports a module,
since a container's first process calls them in its new root.
"""

from __future__ import annotations

import _socket
import _struct
import errno as _errno

from sysbox.base.errors import KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400

NLMSG_ERROR = 2
RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_NEWADDR = 20
RTM_NEWROUTE = 24

IFF_UP = 0x1

# if_link.h
IFLA_ADDRESS = 1
IFLA_IFNAME = 3
IFLA_MTU = 4
IFLA_LINK = 5
IFLA_MASTER = 10
IFLA_LINKINFO = 18
IFLA_NET_NS_PID = 19
IFLA_IFALIAS = 20
IFLA_AF_SPEC = 26
IFLA_NET_NS_FD = 28
IFLA_NUM_TX_QUEUES = 31
IFLA_NUM_RX_QUEUES = 32
IFLA_INFO_KIND = 1
IFLA_INFO_DATA = 2
IFLA_INFO_SLAVE_KIND = 4
IFLA_INFO_SLAVE_DATA = 5
IFLA_BR_FORWARD_DELAY = 1
IFLA_BR_STP_STATE = 5
IFLA_BR_VLAN_FILTERING = 7
IFLA_BR_VLAN_DEFAULT_PVID = 39
IFLA_MACVLAN_MODE = 1
IFLA_IPVLAN_MODE = 1
IFLA_VLAN_ID = 1
IFLA_BRPORT_MODE = 4  # hairpin
IFLA_BRPORT_ISOLATED = 33
VETH_INFO_PEER = 1
IFLA_INET_CONF = 1
IFLA_INET6_ADDR_GEN_MODE = 8
IN6_ADDR_GEN_MODE_NONE = 1

# linux/ip.h: the sysctls of net.ipv4.conf.<link>, which netlink can set without a procfs
IPV4_DEVCONF_RP_FILTER = 8
IPV4_DEVCONF_ARP_NOTIFY = 22
IPV4_DEVCONF_ROUTE_LOCALNET = 26

IFA_ADDRESS = 1
IFA_LOCAL = 2
IFA_BROADCAST = 4
IFA_F_NODAD = 0x02  # the address is not probed for: no second owner can be
RTA_DST = 1
RTA_OIF = 4
RTA_GATEWAY = 5
RTA_PRIORITY = 6
RT_TABLE_MAIN = 254
RTPROT_BOOT = 3
RT_SCOPE_UNIVERSE = 0
RT_SCOPE_LINK = 253
RTN_UNICAST = 1

_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NLM_F_CAPPED = 0x100
_NLM_F_ACK_TLVS = 0x200
_NLMSGERR_ATTR_MSG = 1
_HEADER = _struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port id
_ATTRIBUTE = _struct.Struct("=HH")
_IFINFO = _struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_IFADDR = _struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix, flags, scope, index
_RTMSG = _struct.Struct("=BBBBBBBBI")  # struct rtmsg


class Message:
    """One request; `body` is the bytes after the header, `what` the action for error messages."""

    __slots__ = ("body", "flags", "kind", "what")

    def __init__(self, kind: int, flags: int, body: bytes, what: str) -> None:
        self.kind = kind
        self.flags = flags | NLM_F_REQUEST | NLM_F_ACK
        self.body = body
        self.what = what

    def encode(self, sequence: int) -> bytes:
        """The message on the wire."""
        length = _HEADER.size + len(self.body)
        return _HEADER.pack(length, self.kind, self.flags, sequence, 0) + self.body


class Socket:
    """An rtnetlink socket of the namespace that the calling process is in."""

    def __init__(self) -> None:
        kind = _socket.SOCK_RAW | _socket.SOCK_CLOEXEC
        self._socket = _socket.socket(_socket.AF_NETLINK, kind, _socket.NETLINK_ROUTE)
        for option in (_NETLINK_EXT_ACK, _NETLINK_CAP_ACK):
            try:
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
            except OSError:  # ignoring: before Linux 4.12 errors have no text
                continue
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; closing it twice is harmless."""
        self._socket.close()

    def request(self, messages: Iterable[Message]) -> None:
        """Send all messages in one sendto(2), in order, and read the acknowledgements.

        Raises KernelError for the first message that failed. The kernel processes the others all the same, so
        a batch must contain only requests that may be repeated.
        """
        self.check(self.attempt(messages))

    def attempt(self, messages: Iterable[Message]) -> list[tuple[Message, int, str]]:
        """`request`, but returns (message, errno or 0, the kernel's text) for each. Raises KernelError."""
        pending: dict[int, Message] = {}
        wire = b""
        for message in messages:
            self._sequence += 1
            pending[self._sequence] = message
            wire += message.encode(self._sequence)
        try:
            self._socket.sendto(wire, (0, 0))
            results: dict[int, tuple[int, str]] = {}
            while len(results) < len(pending):
                # rtnetlink answers before sendto returns, so this does not wait
                results.update(parse_acks(self._socket.recv(1 << 16)))
        except OSError as error:
            raise KernelError.of("talk to rtnetlink", "", error) from None
        return [(message, *results[number]) for number, message in pending.items()]

    @staticmethod
    def check(results: list[tuple[Message, int, str]], ignore: tuple[int, ...] = ()) -> None:
        """Raise KernelError for the first failure whose errno is not ignored."""
        for message, errno, text in results:
            if errno and errno not in ignore:
                hint = f"the kernel says: {text}" if text else _ADVICE.get(errno, "")
                raise KernelError(message.what, "", errno, hint=hint)


_ADVICE = {
    _errno.EXFULL: "a bridge has at most 1023 ports: stop containers, or use another network",
    _errno.EOPNOTSUPP: "this kernel lacks bridge or veth: load the modules `bridge` and `veth`",
}


def parse_acks(data: bytes) -> dict[int, tuple[int, str]]:
    """Sequence number -> (errno or 0, the kernel's text) of each acknowledgement in a datagram.

    netlink(7). Raises KernelError for a malformed datagram.
    """
    results: dict[int, tuple[int, str]] = {}
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size or at + length > len(data):
            raise KernelError("read from rtnetlink", "", _errno.EBADMSG)
        if kind == NLMSG_ERROR:
            (code,) = _struct.unpack_from("=i", data, at + _HEADER.size)
            results[sequence] = (-code, _ack_text(data[at : at + length], flags))
        at += align(length)
    return results


def _ack_text(message: bytes, flags: int) -> str:
    if not flags & _NLM_F_ACK_TLVS:
        return ""
    # after the errno come the header of the request and, unless capped, its whole body
    at = _HEADER.size + 4
    (length,) = _struct.unpack_from("=I", message, at)
    at += _HEADER.size if flags & _NLM_F_CAPPED else align(length)
    for kind, value in attributes(message[at:]):
        if kind == _NLMSGERR_ATTR_MSG:
            return value.rstrip(b"\0").decode("ascii", "replace")
    return ""


def align(length: int) -> int:
    """The next multiple of four."""
    return (length + 3) & ~3


def attributes(data: bytes) -> list[tuple[int, bytes]]:
    """The (type, value) pairs of consecutive attributes, without the flags in the type."""
    found = []
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        found.append((kind & 0x3FFF, data[at + _ATTRIBUTE.size : at + length]))
        at += align(length)
    return found


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + b"\0" * (align(length) - length)


def nested(kind: int, *parts: bytes) -> bytes:
    """An attribute that contains attributes."""
    return attribute(kind, b"".join(parts))


def text(kind: int, value: str) -> bytes:
    """A string attribute, with its terminating zero."""
    return attribute(kind, value.encode("ascii") + b"\0")


def u32(kind: int, value: int) -> bytes:
    """A 32-bit attribute in host order."""
    return attribute(kind, _struct.pack("=I", value))


def u16(kind: int, value: int) -> bytes:
    """A 16-bit attribute in host order."""
    return attribute(kind, _struct.pack("=H", value))


def u8(kind: int, value: int) -> bytes:
    """An 8-bit attribute."""
    return attribute(kind, bytes((value,)))


def mac(kind: int, value: str) -> bytes:
    """A link-layer address given as "02:..."."""
    return attribute(kind, bytes.fromhex(value.replace(":", "")))


def ipv4(kind: int, value: str) -> bytes:
    """An IPv4 address given in its dotted form."""
    return attribute(kind, _socket.inet_pton(_socket.AF_INET, value))


def ipv6(kind: int, value: str) -> bytes:
    """An IPv6 address given as text."""
    return attribute(kind, _socket.inet_pton(_socket.AF_INET6, value))


def ifinfo(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    """struct ifinfomsg."""
    return _IFINFO.pack(0, 0, index, flags, change)


def ifaddr(index: int, prefix: int, family: int = _socket.AF_INET) -> bytes:
    """struct ifaddrmsg of an address; IPv6 without duplicate address detection (RFC 4862, 5.4)."""
    flags = IFA_F_NODAD if family == _socket.AF_INET6 else 0
    return _IFADDR.pack(family, prefix, flags, RT_SCOPE_UNIVERSE, index)


def route(family: int = _socket.AF_INET, bits: int = 0, scope: int = RT_SCOPE_UNIVERSE) -> bytes:
    """struct rtmsg of a route in the main table, to a subnet with this mask; by default the default route."""
    head = (family, bits, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, scope, RTN_UNICAST)
    return _RTMSG.pack(*head, 0)
