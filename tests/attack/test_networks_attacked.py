"""Networks against hostile containers, definitions and neighbours: what they must neither reach nor break.

The packets of the policies are in tests/host/test_firewall.py, forged frames in test_spoofing.py, and what a
resolver makes of malformed messages in tests/fuzz/test_fuzz_dns.py.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import dnsclient
import pytest
from containers import Container, Containers, eventually, popen
from lane import Sysbox

from sysbox.base import paths
from sysbox.netns import networks

Make = Callable[..., str]
ADMIN = ("--cap-add", "NET_ADMIN", "--cap-add", "SYS_ADMIN", "--cap-add", "NET_RAW")
FOREIGN = "adm-bridge"  # a bridge of the host's own


def ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=True)
    return done.stdout


def has_link(name: str) -> bool:
    return Path(f"/sys/class/net/{name}").exists()


def ends(container: Container) -> dict[str, dict[str, str]]:
    """What `inspect` has of a container's networks."""
    return dict(container.inspect("NetworkSettings.Networks"))


def fetched(container: Container, host: str, port: str) -> str:
    return container.sh(f"nc -w 1 {host} {port} </dev/null || echo refused")


@pytest.fixture
def foreign() -> Iterator[Callable[[str], None]]:
    """`foreign(ADDRESS)` makes the host's own bridge, which somebody else has configured."""

    def make(address: str) -> None:
        ip("link", "add", FOREIGN, "type", "bridge")
        ip("address", "add", address, "dev", FOREIGN)
        ip("link", "set", FOREIGN, "up")

    yield make
    if has_link(FOREIGN):
        ip("link", "delete", FOREIGN)


@pytest.mark.parametrize(
    ("address", "status"), [("10.66.0.1/24", 125), ("10.55.0.1/24", 0)], ids=["other", "same"]
)
def test_a_link_of_the_host_outlives_the_network_of_its_name(
    sysbox: Sysbox,
    network: Make,
    foreign: Callable[[str], None],
    image: str,
    address: str,
    status: int,
) -> None:
    """Its bridge was defined first: a start is refused, or takes it as it is, and neither removes it."""
    network("mine", "--subnet", "10.55.0.0/24", "--interface-name", FOREIGN)
    foreign(address)
    for _ in range(2):
        done = sysbox("run", "--rm", "--network", "mine", image, "true")
        assert done.returncode == status, done.stderr
        assert "ip link delete" not in done.stderr
        assert has_link(FOREIGN)
    sysbox("gc", check=True)
    sysbox("network", "rm", "mine", check=True)
    assert has_link(FOREIGN)


def test_the_bridge_of_another_network_outlives_a_copy_of_its_definition(
    sysbox: Sysbox, network: Make, containers: Containers, image: str
) -> None:
    network("first")
    network("second")
    one = containers("--network", "first", "--cap-add", "NET_RAW")
    file = Path(networks.path_of("second"))
    values = json.loads(file.read_bytes())
    bridge = json.loads(Path(networks.path_of("first")).read_bytes())["bridge"]
    file.write_text(json.dumps({**values, "bridge": bridge}))
    done = sysbox("run", "--rm", "--network", "second", image, "true")
    assert done.returncode == 125
    assert has_link(bridge)
    one.exec("ping", "-c", "1", "-W", "3", ends(one)["first"]["Gateway"])


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"nic": 'x" accept\ny'}, "nic: must be the name of a link"),
        ({"bridge": "a b;c"}, "bridge: must be the name of a link"),
        ({"interface": "../x"}, "interface: must be the name of a link"),
        ({"host_binding": "x"}, "'x' is not an IP address"),
        ({"dns_servers": ["1.1.1.1\nx"]}, "is not an IP address"),
        ({"subnet": "127.0.0.0/8", "gateway": "127.0.0.1"}, "overlaps 127.0.0.0/8"),
        ({"subnet6": "fe80::/64", "gateway6": "fe80::1"}, "overlaps fe80::/10"),
    ],
    ids=["nic", "bridge", "interface", "binding", "servers", "loopback", "link-local"],
)
def test_a_hostile_definition_makes_no_rule(
    sysbox: Sysbox, network: Make, image: str, values: dict[str, object], reason: str
) -> None:
    network("bad")
    file = Path(networks.path_of("bad"))
    file.write_text(json.dumps({**json.loads(file.read_bytes()), **values}))
    mark = Path(f"{paths.NETWORK}/rules")
    before = mark.read_bytes() if mark.exists() else b""
    done = sysbox("run", "--rm", "--network", "bad", image, "true")
    assert done.returncode == 125
    assert reason in done.stderr
    assert "network rm --force bad" in done.stderr
    assert before == (mark.read_bytes() if mark.exists() else b"")


@pytest.mark.parametrize("what", ["pipe", "symlink", "huge"])
def test_a_definition_that_is_no_plain_file_keeps_nobody_waiting(
    sysbox: Sysbox, network: Make, image: str, what: str
) -> None:
    network("bad")
    file = Path(networks.path_of("bad"))
    file.unlink()
    if what == "pipe":
        subprocess.run(["mkfifo", file], check=True)
    elif what == "symlink":
        file.symlink_to("/etc/shadow")
    else:
        with file.open("wb") as sparse:
            sparse.truncate(1 << 40)
    listed = sysbox("network", "ls", timeout=20)
    assert (listed.returncode, "bad.json" in listed.stderr) == (1, True)
    assert "root:" not in listed.stderr
    assert sysbox("run", "--rm", "--network", "bad", image, "true", timeout=20).returncode == 125
    assert sysbox("network", "rm", "-f", "bad").stdout == "bad\n"


