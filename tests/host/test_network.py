"""The network on a real kernel: links, policies (S11), translation, published ports, leases.

In the guest: its kernel is an older one, and has to have what links, rules and isolated ports need.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
from typing import Any

import pytest
from containers import eventually
from network_lab import (
    OUTSIDE,
    UPLINK,
    Container,
    Node,
    Outside,
    choose,
    fetch,
    fetch_all,
    in_private_network,
    lease,
    run,
)

from sysbox.base.errors import Conflict, KernelError, NotFound
from sysbox.netns import bridges, firewall, leases, links, ports
from sysbox.netns.network import Network
from sysbox.netns.topology import DEFAULT_NETWORK, NetPlan, plan_network
from sysbox.spec import ContainerSpec, Namespaces, Port

GATEWAY = DEFAULT_NETWORK.gateway


def disconnect(plan: NetPlan) -> None:
    """Remove a container's links, as when it leaves a network."""
    for one in plan.attachments:
        links.remove_link(one.host_link)


def rules_in(table: str) -> list[str]:
    """Every rule of a table, as iptables-save prints it."""
    saved = run("iptables-legacy-save", "-t", table)
    return [line for line in saved.splitlines() if line.startswith("-A")]


def jumps() -> list[str]:
    """The jumps from built-in chains to ours."""
    lines = [line for table in ("raw", "nat", "filter") for line in rules_in(table)]
    return sorted(line for line in lines if not line.startswith("-A SYSBOX") and "SYSBOX" in line)


def link(name: str, *words: str) -> dict[str, Any]:
    """What ip(8) knows of a link."""
    found = json.loads(run("ip", "-json", "-details", *words, "address", "show", "dev", name))
    return dict(found[0])


@in_private_network
def test_a_container_has_its_link_address_and_route() -> None:
    one = Container(1, DEFAULT_NETWORK)
    inside = json.loads(one.sh("ip -json address show dev eth0"))[0]
    assert inside["address"] == "02:00:00:00:00:01"
    assert inside["mtu"] == 1500
    assert [(entry["local"], entry["prefixlen"]) for entry in inside["addr_info"]] == [
        (one.address, 16)
    ]
    assert one.sh("ip route show default").split()[:5] == ["default", "via", GATEWAY, "dev", "eth0"]
    assert "127.0.0.1/8" in one.sh("ip address show dev lo")
    port = link(one.attachment.host_link)
    assert port["master"] == "sysbox0"
    assert port["addr_info"] == []
    assert port["linkinfo"]["info_slave_data"]["hairpin"] is False
    bridge = link("sysbox0")
    assert bridge["address"] == "02:5b:0a:5a:00:01"
    assert [entry["local"] for entry in bridge["addr_info"]] == [GATEWAY]
    assert bridge["linkinfo"]["info_data"]["stp_state"] == 0


@in_private_network
def test_no_router_advertisement_configures_a_container() -> None:
    one = Container(1, DEFAULT_NETWORK)
    assert one.sh("cat /proc/sys/net/ipv6/conf/eth0/accept_ra").strip() == "0"
    assert one.sh("cat /proc/sys/net/ipv6/conf/eth0/autoconf").strip() == "0"


@in_private_network
def test_s11_default_policy() -> None:
    """Containers reach each other, the host, and the outside through the host's address."""
    outside, one, two = Outside(), Container(1, DEFAULT_NETWORK), Container(2, DEFAULT_NETWORK)
    outside.serve(80)
    two.serve(80)
    assert one.fetch(OUTSIDE, 80) == UPLINK
    assert one.fetch(two.address, 80) == one.address
    outside.sh(f"ip route add {DEFAULT_NETWORK.subnet} via {UPLINK}")
    assert outside.fetch(two.address, 80) == "TimeoutError", (
        "not published: not reachable from outside"
    )


@in_private_network
def test_s11_isolated_containers_reach_neither_each_other_nor_the_host() -> None:
    network = Network(icc=False, host_access=False)
    outside, one, two = Outside(), Container(1, network), Container(2, network)
    outside.serve(80)
    one.serve(80)
    two.serve(80)
    _serve_on_the_host(8000)
    other, *host = fetch_all((one, two.address, 80), (one, GATEWAY, 8000), (one, UPLINK, 8000))
    assert other in ("TimeoutError", "OSError")
    assert host == ["TimeoutError", "TimeoutError"]
    assert one.fetch(OUTSIDE, 80) == UPLINK
    assert fetch(one.address, 80) == GATEWAY, "the host reaches its containers all the same"
    assert link(one.attachment.host_link)["linkinfo"]["info_slave_data"]["isolated"] is True


