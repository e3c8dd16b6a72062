"""Networks and published ports on a host that ufw governs, with packets.

By hand in the guest too, where ufw is as Debian installs it: tools/test-vm.sh tests/host/test_ufw.py. The
lane of the guest does without: there ufw's own commands take minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from containers import Container, Containers, eventually
from host_firewalls import (
    BEYOND,
    HOST,
    HTTPD,
    NET,
    REFUSED,
    Ufw,
    configure,
    fetch,
    first_container,
    from_outside,
    served,
    server_beyond,
)
from lane import Sysbox

from sysbox.netns import firewall

ROUTE = ("allow", "proto", "tcp", "from", NET, "to", "any", "port", "80")


@pytest.fixture(scope="module")
def wall(sysbox: Sysbox, image: str) -> Iterator[Ufw]:
    """ufw, which denies what comes in, and what is routed."""
    firewall.remove()
    one = Ufw()
    try:
        first_container(sysbox, image)
        yield one
        configure(sysbox, "")
        firewall.remove()
    finally:
        one.stop()


@pytest.fixture
def server(wall: Ufw, containers: Containers) -> Container:
    """A web server, published on the port 8080 of the host."""
    made = containers("-p", "8080:80", command=HTTPD)
    served(8080)
    return made


@pytest.fixture
def asks(wall: Ufw, sysbox: Sysbox) -> Iterator[None]:
    """Ports=ask."""
    configure(sysbox, "Ports=ask")
    yield
    configure(sysbox, "")


def test_an_open_port_and_the_ways_out(server: Container, wall: Ufw) -> None:
    """As without ufw, and still after its reload."""
    with server_beyond():
        for change in (lambda: "", lambda: wall.cmd("reload")):
            change()
            assert from_outside(8080) == "hello"
            eventually(lambda: fetch(server, BEYOND, 8000) == "hello", "the way out is open")
            assert from_outside(80, server.inspect("NetworkSettings.IPAddress")) == REFUSED


def test_the_resolver_of_a_network_is_reached(
    wall: Ufw, network: Callable[..., str], containers: Containers
) -> None:
    """ufw denies what comes to the host, and so what a container asks the gateway."""
    del wall
    name = network("asked")
    containers("--network", name, "--name", "db")
    one = containers("--network", name)
    assert "Name:\tdb" in one.exec("nslookup", "db")


@pytest.mark.usefixtures("asks")
def test_a_port_that_only_sources_which_ufw_routes_reach(
    wall: Ufw, containers: Containers, server: Container, sysbox: Sysbox
) -> None:
    assert from_outside(8080) == REFUSED
    other = containers()
    eventually(lambda: fetch(other, HOST, 8080) == "hello", "containers are not asked about")
    told = sysbox("network", "explain", server.id, "8080", check=True).stdout
    assert "from another machine to 8080/tcp, IPv4: passes if ufw allows it\n" in told
    wall.cmd("route", *ROUTE)
    assert from_outside(8080) == "hello"
    wall.cmd("route", "delete", *ROUTE)
    assert from_outside(8080) == REFUSED
    wall.cmd("route", *[word.replace(NET, "203.0.113.0/24") for word in ROUTE])
    assert from_outside(8080) == REFUSED
    wall.cmd("route", "delete", *[word.replace(NET, "203.0.113.0/24") for word in ROUTE])


def test_ufw_that_is_enabled_later(wall: Ufw, sysbox: Sysbox) -> None:
    def failure() -> str:
        shown = ("network", "inspect", "-f", "{{.FirewallFailure}}", "bridge")
        return sysbox(*shown, check=True).stdout.strip()

    wall.cmd("disable")
    sysbox("network", "reload", check=True)
    assert failure() == ""
    wall.cmd("--force", "enable")
    assert failure() == "ufw is running, and sysbox's rules do not reckon with it yet"
    assert failure() in sysbox("doctor").stdout
    sysbox("network", "reload", check=True)
    assert failure() == ""


@pytest.mark.usefixtures("asks")
def test_while_ufw_is_disabled_nothing_is_published(
    wall: Ufw, server: Container, sysbox: Sysbox
) -> None:
    wall.cmd("disable")
    try:
        done = sysbox("publish", server.id, "8081:80")
        assert done.returncode == 1
        assert "Ports=ask in sysbox.conf, and ufw is not running\n" in done.stderr
    finally:
        wall.cmd("--force", "enable")
    sysbox("publish", server.id, "8081:80", check=True)
