"""From the networks that a specification names to links and addresses; from `network create` to a network."""

from __future__ import annotations

from typing import Any

import pytest

from sysbox.base.errors import Conflict, SpecError, SysboxError
from sysbox.lifecycle.network import Wish, choose_subnet, plan
from sysbox.netns.network import Network
from sysbox.netns.topology import NetPlan, attach, host_link, outward, plan_network
from sysbox.parse.network_options import parse_options, parse_route
from sysbox.spec import ContainerSpec, Endpoint, Namespaces, Route

ID = "0123456789abcdef" * 4
WEB = Network(
    name="web", id="f" * 64, bridge="sb-web", subnet="10.1.2.0/24", gateway="10.1.2.1", dns=True,
    subnet6="fd00::/64", gateway6="fd00::1",
)  # fmt: skip
BACK = Network(
    name="back",
    id="e" * 64,
    bridge="sb-back",
    subnet="10.3.0.0/24",
    gateway="10.3.0.1",
    internal=True,
)
NAMED = {"web": WEB, "back": BACK}


def planned(*endpoints: Endpoint) -> NetPlan:
    spec = ContainerSpec(image="x", namespaces=Namespaces(network="bridge"), networks=endpoints)
    return plan_network(ID, spec, named=NAMED)


def test_several_networks() -> None:
    made = planned(
        Endpoint(network="back"),
        Endpoint(network="bridge"),
        Endpoint(network="web", aliases=("w",)),
    )
    back, bridge, web = made.attachments
    assert [one.interface for one in made.attachments] == ["eth0", "eth1", "eth2"]
    assert [one.bridge for one in made.attachments] == ["sb-back", "sysbox0", "sb-web"]
    assert (back.network_id, bridge.network_id, web.network_id) == ("e" * 64, "", "f" * 64)
    links = {one.host_link for one in made.attachments}
    assert len(links) == len({one.mac for one in made.attachments}) == 3
    assert all(len(link) <= 15 for link in links)
    assert bridge.host_link == host_link(ID) == "sb0123456789"
    assert (web.dns, web.aliases, web.prefix6, web.gateway6) == (True, ("w",), 64, "fd00::1")
    # the first that leads out; for IPv6 the first of those that has it
    assert outward(made.attachments) == bridge
    assert outward(made.attachments, 6) == web
    assert outward((back,)) is None
    assert NetPlan.from_data(made.to_data()) == made
    assert "10.1.2.0/24 fd00::/64 via 10.1.2.1" in made.describe()


def test_a_link_is_the_same_whatever_the_order() -> None:
    one = planned(Endpoint(network="web")).attachments[0]
    other = planned(Endpoint(network="back"), Endpoint(network="web")).attachments[1]
    assert (one.host_link, one.mac) == (other.host_link, other.mac)


