"""The filter of a link by lists of networks: what its program does with frames, and its shape.

tests/host/test_packet_lists.py sends packets.
"""

from __future__ import annotations

import ipaddress
import socket
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysbox.base.errors import Unsupported
from sysbox.netns import list_filter
from sysbox.netns.list_filter import Lists
from sysbox.parse.addresses import parse_networks

PASS, DROP = 0xFFFFFFFF, 2
OWN, OWN6, GATEWAY6 = "10.90.0.2", "fd00:90::2", "fd00:90::1"
NETWORKS = (
    "any", "0.0.0.0/0", "::/0", "10.0.0.0/8", "10.90.0.0/30", "10.90.0.1", "192.0.2.128/25", "127.0.0.0/8",
    "fd00:90::/64", "fd00:90::1", "2001:db8::/33", "2001:db8:8000::/33", "fe80::/10", "multicast",
)  # fmt: skip
ADDRESSES = (
    "10.90.0.1", "10.90.0.4", "10.91.0.1", "192.0.2.127", "192.0.2.128", "224.0.0.1", "255.255.255.255",
    GATEWAY6, "fd00:90:0:1::1", "2001:db8:7fff::1", "2001:db8:8000::1", "fe80::1", "ff02::1", "::1",
)  # fmt: skip


def verdict(code: bytes, frame: bytes, tag: int = 0) -> int:
    """What the kernel would do: the few instructions that are used, as linux/filter.h has them."""
    made = list(struct.iter_unpack("=HBBI", code))
    at, value = 0, 0
    while True:
        kind, yes, no, operand = made[at]
        at += 1
        if kind == 0x06:
            return int(operand)
        if kind in (0x20, 0x28, 0x30):
            if operand == 0xFFFFF000 + 48:
                value = tag
                continue
            size = {0x20: 4, 0x28: 2, 0x30: 1}[kind]
            assert operand + size <= len(frame), "it reads beyond the frame"
            value = int.from_bytes(frame[operand : operand + size], "big")
        elif kind == 0x80:
            value = len(frame)
        elif kind == 0x54:
            value &= operand
        elif kind == 0x05:
            at += operand
        else:
            assert kind in (0x15, 0x35), hex(kind)
            at += yes if (value == operand if kind == 0x15 else value >= operand) else no


def frame(
    source: str, destination: str, payload: bytes = b"\x11" * 8, *, protocol: int = 17
) -> bytes:
    """A packet of IP in a frame."""
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    ends = socket.inet_pton(family, source) + socket.inet_pton(family, destination)
    if family == socket.AF_INET6:
        head = b"\x86\xdd" + struct.pack(">IHBB", 6 << 28, len(payload), protocol, 255)
    else:
        size = 20 + len(payload)
        head = b"\x08\x00" + struct.pack(">BBHHHBBH", 0x45, 0, size, 0, 0, 64, protocol, 0)
    return b"\x02" * 12 + head + ends + payload


def lists(allow: str, deny: str) -> Lists:
    return Lists(*(parse_networks(text, "") if text else [] for text in (allow, deny)))


def passes(found: Lists, address: str) -> bool:
    """systemd.resource-control(5): what is allowed passes, of the rest what is denied does not."""
    for networks, answer in ((found.allow, True), (found.deny, False)):
        for family, base, bits in networks:
            text = f"{socket.inet_ntop(family, bytes(base))}/{bits}"
            network = ipaddress.ip_network(text, strict=False)
            one = ipaddress.ip_address(address)
            if one.version == network.version and one in network:
                return answer
    return True


some = st.lists(st.sampled_from(NETWORKS), max_size=5).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(allow=some, deny=some, address=st.sampled_from(ADDRESSES))
def test_it_decides_as_systemd_does(allow: str, deny: str, address: str) -> None:
    """By the destination of what is sent, by the source of what is received."""
    found = lists(allow, deny)
    own = OWN6 if ":" in address else OWN
    wanted = PASS if passes(found, address) else DROP
    assert verdict(list_filter.program(found, sent=True), frame(own, address)) == wanted
    assert verdict(list_filter.program(found, sent=False), frame(address, own)) == wanted


def test_what_is_no_packet_of_ip() -> None:
    code = list_filter.program(lists("any", "any"), sent=True)
    arp = b"\x02" * 12 + b"\x08\x06" + bytes(28)
    assert verdict(code, arp) == PASS
    for kind in (b"\x88\x64", b"\x81\x00", b"\x88\xa8"):
        assert verdict(code, b"\x02" * 12 + kind + bytes(60)) == DROP
    whole = frame(OWN, "10.90.0.1")
    assert verdict(code, whole) == PASS
    assert verdict(code, whole, tag=1) == DROP, "of a VLAN"
    assert verdict(code, whole[:33]) == DROP, "cut in its header"
    assert verdict(code, frame(OWN6, GATEWAY6)[:53]) == DROP


@pytest.mark.parametrize("kind", [135, 136])
def test_neighbours_are_found_where_everything_is_denied(kind: int) -> None:
    """And nothing else of ICMPv6 passes, nor does neighbour discovery to where a router would send it on."""
    found, body = lists("", "any"), bytes((kind,)) + bytes(31)
    sent = list_filter.program(found, sent=True, gateway6=GATEWAY6)
    for target in ("ff02::1:ff00:1", "fe80::1", GATEWAY6):
        assert verdict(sent, frame(OWN6, target, body, protocol=58)) == PASS
    assert verdict(sent, frame(OWN6, "2001:db8::1", body, protocol=58)) == DROP
    assert verdict(sent, frame(OWN6, GATEWAY6, b"\x80" + body[1:], protocol=58)) == DROP
    assert verdict(sent, frame(OWN6, GATEWAY6, body, protocol=17)) == DROP
    received = list_filter.program(found, sent=False, gateway6=GATEWAY6)
    near = bytearray(frame(GATEWAY6, OWN6, body, protocol=58))
    assert verdict(received, bytes(near)) == PASS
    near[21] = 254  # its hop limit: a router has sent it on
    assert verdict(received, bytes(near)) == DROP


def test_a_long_list() -> None:
    """Its jumps reach, up to what the kernel takes; beyond that one line says so."""
    many = " ".join(f"2001:db8:{number:x}::/48 10.{number}.0.0/16" for number in range(200))
    code = list_filter.program(lists(many, "any"), sent=True)
    assert len(code) // 8 <= 4096
    assert verdict(code, frame(OWN, "10.199.3.4")) == PASS
    assert verdict(code, frame(OWN, "10.200.3.4")) == DROP
    assert verdict(code, frame(OWN6, "2001:db8:c7::1")) == PASS
    found = lists(" ".join(f"2001:db8:{number:x}::1" for number in range(900)), "::/0")
    with pytest.raises(Unsupported, match=r"^--ip-deny: 901 networks are too many"):
        list_filter.program(found, sent=True)
