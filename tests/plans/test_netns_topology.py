"""From a spec to a network plan, and the rules and files that follow from it: nothing here has effects."""

from __future__ import annotations

import time

import pytest

from sysbox.base.errors import SpecError, SysboxError, Unsupported, UsageError
from sysbox.netns import rules
from sysbox.netns.dns import PUBLIC_SERVERS, changed_hosts, hosts_file, resolv_conf
from sysbox.netns.network import Network
from sysbox.netns.rules import Policy, Published
from sysbox.netns.topology import (
    NetPlan,
    bridge_mac,
    network_of,
    plan_network,
    ports_overlap,
    split_subnet,
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
    ("port", "error"),
    [
        (Port(container_port=0), SpecError),
        (Port(container_port=65536), SpecError),
        (Port(container_port=80, host_port=65536), SpecError),
        (Port(container_port=80, host_ip="300.1.1.1"), SpecError),
        (Port(container_port=80, host_ip="localhost"), SpecError),
        (Port(container_port=80, host_ip="::1"), Unsupported),
        (Port(container_port=80, protocol="sctp"), Unsupported),
    ],
)
def test_bad_ports(port: Port, error: type[SysboxError]) -> None:
    with pytest.raises(error):
        plan("bridge", port)


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


@pytest.mark.parametrize(
    "subnet",
    ["10.0.0.0", "10.0.0.0/", "10.0.0.0/31", "10.0.0.0/7", "10.0.0.1/24", "::/64", "10.0.0.0/²4"],
)
def test_bad_subnets(subnet: str) -> None:
    with pytest.raises(SpecError):
        split_subnet(subnet)


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
        Policy(bridge="sysbox0", subnet="10.90.0.0/16"),
        Policy(bridge="br1", subnet="10.91.0.0/24", isolate=True),
    )
    assert NetPlan.from_data(both.to_data()) == both


def test_what_goes_between_bridges_meets_a_drop_before_an_accept() -> None:
    two = Policy(bridge="sysbox1", subnet="10.91.0.0/24")
    forward = rules.chains((*rules.policies_of(plan()), two), ())["filter"][rules.FORWARD]
    drops = [
        at
        for at, rule in enumerate(forward)
        if rule == {"out-interface": "sysbox1", "target": "DROP"}
    ]
    accepts = [
        at
        for at, rule in enumerate(forward)
        if rule == {"in-interface": "sysbox0", "target": "ACCEPT"}
    ]
    assert drops[0] < accepts[0]


def test_isolation_decides_before_established_connections() -> None:
    strict = plan(network=Network(icc=False, host_access=False))
    made = rules.chains(rules.policies_of(strict), ())["filter"]
    assert made[rules.FORWARD][0] == {
        "in-interface": "sysbox0",
        "out-interface": "sysbox0",
        "target": "DROP",
    }
    assert made[rules.INPUT][-1] == {"in-interface": "sysbox0", "target": "DROP"}
    assert rules.chains(rules.policies_of(plan()), ())["filter"][rules.INPUT] == []


def test_each_builtin_chain_jumps_to_each_of_ours_once() -> None:
    made = [
        (table, builtin, rule["target"])
        for table, jumps in rules.jumps().items()
        for builtin, rule, _ in jumps
    ]
    assert len(made) == len(set(made)) == 6
    ours = {chain for table in rules.chains((), ()).values() for chain in table}
    assert {target for _, _, target in made} == ours


def test_a_policy_survives_being_written_down() -> None:
    policy = Policy(bridge="sysbox1", subnet="10.91.0.0/24", isolate=True, host_access=False)
    assert Policy.read(policy.line()) == policy
    with pytest.raises(ValueError, match="unpack"):
        Policy.read("sysbox1")


def test_a_published_port_says_the_same_in_both_forms() -> None:
    port = Port(container_port=80, host_port=8080, host_ip="192.0.2.1", protocol="udp")
    entry = Published(id=ID, address="10.90.0.7", port=port)
    assert rules.restore_text("-A", (entry,)) == (
        b"*nat\n-A SYSBOX-DNAT -d 192.0.2.1/32 -p udp -m udp --dport 8080 -m comment --comment sysbox:"
        + ID.encode()
        + b" -j DNAT --to-destination 10.90.0.7:80\nCOMMIT\n"
    )
    assert rules.dnat(entry) == {
        "dst": "192.0.2.1/32",
        "protocol": "udp",
        "udp": {"dport": "8080"},
        "comment": {"comment": f"sysbox:{ID}"},
        "target": {"DNAT": {"to-destination": "10.90.0.7:80"}},
    }
    anywhere = Published(id=ID, address="10.90.0.7", port=port.replace(host_ip="0.0.0.0"))
    assert "dst" not in rules.dnat(anywhere)


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
