"""Delete connection tracking entries of UDP flows to published ports.

The kernel keeps a flow's entry, with its address translation, as long as packets come. A client that keeps
sending would reach the address of a container that has ended, in spite of its successor's rule. So the
entries of a UDP port are deleted when it is published and when it is unpublished. A TCP connection ends with
its container.
"""

from __future__ import annotations

import _socket
import _struct

from sysbox.netns import rtnetlink as rt

_NETLINK_NETFILTER = 12
_CT_GET = 1 << 8 | 1  # linux/netfilter/nfnetlink.h: subsystem ctnetlink, IPCTNL_MSG_CT_GET
_CT_DELETE = 1 << 8 | 2
_NLM_F_DUMP = 0x300
_NLMSG_DONE = 3
_NESTED = 0x8000
_CTA_TUPLE_ORIG = 1
_CTA_TUPLE_PROTO = 2
_CTA_PROTO_NUM = 1
_CTA_PROTO_DST_PORT = 3
_FAMILIES = (_socket.AF_INET, _socket.AF_INET6)
_HEADER = _struct.Struct("=IHHII")


def forget_udp(host_ports: set[int]) -> None:
    """Delete the flows to these UDP ports.

    ignoring: a kernel without ctnetlink, or one that refuses. The flows then expire by themselves, at most
    120 s after the last packet (nf_conntrack_udp_timeout_stream).
    """
    if not host_ports:
        return
    try:
        wire = _socket.socket(
            _socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, _NETLINK_NETFILTER
        )
    except OSError:
        return
    try:
        for family in _FAMILIES:
            flows = [flow for flow in _dump(wire, family) if is_udp_to(flow, host_ports)]
            for flow in flows:
                body = _generic(family) + rt.attribute(_CTA_TUPLE_ORIG | _NESTED, flow)
                wire.sendto(rt.Message(_CT_DELETE, 0, body, "forget a flow").encode(1), (0, 0))
                wire.recv(1 << 16)
    except OSError:
        pass
    finally:
        wire.close()


def is_udp_to(flow: bytes, host_ports: set[int]) -> bool:
    """Whether a flow (CTA_TUPLE_ORIG) is UDP to one of the ports (pure)."""
    protocol = dict(rt.attributes(dict(rt.attributes(flow)).get(_CTA_TUPLE_PROTO, b"")))
    port = int.from_bytes(protocol.get(_CTA_PROTO_DST_PORT, b""), "big")
    return protocol.get(_CTA_PROTO_NUM) == bytes((_socket.IPPROTO_UDP,)) and port in host_ports


def _generic(family: int) -> bytes:
    """struct nfgenmsg: family, version, resource id."""
    return bytes((family, 0, 0, 0))


def _dump(wire: _socket.socket, family: int) -> list[bytes]:
    """CTA_TUPLE_ORIG, the original direction, of every flow of a family. Raises OSError."""
    head = _generic(family)
    request = _HEADER.pack(_HEADER.size + len(head), _CT_GET, rt.NLM_F_REQUEST | _NLM_F_DUMP, 1, 0)
    wire.sendto(request + head, (0, 0))
    flows: list[bytes] = []
    while True:
        data = wire.recv(1 << 16)
        at = 0
        while at + _HEADER.size <= len(data):
            length, kind, _, _, _ = _HEADER.unpack_from(data, at)
            if kind in (_NLMSG_DONE, rt.NLMSG_ERROR) or length < _HEADER.size:
                return flows
            message = data[at + _HEADER.size + len(head) : at + length]
            flows += [
                value for number, value in rt.attributes(message) if number == _CTA_TUPLE_ORIG
            ]
            at += rt.align(length)
