"""From a spec to a network plan, and the rules and files that follow from it: nothing here has effects."""

from __future__ import annotations

import time

import pytest

from sysbox.base.errors import SpecError, Unsupported, UsageError
from sysbox.netns import rules, subnets
from sysbox.netns.dns import PUBLIC_SERVERS, changed_hosts, hosts_file, resolv_conf
from sysbox.netns.network import Network
from sysbox.netns.rules import Policy
from sysbox.netns.topology import (
    NetPlan,
    bridge_mac,
    network_of,
    plan_network,
    ports_overlap,
)
from sysbox.spec import Bridge, ContainerSpec, Namespaces, Port

ID = "0123456789abcdef" * 4


def plan(mode: str = "bridge", *ports: Port, network: Network | None = None) -> NetPlan:
    """The plan of a container with that network and those ports."""
    spec = ContainerSpec(image="x", namespaces=Namespaces(network=mode), ports=ports)
    return plan_network(ID, spec, network or Network())


def test_a_bridge_plan() -> None:
    whole = plan()
    assert (whole.id, whole.mode) == (ID, "bridge")
    (made,) = whole.attachments
    assert (made.network, made.interface, made.address) == ("bridge", "eth0", "")
    assert (made.bridge, made.subnet, made.gateway) == ("sysbox0", "10.90.0.0/16", "10.90.0.1")
    assert (made.prefix, made.mtu) == (16, 1500)
    assert made.host_link == "sb0123456789"
    assert len(made.host_link) <= 15
    assert made.mac == "02:01:23:45:67:89"


def test_a_plan_survives_being_written_down() -> None:
    made = plan("bridge", Port(container_port=80, host_port=8080, host_ip="127.0.0.1"))
    assert NetPlan.from_data(made.to_data()) == made


@pytest.mark.parametrize("mode", ["none", "host"])
def test_ports_are_ignored_without_a_bridge(mode: str) -> None:
    made = plan(mode, Port(container_port=80))
    assert (made.mode, made.ports, made.attachments) == (mode, (), ())


@pytest.mark.parametrize("mode", ["container:" + "a" * 64, "ns:/run/netns/x"])
def test_joining(mode: str) -> None:
    assert (plan(mode).mode, plan(mode).join) == ("join", mode)
    with pytest.raises(UsageError, match="ports cannot be published"):
        plan(mode, Port(container_port=80))


@pytest.mark.parametrize("mode", ["", "lan", "container:", "ns:", "Bridge"])
def test_an_unknown_network_is_refused(mode: str) -> None:
    with pytest.raises(SpecError, match="no such network"):
        plan(mode)


@pytest.mark.parametrize(
    "port",
    [
        Port(container_port=0),
        Port(container_port=65536),
        Port(container_port=80, host_port=65536),
        Port(container_port=80, host_ip="300.1.1.1"),
        Port(container_port=80, host_ip="localhost"),
    ],
)
def test_bad_ports(port: Port) -> None:
    with pytest.raises(SpecError):
        plan("bridge", port)


def test_the_loopback_address_of_ipv6_is_refused() -> None:
    with pytest.raises(Unsupported, match=r"\[::1\]:80->80/tcp: the loopback address"):
        plan("bridge", Port(container_port=80, host_port=80, host_ip="::1"))


@pytest.mark.parametrize("changes", [{"host_ip": "2001:db8::1"}, {"protocol": "sctp"}])
def test_good_ports(changes: dict[str, str]) -> None:
    port = Port(container_port=80, host_port=8080).replace(**changes)
    assert plan("bridge", port).ports == (port,)


def test_a_port_published_twice() -> None:
    one = Port(container_port=80, host_port=8080)
    with pytest.raises(SpecError, match="published twice"):
        plan("bridge", one, one.replace(host_ip="127.0.0.1", container_port=81))
    plan("bridge", one, one.replace(protocol="udp"))


def test_many_ports_are_checked_in_one_pass() -> None:
    many = [Port(container_port=number, host_port=number) for number in range(1, 60001)]
    began = time.process_time()
    assert len(plan("bridge", *many).ports) == 60000
    assert time.process_time() - began < 30  # compared with each other they take many minutes
    with pytest.raises(SpecError, match="published twice"):
        plan("bridge", *many, many[7].replace(host_ip="127.0.0.1"))


