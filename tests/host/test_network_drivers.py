"""Networks below a link of the host, networks without links, and those that units declare.

The wire is the host's uplink, with a router at its other end (tools/test-network.sh), or one that the test
makes.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import Container, Containers, eventually
from lane import Sysbox
from test_networks import Make, has_link, inspect, links_inside

from sysbox.base import paths
from sysbox.netns import networks

WIRE = ("-o", "parent=uplink0", "--subnet", "192.0.2.0/24", "--gateway", "192.0.2.1")
RAW = ("--cap-add", "NET_RAW")
BEHIND = "198.51.100.1"  # an address of the router's, which only the default route leads to


def run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done.stdout


@pytest.fixture
def wire() -> Iterator[str]:
    """A link of the host that nothing else uses, and that the test may change or remove."""
    run("ip", "link", "add", "lan0", "type", "veth", "peer", "name", "lan1")
    run("ip", "link", "set", "lan1", "up")
    run("ip", "link", "set", "lan0", "up")
    yield "lan0"
    subprocess.run(["ip", "link", "delete", "lan0"], check=False, capture_output=True)


def reaches(one: Container, address: str, seconds: int = 20) -> bool:
    """Whether an answer comes within so many seconds."""
    return "1 packets received" in one.sh(f"ping -c 1 -W {seconds} {address} || :")


def end_of(one: Container, network: str) -> dict[str, str]:
    found: dict[str, dict[str, str]] = one.inspect("NetworkSettings.Networks")
    return found[network]


def refused(sysbox: Sysbox, reason: str, *words: str) -> None:
    done = sysbox(*words)
    assert done.returncode != 0, words
    assert reason in done.stderr, (words, done.stderr)
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2, done.stderr


def test_a_container_on_the_hosts_wire(
    sysbox: Sysbox, network: Make, containers: Containers
) -> None:
    network("net-lan", "-d", "macvlan", *WIRE, "--ip-range", "192.0.2.64/26", "--dns", "192.0.2.1")
    shown = inspect(sysbox, "net-lan")
    assert (shown["Driver"], shown["Options"]["parent"]) == ("macvlan", "uplink0")
    assert not shown["DNSEnabled"]
    one = containers("--network", "net-lan", *RAW, "-p", "18098:80")
    two = containers("--network", "net-lan:ip=192.0.2.77", *RAW)
    end = end_of(one, "net-lan")
    assert (end["IPAddress"], end["Gateway"]) == ("192.0.2.64", "192.0.2.1")
    assert one.exec("cat", "/sys/class/net/eth0/address").strip() == end["MacAddress"]
    assert sorted(inspect(sysbox, "net-lan")["Containers"]) == sorted((one.id, two.id))
    assert reaches(one, BEHIND)
    assert reaches(one, "192.0.2.77")
    run("ip", "netns", "exec", "outside", "busybox", "ping", "-c", "1", "-W", "20", "192.0.2.77")
    assert not reaches(one, "192.0.2.2", 1), "the kernel keeps a parent and what is below it apart"
    assert "nameserver 192.0.2.1" in one.exec("cat", "/etc/resolv.conf")
    # the ports are open at the container's own address; nothing is published
    assert sysbox("port", one.id).stdout == ""
    refused(sysbox, "a network of the driver macvlan", "publish", one.id, "18097:80")
    told = sysbox("network", "explain", one.id, check=True).stdout
    assert told.startswith("net-lan: macvlan below uplink0")
    usage = sysbox("stats", "--no-stream", "--format", "{{.NetIO}}", one.id, check=True).stdout
    assert not usage.startswith("0B / 0B")
    refused(sysbox, "is this host's own",
            "run", "--rm", "--network", "net-lan:ip=192.0.2.2", "host", "true")  # fmt: skip
    refused(sysbox, "is that of container",
            "run", "--rm", "--network", "net-lan:ip=192.0.2.77", "host", "true")  # fmt: skip
    refused(sysbox, "--network-bandwidth limits networks of the driver bridge",
            "update", "--network-bandwidth", "up=1mbit", one.id)  # fmt: skip


def test_the_same_address_at_each_start(network: Make, containers: Containers) -> None:
    """The kernel may still be removing the last start's link, with the same MAC."""
    network("net-lan", "-d", "macvlan", *WIRE, "--ip-range", "192.0.2.64/26")
    one = containers("--network", "net-lan:ip=192.0.2.70", *RAW)
    mac = end_of(one, "net-lan")["MacAddress"]
    for _ in range(4):
        one("restart", "-t", "0")
        end = end_of(one, "net-lan")
        assert (end["IPAddress"], end["MacAddress"]) == ("192.0.2.70", mac)
    assert reaches(one, BEHIND)


