"""Networks of the drivers macvlan, ipvlan and none, and VLANs: from `network create` to the links."""

from __future__ import annotations

from typing import Any

import pytest

from sysbox.base.errors import Conflict, SpecError, SysboxError
from sysbox.lifecycle import network_drivers
from sysbox.lifecycle.network import Wish, plan
from sysbox.netns import rules
from sysbox.netns.network import DRIVERS, MODES, Network, ends, vlan_of
from sysbox.netns.topology import NetPlan, outward, plan_network, publishing
from sysbox.parse import network_options
from sysbox.parse.network_options import BY_DRIVER, parse_options
from sysbox.spec import Bandwidth, ContainerSpec, Endpoint, Namespaces, Port

ID = "0123456789abcdef" * 4
ROUTES = [("192.168.7.0/24", "eth0"), ("10.100.0.0/22", "vpn0")]
TAKEN = [("10.90.0.0/16", "the network bridge")]


def made(driver: str, *options: str, uplink: str = "eth0", **wish: Any) -> Network:
    """The network that `network create -d DRIVER -o OPTION...` defines."""
    found = plan(
        Wish(name="lan", driver=driver, options=options, **wish), ID, TAKEN, 7, ROUTES, uplink
    )
    assert found.wrong() == ""
    assert Network.from_data(found.to_data()) == found
    return found


def planned(*networks: Network, ports: tuple[Port, ...] = (), **spec: Any) -> NetPlan:
    names = tuple(Endpoint(network=one.name) for one in networks)
    asked = ContainerSpec(
        image="x", namespaces=Namespaces(network="bridge"), networks=names, ports=ports, **spec
    )
    return plan_network(ID, asked, named={one.name: one for one in networks})


def test_every_driver_has_its_options_and_modes() -> None:
    assert set(BY_DRIVER) == set(DRIVERS)
    for driver, modes in MODES.items():
        for mode in modes:
            for name in ("mode", f"{driver}_mode"):
                assert parse_options([f"{name}={mode}"], driver=driver)[1] == {"mode": mode}
                assert made(driver, f"{name}={mode}").mode == mode
    assert network_options._VLAN == (1, 4094)


def test_a_network_below_a_link_of_the_host() -> None:
    found = made(
        "macvlan", "parent=eth1", subnets=("192.168.7.0/24",), ip_ranges=("192.168.7.64/26",)
    )
    assert (found.bridge, found.parent, found.mode, found.mtu) == ("", "eth1", "bridge", 0)
    assert (found.subnet, found.gateway, found.dns) == ("192.168.7.0/24", "192.168.7.1", False)
    (one,) = planned(found).attachments
    assert (one.host_link, one.driver, one.parent, one.mode) == ("", "macvlan", "eth1", "bridge")
    assert one.ip_range == "192.168.7.64/26"
    assert "192.168.7.0/24 via 192.168.7.1, macvlan below eth1" in planned(found).describe()
    assert made("ipvlan").mode == "l2"
    assert made("ipvlan", "mtu=1400").mtu == 1400


def test_the_parent_where_none_is_named() -> None:
    assert made("macvlan").parent == "eth0"
    assert made("macvlan", bridge="eth5").parent == "eth5"
    assert made("macvlan", internal=True).parent == f"sb-{ID[:12]}"
    with pytest.raises(SpecError, match="needs a parent, and this host has no default route"):
        made("ipvlan", uplink="")
    with pytest.raises(SpecError, match="names another link"):
        made("ipvlan", "parent=eth0", bridge="eth1")


def test_subnets_below_a_parent() -> None:
    # that of the wire is right; that of another network is not, and one that is chosen avoids both
    assert made("macvlan", subnets=("192.168.7.0/24",)).subnet == "192.168.7.0/24"
    assert made("macvlan").subnet == "10.100.4.0/22"
    with pytest.raises(Conflict, match=r"overlaps 10.90.0.0/16 on the network bridge"):
        made("macvlan", subnets=("10.90.7.0/24",))
    with pytest.raises(Conflict, match=r"overlaps 192.168.7.0/24 on eth0"):
        made("bridge", subnets=("192.168.7.0/24",))


def test_the_vlan_of_a_bridge() -> None:
    found = made("bridge", "vlan=20")
    (one,) = planned(found).attachments
    assert (found.vlan, one.vlan, one.driver) == (20, 20, "bridge")
    assert planned(made("bridge")).attachments[0].vlan == 0


@pytest.mark.parametrize(
    ("parent", "vlan"),
    [
        ("eth0.20", ("eth0", 20)),
        ("br-a.b.4094", ("br-a.b", 4094)),
        ("eth0", ("", 0)),
        ("eth0.0", ("", 0)),
        ("eth0.020", ("", 0)),
        ("eth0.4095", ("", 0)),
        ("eth0.99999", ("", 0)),
        (".5", ("", 0)),
        ("eth0.x", ("", 0)),
        ("eth0.²", ("", 0)),
    ],
)
def test_which_parent_is_a_vlan(parent: str, vlan: tuple[str, int]) -> None:
    assert vlan_of(parent) == vlan


