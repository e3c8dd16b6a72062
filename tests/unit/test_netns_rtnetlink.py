"""The messages of the hot path hold what pyroute2 puts on the wire for the same requests."""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
from typing import Any

import pytest
from forked import in_child

from sysbox.base.errors import KernelError
from sysbox.linux.namespace import CLONE_NEWNET
from sysbox.netns import links, new_bridge, subnets
from sysbox.netns import rtnetlink as rt
from sysbox.netns.network import Network
from sysbox.netns.topology import NetPlan, plan_network
from sysbox.spec import ContainerSpec, Route

ID = "0123456789abcdef" * 4
(ETH0,) = plan_network(ID, ContainerSpec(image="x")).attachments

# which attributes hold attributes, by the path of types that leads to them
LINK_NESTS = {
    (rt.IFLA_LINKINFO,),
    (rt.IFLA_LINKINFO, rt.IFLA_INFO_DATA),
    (rt.IFLA_LINKINFO, rt.IFLA_INFO_SLAVE_DATA),
    (rt.IFLA_AF_SPEC,),
    (rt.IFLA_AF_SPEC, socket.AF_INET),
    (rt.IFLA_AF_SPEC, socket.AF_INET6),
    (rt.IFLA_AF_SPEC, socket.AF_INET, rt.IFLA_INET_CONF),
}
PEER = (rt.IFLA_LINKINFO, rt.IFLA_INFO_DATA, rt.VETH_INFO_PEER)
IFINFO = 16
SIOCGIFFLAGS = 0x8913  # netdevice(7)
IFF_UP = 1


def tree(data: bytes, path: tuple[int, ...] = (), *, veth: bool = False) -> dict[Any, Any]:
    """The attributes of a link message, nested, whatever their order."""
    found: dict[Any, Any] = {}
    for kind, value in rt.attributes(data):
        here = (*path, kind)
        if veth and here == PEER:
            found[kind] = (value[:IFINFO], tree(value[IFINFO:]))
        elif here in LINK_NESTS:
            found[kind] = tree(value, here, veth=veth)
        else:
            found[kind] = value
    return found


def theirs(message_class: str, command: str, fields: dict[str, Any], attrs: list[Any]) -> bytes:
    """The body that pyroute2 encodes."""
    from pyroute2.netlink import rtnl

    module = __import__(f"pyroute2.netlink.rtnl.{message_class}", fromlist=[message_class])
    message = getattr(module, message_class)()
    for field, value in fields.items():
        message[field] = value
    message["attrs"] = attrs
    message["header"]["type"] = getattr(rtnl, command)
    message["header"]["flags"] = 0
    message.encode()
    return bytes(message.data[16:])


def link_of(message: rt.Message) -> tuple[bytes, dict[Any, Any]]:
    """Header and attributes of one of our link messages."""
    assert message.kind == rt.RTM_NEWLINK
    return message.body[:IFINFO], tree(message.body[IFINFO:], veth=True)


def test_the_pair() -> None:
    peer = {
        "attrs": [
            ("IFLA_IFNAME", "eth0"),
            ("IFLA_MTU", 1500),
            ("IFLA_ADDRESS", ETH0.mac),
            ("IFLA_NUM_TX_QUEUES", 1),
            ("IFLA_NUM_RX_QUEUES", 1),
            ("IFLA_NET_NS_FD", 7),
        ]
    }
    body = theirs(
        "ifinfmsg",
        "RTM_NEWLINK",
        {},
        [
            ("IFLA_IFNAME", ETH0.host_link),
            ("IFLA_MTU", 1500),
            ("IFLA_MASTER", 42),
            ("IFLA_NUM_TX_QUEUES", 1),
            ("IFLA_NUM_RX_QUEUES", 1),
            (
                "IFLA_LINKINFO",
                {
                    "attrs": [
                        ("IFLA_INFO_KIND", "veth"),
                        ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", peer)]}),
                    ]
                },
            ),
        ],
    )
    head, ours = link_of(links.pair(ETH0, 42, 0, 7))
    assert (head, ours) == (body[:IFINFO], tree(body[IFINFO:], veth=True))


