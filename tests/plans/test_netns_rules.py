"""The packet filter's rules: once as data, then in the words of each packet filter."""

from __future__ import annotations

import pytest

from sysbox.netns import rules, rules_iptables, rules_nft, topology, ways
from sysbox.netns.network import Network
from sysbox.netns.rules import ACCEPT, DROP, FORWARD, INPUT, POSTROUTING, Policy, Published, Rule
from sysbox.parse.network_options import parse_options
from sysbox.spec import ContainerSpec, Port

ID = "0123456789abcdef" * 4
ONE = Policy(bridge="sysbox0", subnet="10.90.0.0/16")
TWO = Policy(bridge="sysbox1", subnet="10.91.0.0/24", subnet6="fd00:1::/64")
WEB = Port(container_port=80, host_port=8080)


def rule(verdict: str, **fields: object) -> Rule:
    return Rule(verdict=verdict, **fields)  # type: ignore[arg-type]


def test_what_goes_between_bridges_meets_a_drop_before_an_accept() -> None:
    forward = rules.chains((ONE, TWO))[FORWARD]
    dropped = forward.index(rule(DROP, leaves_by="sysbox1"))
    assert dropped < forward.index(rule(ACCEPT, came_by="sysbox0"))


def test_what_a_network_forbids_decides_before_the_rules_of_all_others() -> None:
    internal = ONE.replace(internal=True)
    forward = rules.chains((TWO, internal))[FORWARD]
    first_of_two = forward.index(rule(ACCEPT, leaves_by="sysbox1", state=rules.KNOWN))
    assert forward.index(rule(DROP, came_by="sysbox0")) < first_of_two
    assert forward.index(rule(DROP, leaves_by="sysbox0")) < first_of_two
    assert forward.index(rule(ACCEPT, came_by="sysbox0", leaves_by="sysbox0")) < forward.index(
        rule(DROP, came_by="sysbox0")
    )
    assert not [
        one for one in rules.chains((internal,))[POSTROUTING] if one.leaves_by.startswith("!")
    ]


def test_isolation_decides_before_established_connections() -> None:
    strict = ONE.replace(isolate=True, host_access=False, gateway="10.90.0.1")
    made = rules.chains((strict,))
    assert made[FORWARD][0] == rule(DROP, came_by="sysbox0", leaves_by="sysbox0")
    assert made[INPUT][-1] == rule(DROP, came_by="sysbox0")
    assert rules.chains((ONE,))[INPUT] == []


def test_of_a_host_that_is_closed_only_the_resolver_is_open() -> None:
    closed = TWO.replace(host_access=False, gateway="10.91.0.1", gateway6="fd00:1::1")
    accepted = [one for one in rules.chains((closed,))[INPUT] if one.verdict == ACCEPT]
    assert {(one.destination, one.protocol, one.port) for one in accepted if one.protocol} == {
        ("10.91.0.1/32", "udp", 53),
        ("10.91.0.1/32", "tcp", 53),
        ("fd00:1::1/128", "udp", 53),
        ("fd00:1::1/128", "tcp", 53),
        ("", "icmpv6", 135),
        ("", "icmpv6", 136),
    }


def test_networks_that_are_not_apart_reach_each_other() -> None:
    open_one, open_two = ONE.replace(apart=False), TWO.replace(apart=False)
    forward = rules.chains((open_one, open_two))[FORWARD]
    way = rule(ACCEPT, came_by="sysbox0", leaves_by="sysbox1")
    assert forward.index(way) < forward.index(rule(DROP, leaves_by="sysbox1"))
    assert rule(ACCEPT, came_by="sysbox1", leaves_by="sysbox0") in forward
    assert way not in rules.chains((open_one, TWO))[FORWARD]
    assert way not in rules.chains((open_one, open_two.replace(internal=True)))[FORWARD]


