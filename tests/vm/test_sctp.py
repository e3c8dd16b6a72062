"""SCTP: published ports with packets, with each packet filter. Few kernels have it; the guest's has."""

from __future__ import annotations

import pytest
from lane import Sysbox
from network_lab import (
    BACKENDS,
    BOTH,
    GATEWAY,
    GATEWAY6,
    OTHER,
    OUTSIDE,
    OUTSIDE6,
    UPLINK,
    UPLINK6,
    Dual,
    Outside,
    choose,
    fetch,
    in_private_network,
    run,
    serve,
)

from sysbox.base.errors import Conflict
from sysbox.netns import firewall
from sysbox.spec import Port

PORT = Port(container_port=80, host_port=8080, protocol="sctp")


@pytest.mark.parametrize("backend", BACKENDS)
@in_private_network
def test_a_published_port(backend: str) -> None:
    """From the host, its loopback, another container, another network, outside, and back into itself."""
    choose(backend)
    outside, other = Outside(), Dual(2, OTHER)
    one, two = Dual(1, BOTH, (PORT,)), Dual(3, BOTH)
    one.serve(80, "sctp")
    assert fetch("127.0.0.1", 8080, "sctp") == GATEWAY
    for host, gateway, away in ((UPLINK, GATEWAY, OUTSIDE), (UPLINK6, GATEWAY6, OUTSIDE6)):
        assert outside.fetch(host, 8080, "sctp") == away
        assert fetch(host, 8080, "sctp") in (host, gateway)
        for node in (two, one, other):
            assert node.fetch(host, 8080, "sctp") == gateway
    assert outside.fetch(UPLINK, 8080, "tcp") == "ConnectionRefusedError"
    firewall.unpublish(one.id)
    for host in ("127.0.0.1", UPLINK, UPLINK6):
        assert fetch(host, 8080, "sctp") == "ConnectionRefusedError"


@in_private_network
def test_at_one_address_and_out() -> None:
    """On the loopback address it is reached from nowhere else; what leaves has the host's address."""
    choose("nft")
    outside, one = Outside(), Dual(1, BOTH, (PORT.replace(host_ip="127.0.0.1"),))
    one.serve(80, "sctp")
    outside.serve(81, "sctp")
    assert fetch("127.0.0.1", 8080, "sctp") == GATEWAY
    assert outside.fetch(UPLINK, 8080, "sctp") == "ConnectionRefusedError"
    assert one.fetch(OUTSIDE, 81, "sctp") == UPLINK
    assert one.fetch(OUTSIDE6, 81, "sctp") == UPLINK6
    outside.sh(f"ip route add {BOTH.subnet} via {UPLINK}")
    assert outside.fetch(one.address, 80, "sctp") in ("TimeoutError", "OSError")


@in_private_network
def test_a_port_that_is_taken() -> None:
    serve(8080, "sctp")
    one = Dual(1, BOTH)
    with pytest.raises(Conflict, match=r"8080->80/sctp: .* \(pid \d+\) uses it"):
        firewall.add(one.id, (PORT,), (one.address, one.address6))
    # a port of another protocol is another one
    firewall.add(one.id, (PORT.replace(protocol="tcp"),), (one.address, one.address6))
    (found,) = firewall.add(one.id, (PORT.replace(host_last=8085),), (one.address, one.address6))
    assert found.host_port == 8081
    assert "sctp . 8081" in run("nft", "list", "table", "inet", "sysbox")


def test_by_the_command(sysbox: Sysbox, image: str) -> None:
    name = "sctp"
    flags = ("--name", name, "-p", "8000-8010:80/sctp", "-p", "[::]:8000:80/sctp")
    done = sysbox("run", "-d", *flags, image, "sleep", "1000")
    assert "the container has no IPv6 address" in done.stderr
    sysbox("rm", "-f", name)
    sysbox("run", "-d", *flags[:4], image, "sleep", "1000", check=True)
    try:
        assert sysbox("port", name, check=True).stdout == "80/sctp -> 0.0.0.0:8000\n"
    finally:
        sysbox("rm", "-f", name, check=True)