def test_what_is_asked_of_an_end() -> None:
    asked = Endpoint(
        network="web",
        address="10.1.2.9",
        address6="fd00::9",
        mac="02:00:00:00:00:07",
        interface="lan0",
    )
    (web,) = planned(asked).attachments
    assert (web.address, web.address6, web.mac, web.interface) == (
        "10.1.2.9", "fd00::9", "02:00:00:00:00:07", "lan0",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        (Endpoint(network="web", address="10.1.3.9"), "is not in 10.1.2.0/24"),
        (Endpoint(network="web", address="10.1.2.1"), "is the gateway"),
        (Endpoint(network="web", address="10.1.2.255"), "broadcast"),
        (Endpoint(network="web", address="10.1.2.0"), "broadcast"),
        (Endpoint(network="web", address6="fd01::1"), "is not in fd00::/64"),
        (Endpoint(network="web", address6="fd00:0::1"), "is the gateway"),
        (Endpoint(network="back", address6="fd00::5"), "has no IPv6"),
    ],
)
def test_addresses_that_cannot_be(endpoint: Endpoint, reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        planned(endpoint)


def test_networks_that_exclude_each_other() -> None:
    (web,) = planned(Endpoint(network="web")).attachments
    with pytest.raises(Conflict, match="on the network web already"):
        attach(ID, WEB, Endpoint(network="web"), (web,))
    with pytest.raises(Conflict, match="eth0 is that of another network"):
        attach(ID, BACK, Endpoint(network="back", interface="eth0"), (web,))
    # a name that was asked for is not given to the next
    lan = attach(ID, WEB, Endpoint(network="web", interface="eth1"), ())
    assert attach(ID, BACK, Endpoint(network="back"), (lan,)).interface == "eth0"
    assert (
        attach(ID, BACK.replace(interface="lan"), Endpoint(network="back"), (lan,)).interface
        == "lan0"
    )


TAKEN = [("10.100.0.0/16", "eth0"), ("10.90.0.0/16", "the network bridge")]


def made(**wish: Any) -> Network:
    return plan(Wish(name="n1", **wish), ID, TAKEN, 7)


def test_a_network_with_nothing_asked() -> None:
    found = made()
    assert (found.subnet, found.gateway, found.subnet6) == ("10.101.0.0/22", "10.101.0.1", "")
    assert (found.bridge, found.id, found.created_ns) == ("sb-0123456789ab", ID, 7)
    assert found.dns
    assert found.wrong() == ""
    six = made(ipv6=True)
    assert (six.subnet6, six.gateway6) == ("fd01:2345:6789:abcd::/64", "fd01:2345:6789:abcd::1")


def test_subnets_gateways_and_ranges_find_each_other() -> None:
    found = made(
        subnets=("fd00::/64", "10.7.0.0/24"),
        gateways=("10.7.0.254", "fd00::5"),
        ip_ranges=("fd00::1:0/112",),
    )
    assert (found.subnet, found.gateway, found.ip_range) == ("10.7.0.0/24", "10.7.0.254", "")
    assert (found.subnet6, found.gateway6, found.ip_range6) == (
        "fd00::/64",
        "fd00::5",
        "fd00::1:0/112",
    )


@pytest.mark.parametrize(
    ("wish", "reason"),
    [
        ({"subnets": ("10.90.4.0/24",)}, "overlaps 10.90.0.0/16 on the network bridge"),
        ({"subnets": ("10.100.9.0/24",)}, "overlaps 10.100.0.0/16 on eth0"),
        ({"subnets": ("10.7.0.0/24", "10.8.0.0/24")}, "one subnet of each family"),
        ({"subnets": ("10.7.0.1/24",)}, "bits set beyond its mask"),
        (
            {"gateways": ("10.7.0.1",)},
            "--gateway 10.7.0.1: is not an address of the subnet 10.101.0.0/22",
        ),
        ({"gateways": ("fd00::1",)}, "--gateway fd00::1: the network has no IPv6"),
        ({"ip_ranges": ("10.7.0.0/24",)}, "--ip-range 10.7.0.0/24: is not within"),
        ({"options": ("mtu=60",)}, "--opt mtu= 60: out of range"),
        ({"options": ("mtux=1400",)}, "--opt mtux=1400: unknown option"),
        ({"options": ("mtu",)}, "not NAME=VALUE"),
        ({"options": ("icc=maybe",)}, "neither true nor false"),
        ({"options": ("mtu=1000",), "ipv6": True}, "IPv6 needs at least 1280"),
    ],
)
def test_what_cannot_be_made(wish: dict[str, Any], reason: str) -> None:
    with pytest.raises(SysboxError, match=reason):
        made(**wish)


def test_options_in_everybodys_words() -> None:
    docker = "com.docker.network."
    texts = [f"{docker}driver.mtu=1400", f"{docker}bridge.enable_icc=false", f"{docker}bridge.name=br7",
             f"{docker}bridge.host_binding_ipv4=127.0.0.1", "isolate=strict", "host_access=0"]  # fmt: skip
    given, fields = parse_options(texts)
    assert list(given) == [text.partition("=")[0] for text in texts]
    assert fields == {"mtu": 1400, "icc": False, "bridge": "br7", "host_binding": "127.0.0.1",
                      "isolate": True, "host_access": False}  # fmt: skip
    found = made(options=tuple(texts))
    assert (found.mtu, found.icc, found.bridge) == (1400, False, "br7")


def test_routes() -> None:
    route = parse_route("192.168.0.0/16,10.101.0.7,5", "--route")
    assert route == Route(destination="192.168.0.0/16", gateway="10.101.0.7", metric=5)
    network = made(routes=(route,))
    assert attach(ID, network, Endpoint(network="n1"), ()).routes == (route,)
    for change, reason in (
        ({"gateway": "10.7.0.1"}, "gateway 10.7.0.1 is not in the network's 10.101.0.0/22"),
        ({"destination": "fd00::/8", "gateway": "fd00::1"}, "IPv6, which it lacks"),
        ({"destination": "192.168.0.1/16"}, "bits set beyond its mask"),
        ({"destination": "0.0.0.0/0"}, "must be /1 to /32"),
    ):
        with pytest.raises(SpecError, match=reason):
            made(routes=(route.replace(**change),))
    for text in (
        "192.168.0.0/16",
        "a,b",
        "192.168.0.0/16,10.1.1.1,0",
        "192.168.0.0/16,10.1.1.1,1,2",
    ):
        with pytest.raises(SpecError):
            parse_route(text, "--route")


def test_the_pool_ends() -> None:
    assert choose_subnet([]) == "10.100.0.0/22"
    with pytest.raises(Conflict, match="all subnets from 10"):
        choose_subnet([("10.0.0.0/8", "vpn0")])