@pytest.mark.parametrize(
    ("driver", "option", "reason", "hint"),
    [
        ("bridge", "parent=eth0", "parent is an option of the driver macvlan and ipvlan", ""),
        ("bridge", "mode=bridge", "of the driver macvlan and ipvlan, not of bridge", ""),
        ("macvlan", "ipvlan_mode=l2", "of the driver ipvlan, not of macvlan", "macvlan_mode"),
        ("ipvlan", "icc=false", "icc is an option of the driver bridge, not of ipvlan", "mtu"),
        ("macvlan", "vlan=20", "vlan is an option of the driver bridge, not of macvlan", "parent"),
        ("macvlan", "mode=l2", "--opt mode= l2: unknown mode", "bridge, passthru, private, vepa"),
        ("macvlan", "mode=privat", "--opt mode= privat: unknown mode", "did you mean private"),
        ("ipvlan", "mode=l4", "unknown mode", "did you mean l2"),
        ("ipvlan", "parnt=eth0", "unknown option parnt", "did you mean parent"),
        ("macvlan", "parent=lo", "has a meaning of its own", "br0"),
        ("macvlan", "parent=a/b", "not the name of a link", "letters"),
        ("macvlan", "mtu=60", "out of range", ""),
        ("bridge", "vlan=4095", "out of range", ""),
        ("bridge", "vlan=0", "out of range", ""),
        ("null", "mtu=1400", "mtu is an option of the driver bridge and macvlan and ipvlan", "no options"),
    ],
)  # fmt: skip
def test_options_that_are_not_its_own(driver: str, option: str, reason: str, hint: str) -> None:
    with pytest.raises(SpecError, match=reason) as error:
        made(driver, option)
    assert hint in error.value.hint


def test_drivers_by_their_names() -> None:
    assert network_drivers.driver_of("none") == network_drivers.driver_of("null") == "null"
    assert [network_drivers.driver_of(one) for one in DRIVERS] == list(DRIVERS)
    for word, hint in (("macvlam", "did you mean macvlan"), ("overlay", "valid: bridge, ipvlan")):
        with pytest.raises(SpecError, match=f"--driver {word}: there is no such driver") as error:
            network_drivers.driver_of(word)
        assert hint in error.value.hint


def test_a_network_without_links() -> None:
    found = made("null", labels={"a": "b"})
    assert ends(found) == []
    assert (found.subnet, found.bridge, found.dns) == ("", "", False)
    alone = planned(found, ports=(Port(container_port=80, host_port=8080),))
    assert (alone.mode, alone.attachments, alone.ports) == ("none", (), ())
    with pytest.raises(Conflict, match="gives a container no link"):
        planned(made("macvlan").replace(name="other"), found)
    for wish, flag in (
        ({"subnets": ("10.7.0.0/24",)}, "--subnet"),
        ({"gateways": ("10.7.0.1",)}, "--gateway"),
        ({"ipv6": True}, "--ipv6"),
        ({"dns_servers": ("10.7.0.1",)}, "--dns"),
        ({"bridge": "eth0"}, "--interface-name"),
    ):
        with pytest.raises(SpecError, match=f"{flag}: containers of the driver none"):
            made("null", **wish)


def test_where_ports_are_published() -> None:
    lan, web = made("macvlan"), made("bridge").replace(name="web", id="f" * 64)
    first, second = planned(lan, web).attachments
    # the default route is the first one's, and so would be the ports
    assert (outward((first, second)), publishing((first, second))) == (first, None)
    assert publishing((second, first)) == second
    assert publishing((first.replace(internal=True), second)) == second
    assert publishing(()) is None


def test_rules_are_those_of_bridges() -> None:
    lan, web = made("macvlan"), made("bridge").replace(name="web", id="f" * 64)
    assert [one.bridge for one in rules.policies_of(planned(lan, web))] == [web.bridge]
    assert rules.policies_of(planned(lan)) == ()


def test_what_such_a_link_cannot_have() -> None:
    for driver, option in (("ipvlan", "mode=l3"), ("macvlan", "mode=passthru")):
        network = made(driver, option)
        end = Endpoint(network="lan", mac="02:00:00:00:00:07")
        spec = ContainerSpec(image="x", namespaces=Namespaces(network="bridge"), networks=(end,))
        with pytest.raises(SpecError, match="have the MAC of eth0"):
            plan_network(ID, spec, named={"lan": network})
    for both in ((made("macvlan"),), (made("bridge").replace(name="web"), made("ipvlan"))):
        with pytest.raises(SpecError, match=r"lan is one of (mac|ip)vlan"):
            planned(*both, bandwidth=Bandwidth(up=1000))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"driver": "overlay"}, "driver: must be bridge or macvlan or ipvlan or null"),
        ({"parent": ""}, "parent: must be the name of a link"),
        ({"parent": "a/b"}, "parent: must be the name of a link"),
        ({"bridge": "br0"}, "bridge: must be the name of a link, of a network that has one"),
        ({"mode": "l2"}, "mode: must be bridge or private"),
        ({"vlan": 20}, "vlan: must be from 1 to 4094, of a bridge"),
        ({"mtu": 60}, "mtu: must be from 68"),
    ],
)
def test_definitions_that_contradict_themselves(change: dict[str, Any], reason: str) -> None:
    assert made("macvlan").replace(**change).wrong().startswith(reason)


def test_a_bridge_is_as_before() -> None:
    for change, reason in (
        ({"parent": "eth0"}, "parent"),
        ({"mode": "l2"}, "mode"),
        ({"mtu": 0}, "mtu"),
    ):
        assert made("bridge").replace(**change).wrong().startswith(reason)
    assert made("bridge", "vlan=4094").replace(vlan=4095).wrong().startswith("vlan")


def test_two_families() -> None:
    found = made("ipvlan", "mode=l3", ipv6=True)
    assert [family for family, *_ in ends(found)] == [4, 6]
    with pytest.raises(SysboxError, match="IPv6 needs at least 1280"):
        made("ipvlan", "mtu=1000", ipv6=True)