def test_a_link_that_the_container_has_hidden_is_taken_from_it(
    sysbox: Sysbox, network: Make, containers: Containers
) -> None:
    network("front")
    network("back")
    one = containers(
        *ADMIN, "--network", "front", "--network", "back", image="host", command=("sleep", "1000")
    )
    one.sh("ip link set eth1 down; ip link set eth1 name hidden; ip link set hidden up")
    sysbox("network", "disconnect", "back", one.id, check=True)
    assert "hidden" not in one.exec("ls", "/sys/class/net")
    sysbox("network", "connect", "back", one.id, check=True)
    # into a namespace that only the container knows
    one.sh(
        "unshare -n sleep 1000 >/dev/null 2>&1 & echo $! >/tmp/pid;"
        " until [ $(readlink /proc/$!/ns/net) != $(readlink /proc/$$/ns/net) ]; do sleep 0.02; done;"
        " ip link set eth1 netns $(cat /tmp/pid)"
    )
    there = "nsenter -t $(cat /tmp/pid) -n ip -o link"
    assert "eth1" in one.sh(there)
    sysbox("network", "disconnect", "back", one.id, check=True)
    assert "eth1" not in one.sh(there)


def test_its_own_routing_does_not_stop_a_disconnect(
    sysbox: Sysbox, network: Make, containers: Containers
) -> None:
    """The record, the ports and the addresses are as after any other disconnect."""
    network("front")
    network("back")
    one = containers(
        *ADMIN, "--network", "front", "--network", "back", "-p", "80",
        image="host", command=("sleep", "1000"),
    )  # fmt: skip
    for rule, gone, left in (
        ("prohibit", "front", "back"), ("unreachable", "back", "front"), ("blackhole", "front", "back"),
    ):  # fmt: skip
        one.sh(f"ip rule add pref 1 {rule}")
        sysbox("network", "disconnect", gone, one.id, check=True)
        assert list(ends(one)) == [left]
        assert "80/tcp" in one("port")
        one.sh("ip rule delete pref 1")
        sysbox("network", "connect", gone, one.id, check=True)


def test_a_default_route_of_its_own_leads_out_of_no_internal_network(
    sysbox: Sysbox, network: Make, containers: Containers
) -> None:
    network("inner", "--internal", "--ipv6")
    network("outer")
    server = ("nc", "-ll", "-p", "80", "-e", "echo", "here")
    far = containers("--network", "outer", "-p", "80", command=server)
    one = containers(*ADMIN, "--network", "inner")
    one.sh(f"ip route add default via {ends(one)['inner']['Gateway']}")
    port = far("port").strip().rpartition(":")[2]
    near = containers("--network", "outer")
    eventually(lambda: "here" in fetched(near, "192.0.2.2", port), "others reach it")
    resolver = ends(far)["outer"]["Gateway"]
    for host, number in (
        (ends(far)["outer"]["IPAddress"], "80"), ("192.0.2.2", port), ("198.51.100.1", "80"),
    ):  # fmt: skip
        assert fetched(one, host, number) == "refused"
    assert "Address" not in one.sh(f"nslookup {far.id[:12]} {resolver} 2>&1 | tail -n +3 || true")


def test_who_asks_a_resolver_from_elsewhere_is_told_nothing(
    sysbox: Sysbox, network: Make, containers: Containers
) -> None:
    """Neither another machine, with a route to it, nor a user of the host gets anything forwarded."""
    network("names")
    containers("--name", "web", "--network", "names")
    (found,) = json.loads(sysbox("network", "inspect", "names", check=True).stdout)
    server = (found["IPAM"]["Config"][0]["Gateway"], 53)
    script = (
        "import socket, sys\n"
        "data = bytes.fromhex(sys.argv[2])\n"
        "near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "near.settimeout(1)\n"
        "near.sendto(data, (sys.argv[1], 53))\n"
        "try: print(near.recv(2000).hex())\n"
        "except TimeoutError: print('nothing')\n"
        "far = socket.create_connection((sys.argv[1], 53), 30)\n"
        "far.sendall(len(data).to_bytes(2, 'big') + data)\n"
        "try: print(far.recv(2000).hex() or 'nothing')\n"
        "except ConnectionError: print('nothing')\n"
    )
    ip("-n", "outside", "route", "add", "10.0.0.0/8", "via", "192.0.2.2")
    try:
        done = subprocess.run(
            ["ip", "netns", "exec", "outside", "/usr/bin/python3", "-c", script, server[0],
             dnsclient.question("web").hex()],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    finally:
        ip("-n", "outside", "route", "delete", "10.0.0.0/8")
    assert done.stdout.split() == ["nothing", "nothing"]
    assert dnsclient.ask(server, "web")[0] == "NOERROR"
    assert dnsclient.ask(server, "example.com")[0] == "NXDOMAIN"


def test_many_make_networks_at_once(sysbox: Sysbox) -> None:
    """Each chooses a subnet that no other has."""
    names = [f"many-{number}" for number in range(12)]
    running = [popen("network", "create", name) for name in names]
    try:
        assert [one.wait() for one in running] == [0] * len(names)
        shown = json.loads(sysbox("network", "inspect", *names, check=True).stdout)
        assert len({one["IPAM"]["Config"][0]["Subnet"] for one in shown}) == len(names)
        again = sysbox("network", "create", names[0])
        assert (again.returncode, "already exists" in again.stderr) == (1, True)
    finally:
        for one in running:
            one.communicate()
        sysbox("network", "rm", "-f", *names, check=True)