def test_overlap_of_ports() -> None:
    one = Port(container_port=80, host_port=8080)
    assert ports_overlap(one, one.replace(host_ip="127.0.0.1"))
    assert not ports_overlap(one.replace(host_ip="127.0.0.2"), one.replace(host_ip="127.0.0.1"))
    assert not ports_overlap(one.replace(host_port=0), one.replace(host_port=0))
    every4, every6 = one.replace(host_ip="0.0.0.0"), one.replace(host_ip="::")
    assert not ports_overlap(every4, every6)
    assert ports_overlap(one, every6)
    assert ports_overlap(every4, one.replace(host_ip="127.0.0.1"))
    assert ports_overlap(every6, one.replace(host_ip="::1"))
    assert not ports_overlap(every6, one.replace(host_ip="127.0.0.1"))


@pytest.mark.parametrize(
    "subnet",
    ["10.0.0.0", "10.0.0.0/", "10.0.0.0/31", "10.0.0.0/7", "10.0.0.1/24", "::/7", "10.0.0.0/²4"],
)
def test_bad_subnets(subnet: str) -> None:
    with pytest.raises(SpecError):
        subnets.split(subnet)


def test_the_bridge_keeps_its_mac() -> None:
    assert bridge_mac("10.90.0.1") == "02:5b:0a:5a:00:01"


def test_a_plan_describes_itself() -> None:
    assert plan("none").describe() == "network none"
    assert plan("bridge", Port(container_port=80, host_port=8080)).describe() == (
        "network sysbox0 10.90.0.0/16 via 10.90.0.1, link sb0123456789, ports 0.0.0.0:8080->80/tcp"
    )


def test_a_plan_with_two_networks() -> None:
    """Each with a bridge, a link and rules of its own; the ports are written once."""
    made = plan("bridge", Port(container_port=80, host_port=8080))
    lan = made.attachments[0].replace(
        network="lan", bridge="br1", subnet="10.91.0.0/24", gateway="10.91.0.1",
        interface="eth1", host_link="sb1", icc=False,
    )  # fmt: skip
    both = made.replace(attachments=(*made.attachments, lan))
    assert both.describe().splitlines() == [
        "network sysbox0 10.90.0.0/16 via 10.90.0.1, link sb0123456789",
        "network br1 10.91.0.0/24 via 10.91.0.1, link sb1, ports 0.0.0.0:8080->80/tcp",
    ]
    assert rules.policies_of(both) == (
        Policy(bridge="sysbox0", subnet="10.90.0.0/16", gateway="10.90.0.1"),
        Policy(bridge="br1", subnet="10.91.0.0/24", gateway="10.91.0.1", isolate=True),
    )
    assert NetPlan.from_data(both.to_data()) == both


def test_resolv_conf_leaves_out_what_a_container_cannot_reach() -> None:
    unreachable = "nameserver 127.0.0.1\nnameserver ::1\nnameserver fe80::1%eth0\n"
    text = f"# x\n{unreachable}nameserver 192.0.2.53\nsearch a b\n"
    assert resolv_conf(text).splitlines()[1:] == ["nameserver 192.0.2.53", "search a b"]
    assert resolv_conf(text, own_network=False) == text


def test_resolv_conf_goes_behind_the_stub() -> None:
    stub = "nameserver 127.0.0.53\noptions edns0\nsearch x\n"
    uplink = "nameserver 192.0.2.53\nsearch y\n"
    assert resolv_conf(stub, uplink).splitlines()[1:] == ["nameserver 192.0.2.53", "search y"]
    assert resolv_conf("nameserver 192.0.2.1\n", uplink).splitlines()[1:] == [
        "nameserver 192.0.2.1"
    ]


@pytest.mark.parametrize("text", ["", "nameserver 127.0.0.53\n", "nameserver\n"])
def test_resolv_conf_without_a_server_takes_public_ones(text: str) -> None:
    servers = [f"nameserver {address}" for address in PUBLIC_SERVERS]
    assert resolv_conf(text).splitlines()[1:] == servers