@in_private_network
def test_containers_reach_the_host_by_default_but_not_its_loopback() -> None:
    one = Container(1, DEFAULT_NETWORK)
    _serve_on_the_host(8000)
    assert one.fetch(GATEWAY, 8000) == one.address
    one.sh("ip route del local 127.0.0.0/8 dev lo table local; ip address del 127.0.0.1/8 dev lo")
    one.sh(
        f"ip route add 127.0.0.0/8 via {GATEWAY}; echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet"
    )
    assert one.fetch("127.0.0.1", 8000) == "TimeoutError"


@in_private_network
@pytest.mark.parametrize(
    "protocol",
    [pytest.param("tcp", marks=pytest.mark.guest("rules of another kernel's netfilter")), "udp"],
)
def test_a_published_port(protocol: str) -> None:
    wanted = (Port(container_port=80, host_port=8080, protocol=protocol),)
    outside, one, two = (
        Outside(),
        Container(1, DEFAULT_NETWORK, wanted),
        Container(2, DEFAULT_NETWORK),
    )
    one.serve(80, protocol)
    assert outside.fetch(UPLINK, 8080, protocol) == OUTSIDE
    assert fetch(UPLINK, 8080, protocol) == UPLINK
    assert fetch("127.0.0.1", 8080, protocol) == GATEWAY
    assert two.fetch(UPLINK, 8080, protocol) == GATEWAY
    assert one.fetch(GATEWAY, 8080, protocol) == GATEWAY, (
        "a container reaches its own published port"
    )
    assert one.ports == wanted
    firewall.unpublish(one.id)
    firewall.unpublish(one.id)
    assert ports.load() == ()
    assert fetch("127.0.0.1", 8080, protocol) == "ConnectionRefusedError"
    assert one.id not in run("nft", "list", "ruleset")


@in_private_network
def test_a_udp_client_that_goes_on_reaches_the_next_container() -> None:
    wanted = (Port(container_port=53, host_port=5353, protocol="udp"),)
    outside, one = Outside(), Container(1, DEFAULT_NETWORK, wanted)
    one.serve(53, "udp")
    assert outside.call_out(UPLINK, 5353, 40000) == OUTSIDE
    firewall.unpublish(one.id)
    assert outside.call_out(UPLINK, 5353, 40000) == "TimeoutError"
    two = Container(2, DEFAULT_NETWORK, wanted)
    two.serve(53, "udp")
    assert outside.call_out(UPLINK, 5353, 40000) == OUTSIDE


@in_private_network
def test_a_port_published_on_the_loopback_address_stays_there() -> None:
    """CVE-2020-8558's family: a neighbour routes 127.0.0.1 to us, or the container's address."""
    outside = Outside()
    one = Container(
        1, DEFAULT_NETWORK, (Port(container_port=80, host_port=8080, host_ip="127.0.0.1"),)
    )
    one.serve(80)
    assert fetch("127.0.0.1", 8080) == GATEWAY
    assert fetch(UPLINK, 8080) == "ConnectionRefusedError"
    assert outside.fetch(UPLINK, 8080) == "ConnectionRefusedError"
    outside.sh(
        f"ip route add {DEFAULT_NETWORK.subnet} via {UPLINK};"
        "ip route del local 127.0.0.0/8 dev lo table local; ip address del 127.0.0.1/8 dev lo;"
        f"ip route add 127.0.0.0/8 via {UPLINK}; echo 1 > /proc/sys/net/ipv4/conf/wan/route_localnet"
    )
    told = fetch_all((outside, one.address, 80), (outside, "127.0.0.1", 8080))
    assert told == ["TimeoutError", "TimeoutError"]


@in_private_network
def test_a_taken_port_is_refused_and_a_free_one_is_found() -> None:
    _serve_on_the_host(8000)
    with pytest.raises(Conflict, match=r"uses it"):
        Container(1, DEFAULT_NETWORK, (Port(container_port=80, host_port=8000),))
    assert ports.load() == ()
    two = Container(2, DEFAULT_NETWORK, (Port(container_port=80), Port(container_port=81)))
    assert len({port.host_port for port in two.ports}) == 2
    assert all(port.host_port for port in two.ports)
    two.serve(80)
    assert fetch("127.0.0.1", two.ports[0].host_port) == GATEWAY
    again = Port(container_port=80, host_port=two.ports[0].host_port)
    with pytest.raises(Conflict, match=f"already used by container {two.id[:12]}"):
        Container(3, DEFAULT_NETWORK, (again,))


