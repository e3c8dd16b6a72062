"""What a container with NET_RAW and NET_ADMIN sends in the name of another does not arrive.

Each attack is made twice: without the filter it succeeds, which proves that it is one. In the guest: its
kernel is an older one, and has to have what the filter needs.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from containers import eventually
from network_lab import GATEWAY6, SUBNET6, Dual, Node, in_private_network, run

from sysbox.netns import links, port_filter, topology
from sysbox.netns.rules import Policy
from sysbox.netns.topology import DEFAULT_NETWORK
from sysbox.spec import ContainerSpec, Namespaces

GATEWAY = DEFAULT_NETWORK.gateway
POLICY = Policy(bridge="sysbox0", subnet="10.90.0.0/24", subnet6=SUBNET6)
EVERYONE = "ff:ff:ff:ff:ff:ff"


def hexed(address: str) -> str:
    """An address or a MAC as hexadecimal digits."""
    if address.count(":") == 5:
        return address.replace(":", "")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.inet_pton(family, address).hex()


def arp_answer(mac: str, address: str) -> str:
    """A frame that says that the address is at the MAC."""
    head = hexed(EVERYONE) + hexed(mac) + "0806"
    return (
        head + "0001080006040002" + hexed(mac) + hexed(address) + hexed(EVERYONE) + hexed(address)
    )


def _icmp6(mac: str, source: str, target: str, body: str) -> str:
    """A frame with an ICMPv6 message to a multicast address."""
    payload = bytes.fromhex(body)
    whole = bytes.fromhex(hexed(source) + hexed(target)) + len(payload).to_bytes(4, "big")
    whole += bytes((0, 0, 0, 58)) + payload
    total = sum(
        int.from_bytes(whole[at : at + 2].ljust(2, b"\0"), "big") for at in range(0, len(whole), 2)
    )
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    payload = payload[:2] + (total ^ 0xFFFF).to_bytes(2, "big") + payload[4:]
    head = f"3333{hexed(target)[-8:]}{hexed(mac)}86dd60000000{len(payload):04x}3aff"
    return head + hexed(source) + hexed(target) + payload.hex()


def advertisement(mac: str, address: str) -> str:
    """A neighbour advertisement that says so, and overrides what was known (RFC 4861)."""
    body = "88000000" + "20000000" + hexed(address) + "0201" + hexed(mac)
    return _icmp6(mac, address, "ff02::1", body)


def router(mac: str, source: str) -> str:
    """A router advertisement with a lifetime of half an hour."""
    return _icmp6(mac, source, "ff02::1", "86000000" + "40000708" + "00000000" * 2)


def arrives(one: Node, frame: str, happened: Callable[[], bool]) -> bool:
    """Send a frame until it has had its effect, for three seconds at most."""
    for _ in range(30):
        one.call("frame", "eth0", frame)
        if happened():
            return True
        time.sleep(0.1)
    return False


def stays_away(one: Dual, frame: str, happened: Callable[[], bool]) -> bool:
    """Send a frame a few times; whether it has had no effect."""
    for _ in range(5):
        one.call("frame", "eth0", frame)
        time.sleep(0.05)
    return not happened()


def without_filter(one: Dual) -> None:
    """Remove the filter, for the proof that the attack is one."""
    run("tc", "qdisc", "del", "dev", one.attachment.host_link, "clsact")


@in_private_network
def test_a_new_link_of_a_running_container_carries_nothing_before_it_is_filtered() -> None:
    """Its end is in the container at once, which may set it up by itself and send."""
    two, node = Dual(2, POLICY), Node()
    spec = ContainerSpec(image="x", namespaces=Namespaces(network="bridge"))
    plan = topology.plan_network("00000000cc" + "5b" * 27, spec, DEFAULT_NETWORK)
    (one,) = plan.attachments
    received = Path(f"/sys/class/net/{one.host_link}/statistics/rx_packets")
    forged = arp_answer(one.mac, two.address)
    seen = []

    def before_up() -> None:
        node.sh("ip link set eth0 up")
        for _ in range(5):
            node.call("frame", "eth0", forged)
        seen.append(received.read_text(encoding="ascii").strip())
        assert port_filter.install([one.replace(address="10.90.0.77")])

    links.connect(plan, node.pid, -1, (socket.if_nametoindex("sysbox0"),), before_up)
    assert seen == ["0"]
    # now it is up, as soon as the kernel's link watch has seen it
    assert arrives(node, forged, lambda: received.read_text(encoding="ascii").strip() != "0")
    assert one.mac not in run("ip", "neighbour")
    filters = run("tc", "-s", "filter", "show", "dev", one.host_link, "ingress")
    assert "direct-action" in filters


@pytest.mark.guest("the filter's program, and where it is attached")
@in_private_network
def test_a_forged_arp_answer_does_not_arrive() -> None:
    one, two = Dual(1, POLICY), Dual(2, POLICY)
    two.sh("echo 1 > /proc/sys/net/ipv4/conf/eth0/arp_accept")
    mac = one.attachment.mac

    def known(address: str) -> bool:
        return mac in two.sh(f"ip neighbour show {address}")

    for address in (GATEWAY, "10.90.0.77"):
        assert stays_away(one, arp_answer(mac, address), lambda: mac in two.sh("ip neighbour"))
    assert mac not in run("ip", "neighbour", "show", "10.90.0.77")
    assert arrives(one, arp_answer(mac, one.address), lambda: known(one.address))
    without_filter(one)
    assert arrives(one, arp_answer(mac, GATEWAY), lambda: known(GATEWAY))


@pytest.mark.guest("the filter's program, and where it is attached")
@in_private_network
def test_a_forged_neighbour_advertisement_does_not_arrive() -> None:
    one, two = Dual(1, POLICY), Dual(2, POLICY)
    two.serve(80)
    two.fetch(GATEWAY6, 1)  # refused; now it knows the gateway's MAC
    mac = one.attachment.mac
    forged = advertisement(mac, GATEWAY6)

    def known() -> bool:
        return mac in two.sh(f"ip -6 neighbour show {GATEWAY6}")

    assert stays_away(one, forged, known)
    assert one.fetch(two.address6, 80) == one.address6, "it finds its neighbours all the same"
    without_filter(one)
    assert arrives(one, forged, known)


@in_private_network
def test_a_router_advertisement_does_not_arrive() -> None:
    one, two = Dual(1, POLICY), Dual(2, POLICY)
    two.sh("echo 2 > /proc/sys/net/ipv6/conf/eth0/accept_ra; ip -6 route del default")
    source = "fe80::ff:fe00:1"  # its own link-local address, so that nothing else is wrong with it
    forged = router(one.attachment.mac, source)

    def believed() -> bool:
        return source in two.sh("ip -6 route show default")

    assert stays_away(one, forged, believed)
    without_filter(one)
    assert arrives(one, forged, believed)


@pytest.mark.guest("the filter's program, and where it is attached")
@in_private_network
def test_packets_with_another_source_do_not_arrive() -> None:
    """An address that nobody has, of both families, and the MAC of another."""
    one, two = Dual(1, POLICY), Dual(2, POLICY)
    two.serve(80)
    two.serve(81, "udp")
    one.sh("ip address add 10.90.0.99/16 dev eth0; ip -6 address add fd00:90::99/64 dev eth0 nodad")
    for address in ("10.90.0.99", "fd00:90::99"):
        target = two.address6 if ":" in address else two.address
        assert one.call("fetch_from", address, target, 80) == "TimeoutError"
    assert one.fetch(two.address, 80) == one.address
    assert one.fetch(two.address, 81, "udp") == one.address
    mac = "02:00:00:00:00:99"
    one.sh(f"ip link set eth0 address {mac}")
    assert one.fetch(two.address, 80) in ("TimeoutError", "OSError")
    one.sh(f"ip link set eth0 address {one.attachment.mac}")
    assert one.fetch(two.address, 80) == one.address
    without_filter(one)
    for address in ("10.90.0.99", "fd00:90::99"):
        target = two.address6 if ":" in address else two.address
        assert one.call("fetch_from", address, target, 80) == address
    one.sh(f"ip link set eth0 address {mac}")
    assert one.fetch(two.address, 80) == one.address


@in_private_network
def test_a_tagged_frame_does_not_arrive() -> None:
    """One that is tagged as a frame of VLAN 7, with everything else in order."""
    one, two = Dual(1, POLICY), Dual(2, POLICY)
    plain = arp_answer(one.attachment.mac, one.address)
    tagged = plain[:24] + "81000007" + plain[24:]

    def arrived(frame: str) -> Callable[[], int]:
        """Sends a hundred frames; how many the other one has received since."""
        before = int(two.sh(count))
        for _ in range(100):
            one.call("frame", "eth0", frame)
        return lambda: int(two.sh(count)) - before

    count = "awk '/eth0/ {print $3}' /proc/net/dev"
    blocked = arrived(tagged)
    time.sleep(0.2)
    assert blocked() < 50, "what else there is: multicast of the kernel's"
    passed = arrived(plain)
    eventually(lambda: passed() >= 100, "they arrive")
    without_filter(one)
    attack = arrived(tagged)
    eventually(lambda: attack() >= 100, "without the filter they do, too")