def test_two_families_and_modes(network: Make, containers: Containers, wire: str) -> None:
    both = ("--subnet", "10.36.0.0/24", "--subnet", "fd00:36::/64")
    network("net-lan", "-d", "macvlan", "-o", f"parent={wire}", "-o", "mode=private", *both)
    one = containers("--network", "net-lan", *RAW)
    two = containers("--network", "net-lan", *RAW)
    end = end_of(two, "net-lan")
    assert end["GlobalIPv6Address"].startswith("fd00:36::")
    assert not reaches(one, end["IPAddress"], 1), "private: not even among themselves"
    routes = one.exec("ip", "route") + one.exec("ip", "-6", "route")
    assert "default via 10.36.0.1" in routes
    assert "default via fd00:36::1" in routes
    assert "tentative" not in one.exec("ip", "address", "show", "dev", "eth0")


def test_live_and_mixed_with_a_bridge(
    sysbox: Sysbox, network: Make, containers: Containers
) -> None:
    network("net-lan", "-d", "macvlan", *WIRE, "--ip-range", "192.0.2.64/26")
    network("net-web")
    one = containers("--network", "net-web", "-p", "18096:80", *RAW, "--cap-add", "NET_ADMIN")
    one.exec("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "own")
    refused(sysbox, "has a link eth1 already", "network", "connect", "net-lan", one.id)
    assert inspect(sysbox, "net-lan")["Containers"] == {}
    one.exec("ip", "link", "delete", "eth1")
    sysbox("network", "connect", "net-lan", one.id, check=True)
    assert links_inside(one) == ["eth0", "eth1"]
    assert reaches(one, "192.0.2.1")
    assert "dev eth0" in one.exec("ip", "route", "show", "default"), "that of the first network"
    assert sysbox("port", one.id).stdout.endswith(":18096\n")
    # without the bridge, the way out is that of the wire, and nothing is published
    sysbox("network", "disconnect", "net-web", one.id, check=True)
    assert "192.0.2.1 dev eth1" in one.exec("ip", "route", "show", "default")
    assert sysbox("port", one.id).stdout == ""
    assert reaches(one, BEHIND)
    sysbox("network", "connect", "net-web", one.id, check=True)
    # whatever the container calls its link, and whatever it has made beside it
    one.sh("ip link set eth1 down; ip link set eth1 name mine; ip link set mine up")
    one.exec("ip", "link", "add", "link", "mine", "name", "too", "type", "macvlan")
    assert links_inside(one) == ["eth0", "mine", "too"]
    sysbox("network", "disconnect", "net-lan", one.id, check=True)
    assert links_inside(one) == ["eth0"]
    assert sysbox("port", one.id).stdout.endswith(":18096\n"), "published again, by the bridge"
    assert inspect(sysbox, "net-lan")["Containers"] == {}


def test_a_parent_that_goes(
    sysbox: Sysbox, network: Make, containers: Containers, wire: str
) -> None:
    network("net-lan", "-d", "macvlan", "-o", f"parent={wire}", "--subnet", "10.36.0.0/24")
    one = containers("--network", "net-lan")
    run("ip", "link", "delete", wire)
    eventually(lambda: links_inside(one) == [], "the kernel has removed the link below it too")
    assert "its parent lan0 is missing" in sysbox("doctor").stdout
    refused(sysbox, "its parent lan0 is not there", "restart", "-t", "0", one.id)
    run("ip", "link", "add", wire, "type", "veth", "peer", "name", "lan1")
    refused(sysbox, "its parent lan0 is down", "start", one.id)
    refused(
        sysbox, "its parent lan0 is down", "run", "--rm", "--network", "net-lan", "host", "true"
    )
    assert inspect(sysbox, "net-lan")["Containers"] == {}
    run("ip", "link", "set", wire, "up")
    sysbox("start", one.id, check=True)
    assert links_inside(one) == ["eth0"]
    run("ip", "link", "delete", wire)
    sysbox("network", "disconnect", "net-lan", one.id, check=True)


def test_passthru_is_for_one(
    sysbox: Sysbox, network: Make, containers: Containers, wire: str
) -> None:
    options = ("-o", f"parent={wire}", "-o", "macvlan_mode=passthru", "--subnet", "10.36.0.0/24")
    network("net-lan", "-d", "macvlan", *options)
    one = containers("--network", "net-lan")
    mac = Path(f"/sys/class/net/{wire}/address").read_text().strip()
    assert end_of(one, "net-lan")["MacAddress"] == mac
    assert one.exec("cat", "/sys/class/net/eth0/address").strip() == mac
    refused(sysbox, f"passthru allows one container, and {one.id[:12]} is on it",
            "run", "--rm", "--network", "net-lan", "host", "true")  # fmt: skip
    refused(sysbox, "passthru allows no other",
            "network", "create", "-d", "macvlan", "-o", f"parent={wire}", "net-two")  # fmt: skip
    for _ in range(2):
        one("restart", "-t", "0")


def test_a_network_of_nothing(sysbox: Sysbox, network: Make, containers: Containers) -> None:
    network("net-none", "-d", "none", "--label", "a=b")
    network("net-one")
    shown = inspect(sysbox, "net-none")
    assert (shown["Driver"], shown["IPAM"]["Config"], shown["Labels"]) == ("null", None, {"a": "b"})
    one = containers("--network", "net-none", "-p", "18095:80")
    assert links_inside(one) == []
    assert "127.0.0.1" in one.exec("ip", "address", "show", "dev", "lo")
    assert list(one.inspect("NetworkSettings.Networks")) == ["net-none"]
    assert sysbox("port", one.id).stdout == ""
    one("restart", "-t", "0")
    refused(sysbox, "goes with no other network", "network", "connect", "net-one", one.id)
    refused(sysbox, "whose driver gives it no link", "network", "connect", "net-none", one.id)
    refused(sysbox, "goes with no other network",
            "run", "--rm", "--network", "net-none", "--network", "net-one", "host", "true")  # fmt: skip
    names = sysbox("network", "ls", "-f", "driver=null", "--format", "{{.Name}}", check=True)
    assert names.stdout.split() == ["net-none", "none"]


def test_a_network_that_a_file_declares(
    sysbox: Sysbox, network: Make, containers: Containers
) -> None:
    network("net-two")
    made = json.loads(Path(f"{paths.NETWORKS}/net-two.json").read_text())
    declared = Path(networks.DECLARED)
    declared.mkdir(mode=0o700)
    file = declared / "net-unit.json"
    try:
        file.write_text(json.dumps({
            **made, "name": "net-unit", "id": "d" * 64, "bridge": "sb-unit", "subnet": "10.37.0.0/24",
            "gateway": "10.37.0.1", "dns": True,
        }))  # fmt: skip
        assert inspect(sysbox, "net-unit")["Id"] == "d" * 64
        assert "net-unit" in sysbox("network", "ls", check=True).stdout
        one = containers("--network", "net-unit", "--name", "net-unit-one")
        assert end_of(one, "net-unit")["IPAddress"] == "10.37.0.2"
        refused(sysbox, f"is declared by {file}", "network", "rm", "net-unit")
        refused(sysbox, f"is declared by {file}", "network", "update", "--label", "a=b", "net-unit")
        refused(sysbox, "net-unit already exists", "network", "create", "net-unit")
        sysbox("network", "rm", "net-two", check=True)
        sysbox("network", "prune", "-f", check=True)
        assert file.exists()
        sysbox("rm", "-f", one.id, check=True)
        eventually(lambda: not has_link("sb-unit"), "the bridge is gone")
        refused(sysbox, "overlaps 10.37.0.0/24 on the network net-unit",
                "network", "create", "--subnet", "10.37.0.0/25", "net-three")  # fmt: skip
        file.write_text("{")
        damaged = sysbox("network", "rm", "--force", "net-unit")
        assert (damaged.returncode, "is declared by" in damaged.stderr) == (1, True), damaged.stderr
    finally:
        file.unlink()
        declared.rmdir()
        sysbox("network", "create", "net-two")  # the fixture removes it


def test_bad_input(sysbox: Sysbox, network: Make, wire: str) -> None:
    network("net-lan", "-d", "macvlan", "-o", f"parent={wire}", "--subnet", "10.36.0.0/24")
    run("ip", "link", "add", "br-lan", "type", "bridge")
    run("ip", "link", "set", "lan1", "master", "br-lan")
    macvlan = ("network", "create", "-d", "macvlan")
    try:
        for words, reason in (
            ((*macvlan, "-o", "parent=lan7", "net-two"), "this host has no link lan7"),
            ((*macvlan, "-o", "parent=lan7.20", "net-two"), "this host has no link lan7"),
            ((*macvlan, "-o", "parent=uplnk0", "net-two"), "did you mean 'uplink0'"),
            ((*macvlan, "-o", "parent=lan1", "net-two"), "lan1 is a port of a bridge"),
            ((*macvlan, "-o", "parent=uplink0", "-o", "mtu=9000", "net-two"), "is more than the 1500"),
            ((*macvlan, "-o", "macvlan_mode=bridgee", "net-two"), "did you mean bridge?"),
            ((*macvlan, "-o", "ipvlan_mode=l2", "net-two"), "did you mean macvlan_mode?"),
            ((*macvlan, "-o", "icc=false", "net-two"), "is an option of the driver bridge, not of macvlan"),
            (("network", "create", "-o", f"parent={wire}", "net-two"), "of the driver macvlan and ipvlan"),
            ((*macvlan, "-o", f"parent={wire}", "--subnet", "10.36.0.0/25", "net-two"),
             "overlaps 10.36.0.0/24 on the network net-lan"),
            (("network", "create", "-d", "macvlann", "net-two"), "did you mean macvlan?"),
            (("network", "create", "-d", "none", "--subnet", "10.38.0.0/24", "net-two"), "have no link"),
            (("run", "--rm", "--network", "net-lan", "--network-bandwidth", "up=1mbit", "host", "true"),
             "limits networks of the driver bridge"),
        ):  # fmt: skip
            refused(sysbox, reason, *words)
    finally:
        run("ip", "link", "delete", "br-lan")
    assert sysbox("network", "ls", "-q", "-f", "type=custom").stdout.count("\n") == 1