def test_a_pair_by_process_id() -> None:
    _, ours = link_of(links.pair(ETH0, 42, 4711, -1))
    peer = ours[rt.IFLA_LINKINFO][rt.IFLA_INFO_DATA][rt.VETH_INFO_PEER][1]
    assert struct.unpack("=I", peer[rt.IFLA_NET_NS_PID]) == (4711,)
    assert rt.IFLA_NET_NS_FD not in peer


@pytest.mark.parametrize("vlan", [0, 20], ids=["plain", "with a VLAN"])
def test_the_bridge(vlan: int) -> None:
    tags = [("IFLA_BR_VLAN_FILTERING", 1), ("IFLA_BR_VLAN_DEFAULT_PVID", vlan)] if vlan else []
    body = theirs(
        "ifinfmsg",
        "RTM_NEWLINK",
        {},
        [
            ("IFLA_IFNAME", "sysbox0"),
            ("IFLA_MTU", 1500),
            ("IFLA_ADDRESS", "02:5b:0a:5a:00:01"),
            (
                "IFLA_LINKINFO",
                {
                    "attrs": [
                        ("IFLA_INFO_KIND", "bridge"),
                        (
                            "IFLA_INFO_DATA",
                            {
                                "attrs": [
                                    ("IFLA_BR_FORWARD_DELAY", 0),
                                    ("IFLA_BR_STP_STATE", 0),
                                    *tags,
                                ]
                            },
                        ),
                    ]
                },
            ),
        ],
    )
    ours = new_bridge.bridge(ETH0.replace(vlan=vlan))
    assert ours.body[:IFINFO] == body[:IFINFO]
    assert tree(ours.body[IFINFO:]) == tree(body[IFINFO:])