def test_resolv_conf_of_a_network_with_names() -> None:
    text = "nameserver 192.0.2.53\nsearch a b\noptions timeout:1\n"

    def lines(host: str = text, **more: tuple[str, ...]) -> list[str]:
        return resolv_conf(host, resolvers=("10.1.0.1",), **more).splitlines()[1:]

    kept = ["nameserver 10.1.0.1", "search a b", "options timeout:1"]
    assert lines() == [*kept, "options ndots:0"]
    assert lines("options ndots:2\n") == ["nameserver 10.1.0.1", "options ndots:2"]
    assert lines(servers=("192.0.2.1",)) == [*kept, "options ndots:0"]
    assert lines(search=(".",), options=("ndots:1",)) == ["nameserver 10.1.0.1", "options ndots:1"]
    assert lines("domain x\n", search=("c",)) == [
        "nameserver 10.1.0.1", "search c", "options ndots:0",
    ]  # fmt: skip
    many = resolv_conf(text, resolvers=tuple(f"10.{n}.0.1" for n in range(5)))
    assert many.count("nameserver") == 3


def test_resolv_conf_as_flags_ask() -> None:
    text = "nameserver 127.0.0.53\nsearch a b\noptions timeout:1\n"
    asked = resolv_conf(text, servers=("::1",), search=("c", "d"), options=("rotate",))
    assert asked.splitlines()[1:] == ["nameserver ::1", "search c d", "options rotate"]
    shared = resolv_conf(text, own_network=False, search=("c",))
    assert shared.splitlines()[1:] == [
        "nameserver 127.0.0.53", "options timeout:1", "search c",
    ]  # fmt: skip


def test_hosts_file() -> None:
    text = hosts_file("web.example", "10.90.0.2", ("db:10.90.0.3", "six:fd00::1"))
    assert "127.0.0.1\tlocalhost\n" in text
    assert "10.90.0.3\tdb\n" in text
    assert "fd00::1\tsix\n" in text
    assert text.endswith("10.90.0.2\tweb.example web\n")
    assert hosts_file("a", "").endswith("127.0.1.1\ta\n")
    assert hosts_file("a.b", "10.1.0.2 fd00::2").endswith("10.1.0.2\ta.b a\nfd00::2\ta.b a\n")
    # of the host's or another container's file, where the own name may be missing
    assert hosts_file("a", "", host_text="10.0.0.1 b").endswith("10.0.0.1 b\n127.0.1.1\ta\n")
    assert hosts_file("a", "", host_text="10.0.0.1 b a # c\n").endswith("b a # c\n")
    assert hosts_file("a", "", ("b:192.0.2.1",), "127.0.0.1 h").endswith(
        "127.0.0.1 h\n192.0.2.1\tb\n127.0.1.1\ta\n"
    )


def test_hosts_file_of_changed_addresses() -> None:
    text = hosts_file("a.b", "10.1.0.2")
    both = changed_hosts(text, "a.b", (), ("10.2.0.2", "fd00::2"))
    assert both == text + "10.2.0.2\ta.b a\nfd00::2\ta.b a\n"
    assert changed_hosts(both, "a.b", ("10.1.0.2", "fd00::2"), ()) == hosts_file("a.b", "10.2.0.2")


@pytest.mark.parametrize(
    "entry", ["x", "x:", ":1.2.3.4", "x:y", "a b:1.2.3.4", "x\n:1.2.3.4", "x:1.2.3.4\n"]
)
def test_bad_extra_hosts(entry: str) -> None:
    with pytest.raises(SpecError, match="NAME:ADDRESS"):
        hosts_file("a", "", (entry,))


_ROUTES = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"


def _route(link: str, second: int, mask: str = "0000FFFF") -> str:
    return f"{link}\t00{0:02X}{second:02X}0A\t00000000\t0001\t0\t0\t0\t{mask}\t0\t0\t0\n"


@pytest.mark.parametrize(
    ("routes", "subnet"),
    [
        ("", "10.90.0.0/16"),
        (_route("eth0", 12), "10.90.0.0/16"),
        # in a container of ours, and in one of those
        (_route("eth0", 90), "10.91.0.0/16"),
        (_route("eth0", 90) + _route("lan", 91), "10.92.0.0/16"),
        # what the bridge has it keeps, whatever came later
        (_route("sysbox0", 90) + _route("eth0", 90), "10.90.0.0/16"),
        (_route("sysbox0", 91), "10.91.0.0/16"),
        # nothing is free: the first, and the refusal says what is in its way
        (_route("lan", 0, "000000FF"), "10.90.0.0/16"),
    ],
)
def test_the_first_free_subnet(routes: str, subnet: str) -> None:
    network = network_of(Bridge(), _ROUTES + routes)
    assert network.subnet == subnet
    assert network.gateway == subnet.replace(".0/16", ".1")
