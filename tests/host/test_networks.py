"""Networks as a user meets them: definitions, several links, addresses, changes while a container runs.

In the guest: its kernel is an older one, where links and routes of both families are made.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from containers import Container, Containers, eventually
from faults import SEED, SOAK
from lane import Sysbox

from sysbox.base import paths
from sysbox.netns import leases
from sysbox.netns.names import directory_of
from sysbox.netns.network import BUILTIN

Make = Callable[..., str]


def inspect(sysbox: Sysbox, name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(sysbox("network", "inspect", name, check=True).stdout)
    return found[0]


def bridge_of(sysbox: Sysbox, name: str) -> str:
    return str(inspect(sysbox, name)["Options"]["com.docker.network.bridge.name"])


def has_link(name: str) -> bool:
    return Path(f"/sys/class/net/{name}").exists()


def links_inside(container: Container) -> list[str]:
    return sorted(set(container.exec("ls", "/sys/class/net").split()) - {"lo"})


def test_the_life_of_a_network(sysbox: Sysbox, network: Make) -> None:
    network("net-one", "--label", "tier=back", "-o", "mtu=1400")
    shown = inspect(sysbox, "net-one")
    assert (shown["Name"], shown["Driver"], shown["Scope"]) == ("net-one", "bridge", "local")
    assert (shown["Labels"], shown["EnableIPv6"], shown["Containers"]) == (
        {"tier": "back"},
        False,
        {},
    )
    (config,) = shown["IPAM"]["Config"]
    assert config["Subnet"].endswith("/22")
    file = Path(paths.NETWORKS) / "net-one.json"
    assert json.loads(file.read_text())["id"] == shown["Id"]
    assert not has_link(bridge_of(sysbox, "net-one")), "nothing of it is made yet"
    names = sysbox("network", "ls", "--format", "{{.Name}} {{.Driver}}", check=True).stdout
    assert names.splitlines() == ["bridge bridge", "host host", "net-one bridge", "none null"]
    ids = sysbox("network", "ls", "-q", "-f", "type=custom", check=True).stdout.split()
    assert ids == [shown["Id"][:12]]
    assert sysbox("network", "exists", shown["Id"][:8]).returncode == 0
    sysbox("network", "update", "--label", "tier=front", "--label", "a=b", "net-one", check=True)
    sysbox("network", "update", "--label-rm", "a", "net-one", check=True)
    assert inspect(sysbox, "net-one")["Labels"] == {"tier": "front"}
    assert sysbox("network", "rm", "net-one", check=True).stdout == "net-one\n"
    assert sysbox("network", "exists", "net-one").returncode == 1
    assert not file.exists()


def test_the_bridge_comes_with_the_first_container_and_goes_with_the_last(
    sysbox: Sysbox, network: Make, containers: Containers
) -> None:
    network("net-one")
    bridge = bridge_of(sysbox, "net-one")
    one = containers("--network", "net-one")
    two = containers("--network", "net-one", "--name", "net-two", "--cap-add", "NET_RAW")
    assert has_link(bridge)
    held = inspect(sysbox, "net-one")["Containers"]
    assert {held[one.id]["Name"], held[two.id]["Name"]} >= {"net-two"}
    ends = json.loads(sysbox("inspect", "-f", "{{json .NetworkSettings.Networks}}", one.id).stdout)
    assert held[one.id]["IPv4Address"].split("/")[0] == ends["net-one"]["IPAddress"]
    assert ends["net-one"]["NetworkID"] == inspect(sysbox, "net-one")["Id"]
    two.exec("ping", "-c", "1", "-W", "3", ends["net-one"]["IPAddress"])
    refused = sysbox("network", "rm", "net-one")
    assert refused.returncode == 1
    assert "net-one is in use by containers" in refused.stderr
    assert "stop them, or `sysbox network disconnect net-one CONTAINER`" in refused.stderr
    sysbox("rm", "-f", one.id, check=True)
    assert has_link(bridge)
    sysbox("stop", "-t", "0", two.id, check=True)
    eventually(lambda: not has_link(bridge), "the bridge is gone")
    # which goes before the files
    kept = Path(leases.directory(ends["net-one"]["NetworkID"]))
    eventually(lambda: not kept.exists(), "nothing is kept of it")
    sysbox("start", two.id, check=True)
    assert has_link(bridge)


@pytest.mark.guest("an older kernel's links and routes")
def test_several_networks_with_addresses_of_both_families(
    sysbox: Sysbox, network: Make, containers: Containers
) -> None:
    subnets = ("--subnet", "10.33.0.0/24", "--subnet", "fd00:33::/64", "--gateway", "10.33.0.254")
    route = ("--route", "192.168.77.0/24,10.33.0.9,7", "--route", "fd77::/64,fd00:33::9")
    network("net-one", *subnets, *route)
    network("net-two", "--internal")
    one = containers(
        "--network", "net-two:alias=x,interface_name=back", "--network",
        "net-one:ip=10.33.0.77,ip6=fd00:33::77,mac=02:00:00:00:33:77",
    )  # fmt: skip
    assert links_inside(one) == ["back", "eth0"]
    shown = one.exec("ip", "-o", "address", "show", "dev", "eth0")
    assert "10.33.0.77/24" in shown
    assert "fd00:33::77/64" in shown
    assert "tentative" not in shown
    assert one.exec("cat", "/sys/class/net/eth0/address") == "02:00:00:00:33:77"
    # an internal network leads nowhere: the second has the routes
    assert one.exec("ip", "route", "show", "default").split()[2:5] == ["10.33.0.254", "dev", "eth0"]
    assert "fd00:33::1" in one.exec("ip", "-6", "route", "show", "default")
    routes = one.exec("ip", "route") + one.exec("ip", "-6", "route")
    assert "192.168.77.0/24 via 10.33.0.9 dev eth0" in routes
    assert "fd77::/64 via fd00:33::9 dev eth0" in routes
    other = containers("--network", "net-one", "--cap-add", "NET_RAW")
    for address in ("10.33.0.77", "fd00:33::77", "10.33.0.254", "fd00:33::1"):
        other.exec("ping", "-c", "1", "-W", "3", address)
    for address, reason in (
        ("ip=10.33.0.77", "is that of container"),
        ("ip6=fd00:33:0::77", "is that of container"),
        ("ip=10.34.0.1", "is not in 10.33.0.0/24"),
        ("ip=10.33.0.254", "is the gateway"),
    ):
        done = sysbox("run", "--rm", "--network", f"net-one:{address}", "host", "true")
        assert (done.returncode, reason in done.stderr) == (125, True), done.stderr
        assert "Traceback" not in done.stderr
    names = sysbox("ps", "--filter", "network=net-two", "--format", "{{.ID}} {{.Networks}}")
    assert names.stdout == f"{one.id[:12]} net-one,net-two\n"
    assert sysbox("ps", "-q", "--filter", "network=bridge").stdout == ""


def test_connect_and_disconnect_a_running_container(
    sysbox: Sysbox, network: Make, containers: Containers
) -> None:
    network("net-one", "--ipv6")
    network("net-two")
    one = containers("-p", "18099:80", image="host", command=("sleep", "1000"))
    assert links_inside(one) == ["eth0"]
    sysbox("network", "connect", "--alias", "db", "net-one", one.id, check=True)
    sysbox("network", "connect", "net-two", one.id, check=True)
    again = sysbox("network", "connect", "net-two", one.id)
    assert again.returncode == 125 or again.returncode == 1
    assert "is on the network net-two already" in again.stderr
    assert links_inside(one) == ["eth0", "eth1", "eth2"]
    inside = {entry["ifname"]: entry for entry in json.loads(one.exec("ip", "-json", "address"))}
    ends = json.loads(sysbox("inspect", "-f", "{{json .NetworkSettings.Networks}}", one.id).stdout)
    first = [entry["local"] for entry in inside["eth1"]["addr_info"] if entry["scope"] == "global"]
    assert first == [ends["net-one"]["IPAddress"], ends["net-one"]["GlobalIPv6Address"]]
    hosts = one.exec("cat", "/etc/hosts")
    assert all(f"{address}\t{one.id[:12]}" in hosts for address in first)
    # the network `bridge` has the route and the port, until it is left
    assert "dev eth0" in one.exec("ip", "route", "show", "default")
    assert "dev eth1" in one.exec("ip", "-6", "route", "show", "default")
    sysbox("network", "disconnect", "bridge", one.id, check=True)
    assert links_inside(one) == ["eth1", "eth2"]
    assert "dev eth1" in one.exec("ip", "route", "show", "default")
    assert sysbox("port", one.id).stdout.splitlines()[0].endswith(":18099")
    assert _target_of(18099) == first[0]
    sysbox("restart", "-t", "0", one.id, check=True)
    assert links_inside(one) == ["eth0", "eth1"]
    assert sorted(one.inspect("NetworkSettings.Networks")) == ["net-one", "net-two"]
    for name in ("net-one", "net-two"):
        sysbox("network", "disconnect", name, one.id, check=True)
    assert links_inside(one) == []
    assert not has_link(bridge_of(sysbox, "net-one"))
    missing = sysbox("network", "disconnect", "net-one", one.id)
    assert "is not on the network net-one" in missing.stderr
    sysbox("network", "disconnect", "-f", "net-one", one.id, check=True)
    sysbox("network", "connect", "bridge", one.id, check=True)
    assert links_inside(one) == ["eth0"]


@pytest.mark.parametrize("joins", ["its first network", "a further one"])
def test_no_router_configures_a_link_of_network_connect(
    sysbox: Sysbox, network: Make, containers: Containers, joins: str
) -> None:
    """CVE-2020-13401; and its addresses are usable at once."""
    network("net-one", "--ipv6")
    first = joins == "its first network"
    flags = ("--network", "none") if first else ()
    one = containers(*flags, image="host", command=("sleep", "1000"))
    sysbox("network", "connect", "net-one", one.id, check=True)
    settings = Path("/proc/sys/net/ipv6/conf", "eth0" if first else "eth1")
    shown = [
        one.exec("cat", str(settings / name)) for name in ("accept_ra", "autoconf", "accept_dad")
    ]
    assert shown == ["0"] * 3
    assert "tentative" not in one.exec("ip", "-6", "address")


def _target_of(port: int) -> str:
    """The address that a published port leads to."""
    from sysbox.netns import ports

    return next(entry.address for entry in ports.load() if entry.port.host_port == port)


def test_bad_input(sysbox: Sysbox, network: Make) -> None:
    docker = ("--attachable", "--ipv4", "--scope", "local", "--ipam-driver", "default")
    network("net-one", *docker, "--subnet", "10.33.0.0/24")
    shared = ("network", "connect", "net-one")
    create = ("network", "create")
    name = "com.docker.network.bridge.name"
    for words, reason in (
        ((*create, "net-one"), "network with name net-one already exists"),
        ((*create, "--subnet", "10.33.0.128/25", "net-two"), "overlaps 10.33.0.0/24 on the network"),
        ((*create, "--subnet", "192.0.2.0/25", "net-two"), "overlaps 192.0.2.0/24 on"),
        ((*create, "-d", "bridg", "net-two"), "did you mean bridge"),
        ((*create, "-d", "overlay", "net-two"), "there is no such driver"),
        ((*create, "-o", "mtuu=1", "net-two"), "did you mean mtu"),
        ((*create, "--gateway", "10.1.1.1", "net-two"), "is not an address of the subnet"),
        ((*create, "--ipam-driver", "dhcp", "net-two"), "--ipam-driver dhcp: there is none"),
        ((*create, "--scope", "swarm", "net-two"), "a network is of one host"),
        ((*create, "--ipv4=false", "net-two"), "a network has an IPv4 subnet"),
        ((*create, "bridge"), "has a meaning of its own"),
        ((*create, "-o", f"{name}=sysbox0", "net-two"), "is that of the network bridge"),
        ((*create, "-o", f"{name}=lo0", "--subnet", "x", "net-two"), "is not an IP"),
        (("network", "rm", "none-such"), "no such network: none-such"),
        (("network", "rm", "host"), "host is a pre-defined network and cannot be removed"),
        (("network", "inspect", "net-onee"), "did you mean 'net-one'"),
        (("run", "--rm", "--network", "net-onee", "host", "true"), "no such network: net-onee"),
        ((*shared, "none-such"), "none-such"),
    ):  # fmt: skip
        done = sysbox(*words)
        assert done.returncode != 0, words
        assert reason in done.stderr + done.stdout, (words, done.stderr)
        assert "Traceback" not in done.stderr
    assert sysbox("network", "ls", "-q", "-f", "type=custom").stdout.count("\n") == 1


def test_a_damaged_definition(sysbox: Sysbox) -> None:
    path = Path(paths.NETWORKS) / "net-bad.json"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_text('{"name": "net-bad", "mtu": "x"}')
    try:
        listed = sysbox("network", "ls")
        assert "net-bad.json.mtu: must be int" in listed.stderr
        assert "bridge" in listed.stdout
        done = sysbox("run", "--rm", "--network", "net-bad", "host", "true")
        assert done.returncode == 125
        assert "network rm --force net-bad" in done.stderr
        assert sysbox("network", "rm", "net-bad").returncode == 1
        sysbox("network", "rm", "--force", "net-bad", check=True)
        assert not path.exists()
    finally:
        path.unlink(missing_ok=True)


def test_a_network_that_was_removed(sysbox: Sysbox, network: Make, containers: Containers) -> None:
    network("net-one")
    one = containers("--network", "net-one", verb=("create",))
    sysbox("network", "rm", "net-one", check=True)
    done = sysbox("start", one.id)
    assert done.returncode != 0
    assert "no such network: net-one" in done.stderr
    network("net-one")
    sysbox("start", one.id, check=True)
    assert links_inside(one) == ["eth0"]


def test_prune_takes_networks_of_no_container(
    sysbox: Sysbox, network: Make, containers: Containers
) -> None:
    network("net-one")
    network("net-two")
    containers("--network", "net-one", verb=("create",))
    done = sysbox("network", "prune", "-f", check=True)
    assert done.stdout == "Deleted Networks:\nnet-two\n\n"
    dangling = sysbox("network", "ls", "-q", "-f", "dangling=true").stdout
    assert dangling == ""


def test_policies_of_links(sysbox: Sysbox, network: Make, containers: Containers) -> None:
    network("net-one", "-o", "icc=false")
    network("net-two", "--internal")
    one = containers("--network", "net-one", "--network", "net-two", "--cap-add", "NET_RAW")
    two = containers("--network", "net-one", "--network", "net-two")
    ends = two.inspect("NetworkSettings.Networks")
    far = ("ping", "-c", "1", "-W")
    assert sysbox("exec", one.id, *far, "1", ends["net-one"]["IPAddress"]).returncode == 1
    one.exec(*far, "10", ends["net-two"]["IPAddress"])
    inside = containers("--network", "net-two")
    assert "default" not in inside.exec("ip", "route")


def test_what_a_killed_start_leaves_is_collected(
    sysbox: Sysbox, network: Make, containers: Containers
) -> None:
    network("net-one")
    found = inspect(sysbox, "net-one")
    bridge = bridge_of(sysbox, "net-one")
    one = containers("--network", "net-one")
    with leases.NetworkLock(found["Id"]):
        leases.lease(found["Id"], "ab" * 32, found["IPAM"]["Config"][0]["Subnet"], "")
    sysbox("rm", "-f", one.id, check=True)
    assert has_link(bridge), "a lease is left"
    assert f"released the address of {'ab' * 6}" in sysbox("gc", check=True).stdout
    assert not has_link(bridge)


def test_many_at_random(sysbox: Sysbox, network: Make, containers: Containers) -> None:
    """Connects, disconnects, starts, stops, kills: no address twice, no name, link or bridge left."""
    chance = random.Random(SEED)
    names = [network(f"net-{number}", *(("--ipv6",) if number else ())) for number in range(3)]
    bridges = [bridge_of(sysbox, name) for name in names]
    made = [containers("--network", names[0]) for _ in range(3)]
    rounds = int(os.environ.get("SYSBOX_SOAK_ROUNDS", "1000")) if SOAK else 30
    for _ in range(rounds):
        one, name = chance.choice(made), chance.choice(names)
        act = chance.choice(("connect", "disconnect", "disconnect", "start", "stop", "kill"))
        if act in ("connect", "disconnect"):
            sysbox("network", act, name, one.id)
        elif act == "stop":
            sysbox("stop", "-t", "0", one.id)
        else:
            sysbox(act, one.id)
        _check(sysbox, names, made)
    for one in made:
        sysbox("rm", "-f", one.id, check=True)
    eventually(lambda: not any(map(has_link, bridges)), "the bridges are gone")
    eventually(lambda: leases.in_use() == [], "and then their files")
    assert sysbox("gc", check=True).stdout == ""


def _check(sysbox: Sysbox, names: list[str], made: list[Container]) -> None:
    addresses: list[str] = []
    for name in names:
        for end in inspect(sysbox, name)["Containers"].values():
            addresses += filter(None, (end["IPv4Address"], end["IPv6Address"]))
    assert len(addresses) == len(set(addresses))
    # a container that was killed is gone before all that it had
    eventually(lambda: _agree(names, made), "links and names are those of the containers that run")


def _agree(names: list[str], made: list[Container]) -> bool:
    """Each has a link for each of its networks, and is named on each; nobody else has, or is."""
    named: dict[str, set[str]] = {name: set() for name in names}
    links = 0
    for one in made:
        if one.inspect("State.Running"):
            ends = set(one.inspect("NetworkSettings.Networks")) - {"none"}
            try:
                if len(links_inside(one)) != len(ends):
                    return False
            except AssertionError:
                return False  # it has just ended
            links += len(ends)
            for name in ends:
                named[name].add(one.id)
    found = {
        name: {path.name for path in Path(directory_of(name)).glob("?" * 64)} for name in names
    }
    return found == named and len(list(Path("/sys/class/net").glob("*/brport"))) == links


def test_ids_of_builtin_networks(sysbox: Sysbox) -> None:
    for name, network_id in BUILTIN.items():
        assert inspect(sysbox, name)["Id"] == network_id
        assert inspect(sysbox, network_id[:12])["Name"] == name