@in_private_network
def test_rules_exist_once_however_often_they_are_applied() -> None:
    choose("iptables-legacy")
    wanted = (Port(container_port=80, host_port=8080),)
    one = Container(1, DEFAULT_NETWORK, wanted)
    before = [rules_in(table) for table in ("raw", "nat", "filter")]
    assert len(jumps()) == 6
    firewall.ensure(one.plan)
    os.unlink(firewall.MARK)
    firewall.ensure(one.plan)
    assert [rules_in(table) for table in ("raw", "nat", "filter")] == before


@in_private_network
def test_publishing_and_unpublishing_survive_a_flush() -> None:
    choose("iptables-legacy")
    one = Container(1, DEFAULT_NETWORK, (Port(container_port=80, host_port=8080),))
    run("sh", "-c", "iptables-legacy -t nat -F; iptables-legacy -t nat -X")
    two = Container(2, DEFAULT_NETWORK, (Port(container_port=80, host_port=8081),))
    two.serve(80)
    assert fetch("127.0.0.1", 8081) == GATEWAY
    run("iptables-legacy", "-t", "nat", "-F", "SYSBOX-DNAT")
    firewall.unpublish(one.id)
    assert firewall.reclaim(lambda container_id: False) == [two.id]
    assert ports.load() == ()


@in_private_network
def test_rules_of_others_stay() -> None:
    choose("iptables-legacy")
    run("iptables-legacy", "-A", "FORWARD", "-s", "198.51.100.0/24", "-j", "ACCEPT")
    run(
        "iptables-legacy",
        "-t",
        "nat",
        "-A",
        "PREROUTING",
        "-p",
        "tcp",
        "--dport",
        "1",
        "-j",
        "REDIRECT",
    )
    before = [rules_in(table) for table in ("raw", "nat", "filter")]
    Container(1, DEFAULT_NETWORK)
    firewall.remove()
    assert [rules_in(table) for table in ("raw", "nat", "filter")] == before


@in_private_network
def test_two_bridges_keep_apart() -> None:
    choose("iptables-legacy")
    other = Network(bridge="sysbox1", subnet="10.91.0.0/24", gateway="10.91.0.1")
    one, two = Container(1, DEFAULT_NETWORK), Container(2, other)
    leases.release(two.id)
    two.serve(80)
    one.serve(80)
    assert fetch(two.address, 80) == "10.91.0.1"
    told = fetch_all((one, two.address, 80), (two, one.address, 80))
    assert told == ["TimeoutError", "TimeoutError"]
    assert len(jumps()) == 6


@in_private_network
def test_a_hundred_leases_at_once_are_all_different() -> None:
    children = []
    for worker in range(10):
        pid = os.fork()
        if pid == 0:
            for number in range(10):
                lease(f"{worker:032x}{number:032x}", DEFAULT_NETWORK)
            os._exit(0)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 10
    assert len(leases.all()) == len(set(leases.all().values())) == 100


@in_private_network
def test_a_start_right_after_a_stop_takes_the_link_over() -> None:
    one = Container(1, DEFAULT_NETWORK)
    blocked = Node()
    links.connect(one.plan, blocked.pid)
    assert "eth0" not in one.sh("ip -brief link")
    assert "eth0" in blocked.sh("ip -brief link")
    disconnect(one.plan)
    disconnect(one.plan)


@in_private_network
def test_the_pair_dies_with_the_container() -> None:
    one = Container(1, DEFAULT_NETWORK)
    one.die()
    # the kernel takes down all namespaces of the machine one after the other
    host_link = one.attachment.host_link
    eventually(lambda: host_link not in run("ip", "-brief", "link"), "the link is gone")


@in_private_network
def test_a_bridge_that_lost_its_address_gets_it_back() -> None:
    one = Container(1, DEFAULT_NETWORK)
    run("ip", "address", "flush", "dev", "sysbox0")
    run("ip", "link", "set", "sysbox0", "down")
    links.ensure_bridge(one.attachment)
    assert [entry["local"] for entry in link("sysbox0")["addr_info"]] == [GATEWAY]
    one.serve(80)
    assert fetch(one.address, 80) == GATEWAY