def test_what_firewalld_decides_is_known_by_its_mark() -> None:
    asks = tuple(one.replace(host_firewall="firewalld", ask=True) for one in (ONE, TWO))
    assert rules.chains(asks)[rules.RAW][-1] == rule(rules.MARK, came_by="sysbox1")
    assert rules.chains(asks)[FORWARD] == rules.chains((ONE, TWO))[FORWARD]
    jump = "fib daddr type local jump published"
    marked = f"add rule inet sysbox prerouting meta mark & 0x1000 == 0x1000 {jump}\n"
    script = rules_nft.script(asks, ())
    assert marked in script
    assert f"add rule inet sysbox output {jump}\n" in script, "the host itself is not asked about"
    assert 'add rule inet sysbox raw iifname "sysbox0" meta mark set meta mark | 0x1000\n' in script
    opened = tuple(one.replace(ask=False) for one in asks)
    assert rules_nft.script(opened, ()) == rules_nft.script((ONE, TWO), ())


def test_what_ufw_decides_goes_back_to_its_chains() -> None:
    asks = tuple(one.replace(host_firewall="ufw", ask=True) for one in (ONE, TWO))
    forward = rules.chains(asks)[FORWARD]
    back = rule(rules.RETURN, leaves_by="sysbox0", state=rules.TRANSLATED)
    for bridge in ("sysbox0", "sysbox1"):
        mine = rule(ACCEPT, came_by=bridge, state=rules.TRANSLATED)
        assert forward.index(mine) < forward.index(back), "containers are not asked about"
    assert forward.index(back) < forward.index(rule(DROP, leaves_by="sysbox0"))
    assert rule(ACCEPT, leaves_by="sysbox0", state=rules.TRANSLATED) not in forward
    opened = tuple(one.replace(ask=False) for one in asks)
    assert rules.chains(opened)[FORWARD] == rules.chains((ONE, TWO))[FORWARD]


def test_of_a_host_that_ufw_closes_the_resolver_is_open() -> None:
    governed = TWO.replace(host_firewall="ufw", gateway="10.91.0.1")
    assert rules.chains((governed,))[INPUT] == [
        rule(
            ACCEPT, family=4, came_by="sysbox1", destination="10.91.0.1/32", protocol=name, port=53
        )
        for name in ("udp", "tcp")
    ]


@pytest.mark.parametrize("host", ["firewalld", "ufw"])
def test_whose_word_a_packet_to_a_published_port_needs(host: str) -> None:
    entry = Published(id=ID, address="10.90.0.7", port=WEB)
    asks = ONE.replace(host_firewall=host, ask=True)
    backend = "nft" if host == "firewalld" else "iptables-nft"
    made = ways.of_port(ways.Filter((asks,), backend), "sysbox0", entry, "10.90.0.1")
    assert [way.outcome for way in made] == [f"passes if {host} allows it", "passes", "passes"]
    said = "as its zone says" if host == "firewalld" else "as ufw says"
    assert said in [step.verdict for step in made[0].steps]


def test_only_the_nic_leads_out() -> None:
    forward = rules.chains((ONE.replace(nic="eth0"),))[FORWARD]
    assert rule(DROP, came_by="sysbox0", leaves_by="!eth0") in forward


def test_a_networks_options_are_its_policy() -> None:
    _, fields = parse_options(["icc=0", "host_access=0", "masquerade=0", "nic=eth0", "isolate=0"])
    network = Network(
        name="lan", bridge="sb1", subnet="10.91.0.0/24", gateway="10.91.0.1", subnet6="fd00:1::/64",
        gateway6="fd00:1::1", internal=True, gateway_mode_ipv6="routed", **fields,
    )  # fmt: skip
    (one,) = topology.plan_network(ID, ContainerSpec(image="x"), network).attachments
    assert rules.policy_of(one) == Policy(
        bridge="sb1", subnet="10.91.0.0/24", gateway="10.91.0.1", subnet6="fd00:1::/64",
        gateway6="fd00:1::1", isolate=True, apart=False, host_access=False, internal=True, nic="eth0",
        masquerade=False, masquerade6=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "policy",
    [
        ONE,
        TWO,
        Policy(bridge="sysbox1", subnet="10.91.0.0/24", isolate=True, host_access=False),
        Policy(
            bridge="b", subnet6="fd00::/64", gateway6="fd00::1", internal=True, nic="eth0",
            masquerade=False, masquerade6=False, apart=False, host_firewall="ufw", ask=True,
        ),
    ],
)  # fmt: skip
def test_a_policy_survives_being_written_down(policy: Policy) -> None:
    assert Policy.read(policy.line()) == policy


