"""Links of kinds that not every kernel has: ipvlan, VLANs as parents, and bridges with VLANs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from containers import Container, Containers, eventually
from lane import Sysbox
from test_network_drivers import BEHIND, RAW, end_of, reaches, refused, run
from test_networks import has_link, inspect

pytestmark = pytest.mark.v2_only("the kernel of the guest has these kinds of links")

Make = Callable[..., str]
WIRE = ("--subnet", "192.0.2.0/24", "--gateway", "192.0.2.1", "--ip-range", "192.0.2.64/26")
OUTSIDE = ("ip", "netns", "exec", "outside")


@pytest.fixture
def tagged() -> Iterator[str]:
    """The router's address in VLAN 20 of the uplink's wire."""
    run(*OUTSIDE, "ip", "link", "add", "eth0.20", "link", "eth0", "type", "vlan", "id", "20")
    run(*OUTSIDE, "ip", "address", "add", "10.36.20.1/24", "dev", "eth0.20")
    run(*OUTSIDE, "ip", "link", "set", "eth0.20", "up")
    yield "10.36.20.1"
    run(*OUTSIDE, "ip", "link", "delete", "eth0.20")


def default_route(one: Container) -> str:
    (line,) = [line for line in one.exec("ip", "route").splitlines() if "default" in line]
    return line.strip()


def test_ipvlan(sysbox: Sysbox, network: Make, containers: Containers) -> None:
    network("net-lan", "-d", "ipvlan", "-o", "parent=uplink0", *WIRE, "--ipv6")
    one = containers("--network", "net-lan", *RAW)
    two = containers("--network", "net-lan:ip=192.0.2.70", *RAW)
    mac = Path("/sys/class/net/uplink0/address").read_text().strip()
    ends = [end_of(it, "net-lan") for it in (one, two)]
    assert {it["MacAddress"] for it in ends} == {mac}
    assert one.exec("cat", "/sys/class/net/eth0/address").strip() == mac
    assert default_route(one) == "default via 192.0.2.1 dev eth0"
    assert reaches(one, BEHIND)
    assert reaches(one, "192.0.2.70")
    one.exec("ping", "-6", "-c", "1", "-W", "3", ends[1]["GlobalIPv6Address"])
    # the kernel refuses an address that a link of the last start still has
    for _ in range(3):
        two("restart", "-t", "0")
        assert end_of(two, "net-lan")["IPAddress"] == "192.0.2.70"
    refused(sysbox, "have the MAC of uplink0",
            "run", "--rm", "--network", "net-lan:mac=02:00:00:00:00:07", "host", "true")  # fmt: skip
    refused(sysbox, "has ipvlan links below it",
            "network", "create", "-d", "macvlan", "-o", "parent=uplink0", "net-two")  # fmt: skip
    sysbox("network", "disconnect", "net-lan", one.id, check=True)
    assert one.exec("ls", "/sys/class/net").split() == ["lo"]
    sysbox("network", "connect", "net-lan", one.id, check=True)
    assert reaches(one, BEHIND)


def test_ipvlan_without_neighbours(network: Make, containers: Containers) -> None:
    subnets = ("--subnet", "10.39.0.0/24", "--subnet", "fd00:39::/64")
    network("net-lan", "-d", "ipvlan", "-o", "parent=uplink0", "-o", "ipvlan_mode=l3", *subnets)
    one = containers("--network", "net-lan", *RAW)
    two = containers("--network", "net-lan", *RAW)
    assert default_route(one) == "default dev eth0 scope link"
    assert "default dev eth0" in one.exec("ip", "-6", "route", "show", "default")
    assert reaches(one, end_of(two, "net-lan")["IPAddress"])


def test_a_vlan_comes_and_goes_with_its_containers(
    sysbox: Sysbox, network: Make, containers: Containers, tagged: str
) -> None:
    flags = ("-o", "parent=uplink0.20", "--subnet", "10.36.20.0/24")
    network("net-lan", "-d", "macvlan", *flags)
    assert not has_link("uplink0.20")
    one = containers("--network", "net-lan", *RAW)
    two = containers("--network", "net-lan", *RAW)
    assert reaches(one, tagged)
    assert reaches(one, end_of(two, "net-lan")["IPAddress"])
    (made,) = json.loads(run("ip", "-json", "-d", "link", "show", "uplink0.20"))
    assert made["linkinfo"]["info_data"]["id"] == 20
    assert made["ifalias"] == f"sysbox network {inspect(sysbox, 'net-lan')['Id'][:12]}"
    assert json.loads(run("ip", "-json", "address", "show", "uplink0.20"))[0]["addr_info"] == []
    refused(sysbox, "comes and goes with that one's containers",
            "network", "create", "-d", "ipvlan", "-o", "parent=uplink0.20", "net-two")  # fmt: skip
    sysbox("rm", "-f", one.id, check=True)
    assert reaches(two, tagged)
    sysbox("rm", "-f", two.id, check=True)
    eventually(lambda: not has_link("uplink0.20"), "the VLAN is gone with the last container")


def test_a_vlan_of_the_administrators_stays(
    sysbox: Sysbox, network: Make, containers: Containers, tagged: str
) -> None:
    run("ip", "link", "add", "uplink0.20", "link", "uplink0", "type", "vlan", "id", "20")
    try:
        network("net-lan", "-d", "macvlan", "-o", "parent=uplink0.20", "--subnet", "10.36.20.0/24")
        refused(sysbox, "its parent uplink0.20 is down",
                "run", "--rm", "--network", "net-lan", "host", "true")  # fmt: skip
        run("ip", "link", "set", "uplink0.20", "up")
        one = containers("--network", "net-lan", *RAW)
        assert reaches(one, tagged)
        sysbox("rm", "-f", one.id, check=True)
        sysbox("gc", check=True)
        assert has_link("uplink0.20")
    finally:
        run("ip", "link", "delete", "uplink0.20")


def test_a_bridge_with_a_vlan(
    sysbox: Sysbox, network: Make, containers: Containers, tagged: str
) -> None:
    subnet = (
        "--subnet",
        "10.36.20.0/24",
        "--gateway",
        "10.36.20.9",
        "--ip-range",
        "10.36.20.128/25",
    )
    network("net-web", "-o", "vlan=20", *subnet)
    bridge = inspect(sysbox, "net-web")["Options"]["com.docker.network.bridge.name"]
    one = containers("--network", "net-web", "--name", "net-one", *RAW)
    two = containers("--network", "net-web", "--name", "net-two", *RAW)
    assert Path(f"/sys/class/net/{bridge}/bridge/vlan_filtering").read_text() == "1\n"
    for port in json.loads(run("bridge", "-json", "vlan", "show")):
        if port["ifname"] == bridge or port["ifname"].startswith("sb"):
            assert [it["vlan"] for it in port["vlans"]] == [20]
            assert port["vlans"][0]["flags"] == ["PVID", "Egress Untagged"]
    assert reaches(one, end_of(two, "net-web")["IPAddress"])
    assert reaches(one, BEHIND), "over the gateway, which is the bridge"
    one.exec("ping", "-c", "1", "-W", "3", "net-two")
    # the uplink as a port for tagged frames: the containers are in VLAN 20 of its wire
    assert not reaches(one, tagged)
    run("ip", "link", "set", "uplink0", "master", bridge)
    try:
        run("bridge", "vlan", "add", "vid", "20", "dev", "uplink0")
        # what nobody has answered is asked for again within three seconds, or given up first
        eventually(lambda: reaches(one, tagged), "it is in the VLAN")
    finally:
        run("ip", "link", "set", "uplink0", "nomaster")


def test_an_internal_network_without_a_parent(
    sysbox: Sysbox, network: Make, containers: Containers
) -> None:
    network("net-lan", "-d", "macvlan", "--internal")
    parent = inspect(sysbox, "net-lan")["Options"]["parent"]
    assert not has_link(parent)
    one = containers("--network", "net-lan", *RAW)
    two = containers("--network", "net-lan", *RAW)
    assert reaches(one, end_of(two, "net-lan")["IPAddress"])
    assert "default" not in one.exec("ip", "route")
    alias = Path(f"/sys/class/net/{parent}/ifalias").read_text()
    assert alias == f"sysbox network {inspect(sysbox, 'net-lan')['Id'][:12]}\n"
    sysbox("rm", "-f", one.id, check=True)
    assert has_link(parent)
    sysbox("rm", "-f", two.id, check=True)
    eventually(lambda: not has_link(parent), "the parent is gone with the last container")
    # one that a killed command has left
    run("ip", "link", "add", parent, "type", "dummy")
    assert "removed the link" not in sysbox("gc", check=True).stdout, "it may be anybody's"
    run("ip", "link", "set", parent, "alias", alias.strip())
    assert f"removed the link {parent} of the network net-lan" in sysbox("gc").stdout
    assert not has_link(parent)