@pytest.mark.parametrize(("isolate", "published"), [(False, False), (True, True)])
def test_the_bridge_port(isolate: bool, published: bool) -> None:
    (eth0,) = plan_network(ID, ContainerSpec(image="x"), Network(icc=not isolate)).attachments
    body = theirs(
        "ifinfmsg",
        "RTM_NEWLINK",
        {"flags": 1, "change": 1},
        [
            ("IFLA_IFNAME", eth0.host_link),
            (
                "IFLA_LINKINFO",
                {
                    "attrs": [
                        ("IFLA_INFO_SLAVE_KIND", "bridge"),
                        (
                            "IFLA_INFO_SLAVE_DATA",
                            {
                                "attrs": [
                                    ("IFLA_BRPORT_MODE", int(published)),
                                    ("IFLA_BRPORT_ISOLATED", int(isolate)),
                                ]
                            },
                        ),
                    ]
                },
            ),
            (
                "IFLA_AF_SPEC",
                {"attrs": [("AF_INET6", {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", 1)]})]},
            ),
        ],
    )
    head, ours = link_of(links.bridge_port(eth0, hairpin=published))
    assert (head, ours) == (body[:IFINFO], tree(body[IFINFO:]))


def test_the_inside() -> None:
    quiet, address, up = links.inside(ETH0, 3, "10.90.0.7")
    route = links.default_route(ETH0.gateway)
    head, ours = link_of(quiet)
    assert head == rt.ifinfo(3)
    assert ours == {
        rt.IFLA_AF_SPEC: {
            socket.AF_INET: {rt.IFLA_INET_CONF: {rt.IPV4_DEVCONF_ARP_NOTIFY: struct.pack("=I", 1)}},
            socket.AF_INET6: {rt.IFLA_INET6_ADDR_GEN_MODE: b"\1"},
        }
    }
    body = theirs(
        "ifaddrmsg",
        "RTM_NEWADDR",
        {"family": socket.AF_INET, "prefixlen": 16, "index": 3},
        [
            ("IFA_LOCAL", "10.90.0.7"),
            ("IFA_ADDRESS", "10.90.0.7"),
            ("IFA_BROADCAST", "10.90.255.255"),
        ],
    )
    assert (address.kind, address.body) == (rt.RTM_NEWADDR, body)
    body = theirs("ifinfmsg", "RTM_NEWLINK", {"index": 3, "flags": 1, "change": 1}, [])
    assert (up.kind, up.body) == (rt.RTM_NEWLINK, body)
    body = theirs(
        "rtmsg",
        "RTM_NEWROUTE",
        {"family": socket.AF_INET, "table": 254, "proto": 3, "scope": 0, "type": 1},
        [("RTA_GATEWAY", "10.90.0.1")],
    )
    assert (route.kind, route.body) == (rt.RTM_NEWROUTE, body)


def test_the_inside_with_ipv6_and_routes() -> None:
    lan = ETH0.replace(
        subnet6="fd00::/64",
        prefix6=64,
        gateway6="fd00::1",
        routes=(
            Route(destination="192.168.0.0/16", gateway="10.90.0.9", metric=5),
            Route(destination="fd01::/32", gateway="fd00::9"),
        ),
    )
    quiet, _, _, address, *routes = links.inside(lan, 3, "10.90.0.7", "fd00::7")
    assert socket.AF_INET6 not in link_of(quiet)[1][rt.IFLA_AF_SPEC], "it has a link-local address"
    body = theirs(
        "ifaddrmsg",
        "RTM_NEWADDR",
        {"family": socket.AF_INET6, "prefixlen": 64, "index": 3, "flags": 2},
        [("IFA_LOCAL", "fd00::7"), ("IFA_ADDRESS", "fd00::7")],
    )
    assert (address.kind, address.body) == (rt.RTM_NEWADDR, body)
    table = {"table": 254, "proto": 3, "scope": 0, "type": 1}
    wanted = [
        theirs("rtmsg", "RTM_NEWROUTE", {"family": family, "dst_len": bits, **table}, attrs)
        for family, bits, attrs in (
            (
                socket.AF_INET,
                16,
                [
                    ("RTA_DST", "192.168.0.0"),
                    ("RTA_GATEWAY", "10.90.0.9"),
                    ("RTA_PRIORITY", 5),
                ],
            ),
            (socket.AF_INET6, 32, [("RTA_DST", "fd01::"), ("RTA_GATEWAY", "fd00::9")]),
            (socket.AF_INET, 0, [("RTA_GATEWAY", "10.90.0.1")]),
            (socket.AF_INET6, 0, [("RTA_GATEWAY", "fd00::1")]),
        )
    ]
    assert [one.body for one in (*routes, *links.default_routes((lan,)))] == wanted
    internal = lan.replace(internal=True)
    assert links.default_routes((internal,)) == []
    (only,) = links.default_routes((internal, ETH0, lan), (6,))
    assert only.body == wanted[3]


def test_the_default_route_without_neighbours() -> None:
    one = ETH0.replace(driver="ipvlan", mode="l3s", interface="lo", gateway6="fd00::1")
    table = {"table": 254, "proto": 3, "scope": 253, "type": 1}
    wanted = [
        theirs("rtmsg", "RTM_NEWROUTE", {"family": family, **table}, [("RTA_OIF", 1)])
        for family in (socket.AF_INET, socket.AF_INET6)
    ]
    assert [message.body for message in links.default_routes((one,))] == wanted
    assert links.default_routes((one.replace(internal=True),)) == []


def test_removal() -> None:
    body = theirs("ifinfmsg", "RTM_DELLINK", {}, [("IFLA_IFNAME", "sb0")])
    assert (links.remove("sb0").kind, links.remove("sb0").body) == (rt.RTM_DELLINK, body)


def test_the_numbers_are_pyroute2s() -> None:
    from pyroute2.netlink import rtnl
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

    for name in ("RTM_NEWLINK", "RTM_DELLINK", "RTM_NEWADDR", "RTM_NEWROUTE"):
        assert getattr(rt, name) == getattr(rtnl, name)
    numbers = {entry[0]: at for at, entry in enumerate(ifinfmsg.nla_map)}
    for name in (
        "IFLA_ADDRESS",
        "IFLA_AF_SPEC",
        "IFLA_NET_NS_FD",
        "IFLA_NET_NS_PID",
        "IFLA_NUM_RX_QUEUES",
    ):
        assert getattr(rt, name) == numbers[name]


def test_a_message_is_whole() -> None:
    message = rt.Message(rt.RTM_NEWLINK, rt.NLM_F_CREATE, rt.ifinfo(), "x")
    wire = message.encode(9)
    assert struct.unpack_from("=IHHII", wire) == (32, 16, 0x405, 9, 0)
    assert len(wire) == 32


@pytest.mark.parametrize("length", range(9))
def test_attributes_survive_the_round_trip(length: int) -> None:
    row = rt.attribute(1, b"x" * length) + rt.attribute(2, b"last")
    assert rt.attributes(row) == [(1, b"x" * length), (2, b"last")]
    assert len(row) % 4 == 0


def ack(code: int, sequence: int, text: str = "", *, capped: bool = True) -> bytes:
    """An acknowledgement as the kernel sends it (netlink(7), NETLINK_EXT_ACK)."""
    request = struct.pack("=IHHII", 40, 16, 5, sequence, 0)
    body = struct.pack("=i", -code) + request + (b"" if capped else b"\0" * 24)
    flags = 0x100 if capped else 0
    if text:
        flags |= 0x200
        body += rt.text(1, text)
    return struct.pack("=IHHII", 16 + len(body), 2, flags, sequence, 0) + body


@pytest.mark.parametrize("capped", [False, True])
def test_acknowledgements_with_words(capped: bool) -> None:
    data = ack(0, 1, capped=capped) + ack(errno.EINVAL, 2, "Unknown device type", capped=capped)
    assert rt.parse_acks(data) == {1: (0, ""), 2: (errno.EINVAL, "Unknown device type")}


@pytest.mark.parametrize("length", [0, 15, 4000])
def test_a_damaged_acknowledgement_is_an_error(length: int) -> None:
    data = struct.pack("=I", length) + ack(0, 1)[4:]
    with pytest.raises(KernelError):
        rt.parse_acks(data)


def test_the_first_failure_is_told_in_the_kernels_words() -> None:
    message = rt.Message(rt.RTM_NEWLINK, 0, b"", "make the link x")
    rt.Socket.check([(message, 0, ""), (message, errno.EEXIST, "")], ignore=(errno.EEXIST,))
    with pytest.raises(KernelError) as caught:
        rt.Socket.check([(message, errno.EINVAL, "Unknown device type")])
    assert caught.value.message == "make the link x: Invalid argument"
    assert caught.value.hint == "the kernel says: Unknown device type"
    with pytest.raises(KernelError) as caught:
        rt.Socket.check([(message, errno.EXFULL, "")])
    assert "1023 ports" in caught.value.hint


ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
sysbox0\t00005A0A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
"""


@pytest.mark.parametrize(
    ("route", "clash"),
    [
        ("", ""),
        ("vpn\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n", "10.0.0.0/8 on vpn"),
        ("lan\t00075A0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n", "10.90.7.0/24 on lan"),
        ("lan\t00005B0A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n", ""),
    ],
)
def test_routes_that_overlap(route: str, clash: str) -> None:
    assert subnets.taken(ETH0.subnet, subnets.routes(ROUTES + route, ""), ETH0.bridge) == clash


@pytest.mark.parametrize(("mode", "up"), [("host", False), ("none", True)])
def test_the_loopback_of_the_host_is_left_alone(mode: str, up: bool) -> None:
    def configure() -> bool:
        links.configure_inside(NetPlan(id=ID, mode=mode))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            answer = fcntl.ioctl(probe, SIOCGIFFLAGS, struct.pack("16sH14x", b"lo", 0))
        return bool(struct.unpack("16xH14x", answer)[0] & IFF_UP)

    assert in_child(configure, CLONE_NEWNET) is up