@in_private_network
def test_a_subnet_in_use_elsewhere_is_refused() -> None:
    run("ip", "link", "add", "lan", "type", "bridge")
    run("ip", "address", "add", "10.90.7.1/24", "dev", "lan")
    run("ip", "link", "set", "lan", "up")
    with pytest.raises(Conflict, match=r"overlaps the route 10\.90\.7\.0/24 on lan"):
        Container(1, DEFAULT_NETWORK)


@in_private_network
def test_a_link_of_that_name_that_is_no_bridge_is_a_clear_error() -> None:
    run("ip", "link", "add", "sysbox0", "type", "veth", "peer", "name", "other")
    with pytest.raises(KernelError, match="make the link sb0000000001"):
        Container(1, DEFAULT_NETWORK)


@in_private_network
def test_a_full_bridge_is_a_clear_error() -> None:
    """The kernel allows 1023 ports; the next container must say so and leave nothing."""
    plan = _plan("bridge")
    node = Node()
    (eth0,) = plan.attachments
    index = links.ensure_bridge(eth0)
    rows = [f"link add d{n} master sysbox0 type veth peer name e{n}\n" for n in range(1023)]
    subprocess.run(["ip", "-batch", "-"], input="".join(rows), text=True, check=True)
    with pytest.raises(KernelError) as caught:
        links.connect(plan, node.pid, -1, (index,))
    assert caught.value.errno == errno.EXFULL
    assert "1023 ports" in caught.value.hint
    assert eth0.host_link not in run("ip", "-brief", "link")


@in_private_network
def test_a_container_on_two_networks() -> None:
    """One batch makes both pairs; each interface has its address, the first has the route and the port."""
    lan = Network(name="lan", bridge="sysbox1", subnet="10.91.0.0/24", gateway="10.91.0.1")
    port = Port(container_port=80, host_port=8080)
    spec = ContainerSpec(image="x", ports=(port,))
    first = plan_network("c" * 64, spec)
    second = plan_network("d" * 64, spec, lan).attachments[0].replace(interface="eth1")
    plan = first.replace(attachments=(*first.attachments, second))
    node = Node()
    firewall.ensure(plan)
    links.connect(plan, node.pid)
    node.call("configure", plan.to_data(), ["10.90.0.9", "10.91.0.9"])
    firewall.publish(plan, "10.90.0.9")
    assert [link(one.host_link)["master"] for one in plan.attachments] == ["sysbox0", "sysbox1"]
    assert "10.90.0.9/16" in node.sh("ip address show dev eth0")
    assert "10.91.0.9/24" in node.sh("ip address show dev eth1")
    assert node.sh("ip route show default").split()[:5] == [
        "default",
        "via",
        GATEWAY,
        "dev",
        "eth0",
    ]
    node.serve(80)
    assert fetch("10.91.0.9", 80) == "10.91.0.1"
    assert fetch("127.0.0.1", 8080) == GATEWAY
    disconnect(plan)
    left = run("ip", "-brief", "link")
    assert not [one.host_link for one in plan.attachments if one.host_link in left]


@in_private_network
def test_none_has_loopback_only() -> None:
    node = Node()
    node.call("configure", _plan("none").to_data(), [])
    assert [line.split()[:2] for line in node.sh("ip -brief link").splitlines()] == [
        ["lo", "UNKNOWN"]
    ]
    assert "127.0.0.1/8" in node.sh("ip address show dev lo")


def _plan(mode: str) -> NetPlan:
    spec = ContainerSpec(image="x", namespaces=Namespaces(network=mode))
    return plan_network("c" * 64, spec)


def _serve_on_the_host(port: int) -> None:
    import network_lab

    network_lab._do_serve(port, "tcp")


@in_private_network
def test_bridges_are_listed_and_verified_through_pyroute2() -> None:
    one = Container(1, DEFAULT_NETWORK)
    found = bridges.inspect("sysbox0")
    assert found.up
    assert found.addresses == ("10.90.0.1/16",)
    assert [(port.name, port.container, port.isolated) for port in found.ports] == [
        (one.attachment.host_link, one.id, False)
    ]
    assert bridges.verify(found, DEFAULT_NETWORK) == []
    run("ip", "link", "set", "sysbox0", "mtu", "1400", "down")
    assert bridges.verify(bridges.inspect("sysbox0"), DEFAULT_NETWORK) == [
        "sysbox0 is down",
        "sysbox0 has the MTU 1400 instead of 1500",
    ]
    with pytest.raises(Conflict):
        bridges.remove("sysbox0")
    disconnect(one.plan)
    bridges.remove("sysbox0")
    bridges.remove("sysbox0")
    with pytest.raises(NotFound):
        bridges.inspect("sysbox0")
