"""Networks and published ports on a host that firewalld governs, with packets.

In the guest: firewalld as Debian installs it, with another kernel's nf_tables.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from containers import Container, Containers, eventually
from host_firewalls import (
    BEYOND,
    HOST,
    HTTPD,
    REFUSED,
    Firewalld,
    configure,
    fetch,
    first_container,
    from_outside,
    run,
    served,
    server_beyond,
)
from lane import Sysbox

from sysbox.netns import firewall

MARK = "rule port port=8080 protocol=tcp mark set=0x1000/0x1000"


@pytest.fixture(scope="module")
def wall(sysbox: Sysbox, image: str) -> Iterator[Firewalld]:
    """firewalld, which knows the network `bridge` already."""
    firewall.remove()
    one = Firewalld()
    try:
        first_container(sysbox, image)
        yield one
        configure(sysbox, "")
        firewall.remove()
        assert "sysbox" not in one.cmd("--get-zones") + one.cmd("--permanent", "--get-policies")
    finally:
        one.stop()


@pytest.fixture
def server(wall: Firewalld, containers: Containers) -> Container:
    """A web server, published on the port 8080 of the host."""
    made = containers("-p", "8080:80", command=HTTPD)
    served(8080)
    return made


@pytest.fixture
def asks(wall: Firewalld, sysbox: Sysbox) -> Iterator[None]:
    """Ports=ask."""
    configure(sysbox, "Ports=ask")
    yield
    configure(sysbox, "")
    wall.cmd("--reload")


def test_an_open_port_and_the_ways_out(
    wall: Firewalld, containers: Containers, server: Container
) -> None:
    """As without firewalld, and still after its reload and its restart."""
    assert wall.cmd("--get-zone-of-interface=sysbox0") == "sysbox"
    with server_beyond():
        for change in (
            lambda: "",
            lambda: wall.cmd("--reload"),
            lambda: wall.restart(),
        ):
            change()
            assert from_outside(8080) == "hello"
            assert fetch(server, BEYOND, 8000) == "hello"
            assert fetch(server, server.inspect("NetworkSettings.Gateway"), 8080) == "hello"
    assert fetch(containers(), HOST, 8080) == "hello"
    assert from_outside(80, server.inspect("NetworkSettings.IPAddress")) == REFUSED


@pytest.mark.guest("firewalld is installed there, with polkit")
@pytest.mark.usefixtures("asks")
def test_a_port_that_only_zones_which_allow_it_reach(
    wall: Firewalld, containers: Containers, server: Container, sysbox: Sysbox
) -> None:
    assert from_outside(8080) == REFUSED
    assert fetch(containers(), HOST, 8080) == "hello", "containers are not asked about"
    told = sysbox("network", "explain", server.id, "8080", check=True).stdout
    assert "from another machine to 8080/tcp, IPv4: passes if firewalld allows it\n" in told
    wall.cmd("--zone=public", f"--add-rich-rule={MARK}")
    assert from_outside(8080) == "hello"
    wall.cmd("--zone=public", f"--remove-rich-rule={MARK}")
    assert from_outside(8080) == REFUSED
    wall.cmd("--zone=internal", f"--add-rich-rule={MARK}")
    assert from_outside(8080) == REFUSED, "the packets come in the zone public"
    wall.cmd("--zone=internal", "--add-source=192.0.2.1")
    assert from_outside(8080) == "hello"


@pytest.mark.usefixtures("asks")
def test_a_zone_that_reaches_all_published_ports(wall: Firewalld, server: Container) -> None:
    del server
    policy = ("--permanent", "--policy=sysbox-ports")
    # firewalld ignores a policy about a zone without interfaces and sources, be it the default zone
    wall.cmd("--permanent", "--zone=public", "--add-interface=uplink0")
    assert from_outside(8080) == REFUSED
    wall.cmd(*policy, "--add-ingress-zone=public")
    wall.cmd("--reload")
    try:
        assert from_outside(8080) == "hello"
        wall.restart()
        assert from_outside(8080) == "hello"
    finally:
        wall.cmd(*policy, "--remove-ingress-zone=public")
        wall.cmd("--permanent", "--zone=public", "--remove-interface=uplink0")
        wall.cmd("--reload")
    assert from_outside(8080) == REFUSED


@pytest.mark.usefixtures("asks")
def test_while_firewalld_is_stopped_nothing_is_published(
    wall: Firewalld, containers: Containers, server: Container, sysbox: Sysbox, image: str
) -> None:
    run("systemctl", "stop", "firewalld")
    try:
        assert from_outside(8080) == REFUSED
        done = sysbox("run", "--rm", "-p", "8081:80", image, "true")
        assert done.returncode == 125
        assert "Ports=ask in sysbox.conf, and firewalld is not running\n" in done.stderr
        done = sysbox("publish", server.id, "8081:80")
        assert done.returncode == 1
        assert "firewalld is not running" in done.stderr
        assert "firewalld is not running" in sysbox("doctor").stdout
        assert containers().inspect("State.Running"), "what publishes nothing starts"
    finally:
        wall.start()
    sysbox("publish", server.id, "8081:80", check=True)


def test_the_runtime_configuration_of_others_stays(
    wall: Firewalld, sysbox: Sysbox, image: str
) -> None:
    """The zone becomes effective by a reload, which makes firewalld forget what is not permanent."""
    firewall.remove()
    assert "sysbox" not in wall.cmd("--get-zones")
    wall.cmd("--zone=public", "--add-port=1234/tcp")
    wall.cmd("--zone=work", f"--add-rich-rule={MARK}")
    sysbox("run", "--rm", image, "true", check=True)
    assert "sysbox" in wall.cmd("--get-zones")
    assert "1234/tcp" in wall.cmd("--zone=public", "--list-ports")
    assert "0x1000" in wall.cmd("--zone=work", "--list-rich-rules")
    wall.cmd("--reload")
    assert "1234/tcp" not in wall.cmd("--zone=public", "--list-ports")


def test_a_network_is_in_the_zone_while_it_is_there(
    wall: Firewalld, sysbox: Sysbox, image: str
) -> None:
    sysbox("network", "create", "--interface-name", "br-zone", "zoned", check=True)
    try:
        sysbox("run", "--rm", "--network", "zoned", image, "true", check=True)
        for flags in ((), ("--permanent",)):
            assert "br-zone" in wall.cmd(*flags, "--zone=sysbox", "--list-interfaces")
    finally:
        sysbox("network", "rm", "zoned", check=True)
    for flags in ((), ("--permanent",)):
        assert wall.cmd(*flags, "--zone=sysbox", "--list-interfaces") == "sysbox0"


def test_what_is_missing_is_said_until_it_is_there_again(
    wall: Firewalld, server: Container, sysbox: Sysbox
) -> None:
    def failure() -> str:
        shown = sysbox("network", "inspect", "bridge", check=True).stdout
        return str(json.loads(shown)[0]["FirewallFailure"])

    del server
    assert failure() == ""
    run("nft", "delete", "table", "inet", "sysbox")
    said = "sysbox's rules are missing from nft"
    assert said in failure()
    assert said in sysbox("doctor").stdout
    sysbox("network", "reload", check=True)
    assert failure() == ""
    assert from_outside(8080) == "hello"
    wall.cmd("--zone=sysbox", "--remove-interface=sysbox0")
    assert "firewalld has sysbox0 in no zone" in failure()
    sysbox("network", "reload", check=True)
    eventually(lambda: from_outside(8080) == "hello", "it is back in its zone")