def test_the_mark_of_an_older_version_is_read() -> None:
    assert ONE.line() == "sysbox0 10.90.0.0/16 isolate=0 host=1"
    assert Policy.read("sysbox0 10.90.0.0/16 isolate=1 host=0") == Policy(
        bridge="sysbox0", subnet="10.90.0.0/16", isolate=True, host_access=False
    )


@pytest.mark.parametrize(
    "line", ["", "sysbox1", "a b c", "a b isolate=1", "a b isolate=1 host=1 x=1"]
)
def test_a_damaged_policy_is_an_error(line: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (of two kinds)
        Policy.read(line)


def test_a_port_is_published_in_the_families_of_its_address() -> None:
    addresses = ("10.90.0.2", "fd00::2")
    asked = (WEB, WEB.replace(host_ip="127.0.0.1"), WEB.replace(host_ip="::1"))
    made = rules.published(ID, asked, addresses)
    assert [(one.port.host_ip, one.address) for one in made] == [
        ("", "10.90.0.2"), ("", "fd00::2"), ("127.0.0.1", "10.90.0.2"), ("::1", "fd00::2"),
    ]  # fmt: skip
    assert [one.address for one in rules.published(ID, (WEB,), ("10.90.0.2", ""))] == ["10.90.0.2"]


def test_a_published_port_says_the_same_in_all_forms() -> None:
    port = Port(container_port=80, host_port=8080, host_ip="192.0.2.1", protocol="udp")
    entry = Published(id=ID, address="10.90.0.7", port=port)
    assert rules_iptables.restore_text("-A", (entry,)) == (
        b"*nat\n-A SYSBOX-DNAT -d 192.0.2.1/32 -p udp -m udp --dport 8080 -m comment --comment sysbox:"
        + ID.encode()
        + b" -j DNAT --to-destination 10.90.0.7:80\nCOMMIT\n"
    )
    assert rules_iptables.dnat(entry) == {
        "dst": "192.0.2.1/32",
        "protocol": "udp",
        "udp": {"dport": "8080"},
        "comment": {"comment": f"sysbox:{ID}"},
        "target": {"DNAT": {"to-destination": "10.90.0.7:80"}},
    }
    assert rules_nft.map_of(entry) == "at4"
    assert rules_nft.element(entry) == (
        f'192.0.2.1 . udp . 8080 comment "sysbox:{ID}" : 10.90.0.7 . 80'
    )
    anywhere = Published(id=ID, address="fd00::7", port=WEB)
    assert "dst" not in rules_iptables.dnat(anywhere)
    assert rules_iptables.dnat_words(anywhere)[-1] == "[fd00::7]:80"
    assert rules_nft.map_of(anywhere) == "everywhere6"


def test_each_builtin_chain_jumps_to_each_of_ours_once() -> None:
    for family, tables in rules_iptables.TABLES.items():
        made = [
            (name, jump["target"])
            for name in tables
            for _, jump, _ in rules_iptables.jumps(family, name)
        ]
        ours = {one for one in rules_iptables.CHAINS if one[0] in tables}
        assert set(made) == ours
        assert len(made) == len(ours) + 1, "that of published ports from two"


def test_the_words_of_iptables() -> None:
    made = rules_iptables.easy(
        rule(DROP, came_by="a", leaves_by="!b", source="10.0.0.0/8", state=rules.TRANSLATED)
    )
    assert " ".join(rules_iptables.words(made)) == (
        "-s 10.0.0.0/8 -i a ! -o b -m conntrack --ctstate DNAT -j DROP"
    )


def test_without_an_ipv6_network_ip6tables_is_left_alone() -> None:
    assert rules_iptables.families((ONE,)) == (4,)
    assert rules_iptables.families((ONE, TWO)) == (4, 6)


WAYS = (
    "to other machines",
    "to the host",
    "among its own network",
    "from other machines, not published",
)


@pytest.mark.parametrize("backend", ["nft", "iptables-nft", "iptables-legacy"])
@pytest.mark.parametrize(
    ("policy", "passing"),
    [
        (TWO, WAYS[:3]),
        (TWO.replace(isolate=True), WAYS[:2]),
        (TWO.replace(internal=True), WAYS[1:3]),
        (
            TWO.replace(host_access=False, gateway="10.91.0.1", gateway6="fd00:1::1"),
            (WAYS[0], WAYS[2]),
        ),
        (TWO.replace(nic="eth0"), WAYS[:3]),
        (TWO.replace(masquerade=False, masquerade6=False), WAYS[:3]),
    ],
)
def test_the_rules_mean_what_the_policy_says(
    policy: Policy, passing: tuple[str, ...], backend: str
) -> None:
    found = ways.Filter((ONE.replace(subnet6="fd00:9::/64"), policy), backend)
    for family, address in ((4, "10.91.0.2"), (6, "fd00:1::2")):
        gateway = "10.91.0.1" if family == 4 else "fd00:1::1"
        made = ways.of_network(found, policy, family, address, gateway)
        assert [way.name for way in made if way.passes] == [
            f"{one}, IPv{family}" for one in passing
        ]
        assert made[-1].name == f"to the containers of sysbox0, IPv{family}"


def test_the_way_to_a_published_port() -> None:
    entry = Published(id=ID, address="10.90.0.7", port=WEB)
    found = ways.Filter((ONE, TWO), "nft")
    made = ways.of_port(found, "sysbox0", entry, "10.90.0.1")
    assert [(way.passes, [step.verdict for step in way.steps]) for way in made] == [
        (True, ["to 10.90.0.7:80", "accept", "unchanged"]),
        (True, ["to 10.90.0.7:80", "masquerade"]),
        (True, ["to 10.90.0.7:80", "accept", "masquerade"]),
    ]
    here = entry.replace(port=WEB.replace(host_ip="127.0.0.1"))
    assert [way.passes for way in ways.of_port(found, "sysbox0", here, "10.90.0.1")] == [
        False,
        True,
    ]
    inside = ways.Filter((ONE.replace(internal=True),), "nft")
    assert not ways.of_port(inside, "sysbox0", entry, "10.90.0.1")[0].passes


SAVED = """*nat
:PREROUTING ACCEPT [0:0]
:SYSBOX-DNAT - [0:0]
:OTHER - [0:0]
-A PREROUTING ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j SYSBOX-DNAT
-A PREROUTING -j OTHER
-A SYSBOX-DNAT -p tcp -m tcp --dport 1 -j DNAT --to-destination 10.90.0.2:1
COMMIT
"""


def test_only_jumps_to_our_chains_are_deleted() -> None:
    made = rules_iptables.base_text(4, (ONE,), (), SAVED).decode().splitlines()
    assert [line for line in made if line.startswith("-D")] == [
        "-D PREROUTING ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j SYSBOX-DNAT"
    ]
    assert rules_iptables.removal_text(SAVED).decode().splitlines() == [
        "*nat",
        "-D PREROUTING ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j SYSBOX-DNAT",
        ":SYSBOX-DNAT - [0:0]",
        "-X SYSBOX-DNAT",
        "COMMIT",
    ]
    assert rules_iptables.removal_text("*nat\nCOMMIT\n") == b""


def test_the_words_of_nft() -> None:
    assert rules_nft.text(
        rule(DROP, family=6, came_by="a", leaves_by="!b", source="fd00::/64", state=rules.KNOWN)
    ) == (
        'iifname "a" oifname != "b" meta nfproto ipv6 ip6 saddr fd00::/64'
        " ct state established,related drop"
    )
    script = rules_nft.script((ONE,), (Published(id=ID, address="10.90.0.7", port=WEB),))
    assert "add element inet sysbox everywhere4 { tcp . 8080" in script
    assert "add element inet sysbox at4" not in script
