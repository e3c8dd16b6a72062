"""Policies and published ports with packets, both families, with each packet filter.

In the guest: its kernel is an older one, with the rules of another netfilter.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from network_lab import (
    BACKENDS,
    BOTH,
    GATEWAY,
    GATEWAY6,
    OTHER,
    OUTSIDE,
    OUTSIDE6,
    SUBNET6,
    UPLINK,
    UPLINK6,
    Container,
    Dual,
    Outside,
    choose,
    fetch,
    fetch_all,
    in_private_network,
    run,
    serve,
    with_backends,
)

from sysbox.base.errors import Conflict
from sysbox.conf.values import Settings
from sysbox.netns import firewall, firewall_choice, firewall_mark, forwarding, ports
from sysbox.netns.topology import DEFAULT_NETWORK
from sysbox.spec import Port

WEB = Port(container_port=80, host_port=8080)
SILENCE = {"TimeoutError", "OSError"}
each_backend = with_backends(*BACKENDS)
in_guest = pytest.mark.guest("nf_tables of another kernel")

# that a policy means the same with iptables-nft is seen by the default, by ports and by flushes
two_backends = with_backends("nft", "iptables-legacy")


def ruleset() -> str:
    """All rules of all packet filters, without their counters."""
    saved = [run("nft", "-s", "list", "ruleset")]
    saved += [
        run(f"{family}tables-legacy-save")
        for family in ("ip", "ip6")
        if Path(f"/proc/net/{family}_tables_names").read_text(encoding="ascii")
    ]
    lines = "\n".join(saved).splitlines()
    return "\n".join(line.partition("[")[0] for line in lines if not line.startswith("#"))


@in_guest
@each_backend
def test_the_default_in_both_families(backend: str) -> None:
    """Containers reach each other, the host, and the outside by NAT; nobody reaches what is not published."""
    choose(backend)
    outside, one, two = Outside(), Dual(1, BOTH), Dual(2, BOTH)
    for server in (outside, two):
        server.serve(80)
    serve(8000)
    assert one.fetch(OUTSIDE, 80) == UPLINK
    assert one.fetch(OUTSIDE6, 80) == UPLINK6
    assert one.fetch(two.address, 80) == one.address
    assert one.fetch(two.address6, 80) == one.address6
    assert one.fetch(GATEWAY, 8000) == one.address
    assert one.fetch(GATEWAY6, 8000) == one.address6
    outside.sh(f"ip route add {BOTH.subnet} via {UPLINK}; ip -6 route add {SUBNET6} via {UPLINK6}")
    assert {*fetch_all((outside, two.address, 80), (outside, two.address6, 80))} <= SILENCE


@two_backends
def test_networks_do_not_reach_each_other(backend: str) -> None:
    choose(backend)
    one, two = Dual(1, BOTH), Dual(2, OTHER)
    two.serve(80)
    assert fetch(two.address, 80) == "10.91.0.1"
    assert fetch(two.address6, 80) == "fd00:91::1"
    assert {*fetch_all((one, two.address, 80), (one, two.address6, 80))} <= SILENCE


@two_backends
def test_containers_that_may_not_reach_each_other(backend: str) -> None:
    choose(backend)
    policy = BOTH.replace(isolate=True)
    outside, one, two = Outside(), Dual(1, policy), Dual(2, policy)
    outside.serve(80)
    two.serve(80)
    assert {*fetch_all((one, two.address, 80), (one, two.address6, 80))} <= SILENCE
    assert one.fetch(OUTSIDE, 80) == UPLINK
    assert one.fetch(OUTSIDE6, 80) == UPLINK6


@two_backends
def test_a_host_that_is_closed_but_for_the_resolver(backend: str) -> None:
    choose(backend)
    policy = BOTH.replace(host_access=False, gateway=GATEWAY, gateway6=GATEWAY6)
    outside, one = Outside(), Dual(1, policy)
    outside.serve(80)
    serve(8000)
    for protocol in ("tcp", "udp"):
        serve(53, protocol)
    closed = [(one, host, 8000) for host in (GATEWAY, UPLINK, GATEWAY6, UPLINK6)]
    # a resolver is reached at the gateway's address alone
    resolvers = [(one, UPLINK, 53, protocol) for protocol in ("tcp", "udp")]
    assert {*fetch_all(*closed, *resolvers)} == {"TimeoutError"}
    for protocol in ("tcp", "udp"):
        assert one.fetch(GATEWAY, 53, protocol) == one.address
        assert one.fetch(GATEWAY6, 53, protocol) == one.address6
    assert one.fetch(OUTSIDE, 80) == UPLINK
    assert one.fetch(OUTSIDE6, 80) == UPLINK6
    one.serve(81)
    assert fetch(one.address, 81) == GATEWAY, "the host reaches its containers all the same"
    assert fetch(one.address6, 81) == GATEWAY6


@two_backends
def test_an_internal_network_has_no_way_out_and_none_in(backend: str) -> None:
    choose(backend)
    policy = BOTH.replace(internal=True)
    outside, one, two, other = Outside(), Dual(1, policy, (WEB,)), Dual(2, policy), Dual(3, OTHER)
    outside.serve(80)
    one.serve(80)
    other.serve(80)
    assert two.fetch(one.address, 80) == two.address
    assert two.fetch(one.address6, 80) == two.address6
    out = [(one, host, 80) for host in (OUTSIDE, OUTSIDE6, other.address, other.address6)]
    in_ = [(outside, UPLINK, 8080), (outside, UPLINK6, 8080), (other, UPLINK, 8080)]
    assert {*fetch_all(*out, *in_)} <= SILENCE
    assert fetch(one.address, 80) == GATEWAY


@two_backends
def test_only_the_nic_leads_out(backend: str) -> None:
    choose(backend)
    outside, one = Outside(), Dual(1, BOTH.replace(nic="uplink"))
    other = Dual(2, OTHER, (WEB,))
    outside.serve(80)
    other.serve(80)
    assert one.fetch(OUTSIDE, 80) == UPLINK
    assert one.fetch(OUTSIDE6, 80) == UPLINK6
    assert one.fetch(UPLINK, 8080) in SILENCE, "not even to what another network has published"
    firewall.ensure_policies((BOTH.replace(nic="wlan0"),))
    assert {*fetch_all((one, OUTSIDE, 80), (one, OUTSIDE6, 80))} <= SILENCE


@two_backends
def test_without_masquerade_the_outside_sees_the_container(backend: str) -> None:
    choose(backend)
    outside, one = Outside(), Dual(1, BOTH.replace(masquerade=False, masquerade6=False))
    outside.serve(80)
    outside.sh(f"ip route add {BOTH.subnet} via {UPLINK}; ip -6 route add {SUBNET6} via {UPLINK6}")
    assert one.fetch(OUTSIDE, 80) == one.address
    assert one.fetch(OUTSIDE6, 80) == one.address6


@in_guest
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@each_backend
def test_a_published_port_in_both_families(backend: str, protocol: str) -> None:
    """From the host, its loopback, another container, outside, and back into the container itself."""
    choose(backend)
    outside, other = Outside(), Dual(2, OTHER)
    one = Dual(1, BOTH, (WEB.replace(protocol=protocol),))
    two = Dual(3, BOTH)
    one.serve(80, protocol)
    assert fetch("127.0.0.1", 8080, protocol) == GATEWAY
    for host, gateway, away in ((UPLINK, GATEWAY, OUTSIDE), (UPLINK6, GATEWAY6, OUTSIDE6)):
        assert outside.fetch(host, 8080, protocol) == away
        assert fetch(host, 8080, protocol) in (host, gateway)
        assert two.fetch(host, 8080, protocol) == gateway
        assert one.fetch(host, 8080, protocol) == gateway, "back into the same container"
        assert other.fetch(host, 8080, protocol) == gateway, "from another network"
    firewall.unpublish(one.id)
    for host in ("127.0.0.1", UPLINK, UPLINK6):
        assert fetch(host, 8080, protocol) == "ConnectionRefusedError"
    assert one.id not in ruleset()


@in_guest
@each_backend
def test_a_port_of_the_loopback_address_is_reached_from_nowhere_else(backend: str) -> None:
    """A neighbour on the wire sends to 127.0.0.1, and to the container, by our MAC."""
    choose(backend)
    outside, two = Outside(), Dual(2, BOTH)
    one = Dual(1, BOTH, (WEB.replace(host_ip="127.0.0.1"),))
    one.serve(80)
    assert fetch("127.0.0.1", 8080) == GATEWAY
    assert fetch(UPLINK, 8080) == "ConnectionRefusedError"
    assert fetch(UPLINK6, 8080) == "ConnectionRefusedError"
    for node, gateway, link in ((outside, UPLINK, "wan"), (two, GATEWAY, "eth0")):
        node.sh(
            "ip route del local 127.0.0.0/8 dev lo table local; ip address del 127.0.0.1/8 dev lo;"
            f"ip route add 127.0.0.0/8 via {gateway};"
            f"echo 1 > /proc/sys/net/ipv4/conf/{link}/route_localnet"
        )
    outside.sh(f"ip route add {BOTH.subnet} via {UPLINK}; ip -6 route add {SUBNET6} via {UPLINK6}")
    loopback = [(node, "127.0.0.1", 8080) for node in (outside, two)]
    directly = [(outside, address, 80) for address in (one.address, one.address6)]
    assert {*fetch_all(*loopback, *directly)} <= SILENCE


@in_guest
@each_backend
def test_rules_return_after_a_flush(backend: str) -> None:
    """With the next start, and with a reload; meanwhile it is known that they are missing."""
    choose(backend)
    outside, one = Outside(), Dual(1, BOTH, (WEB,))
    one.serve(80)
    before = ruleset()
    flushes = {
        "nft": ["nft flush ruleset"],
        "iptables-nft": ["nft flush ruleset", "iptables-nft -F", "ip6tables-nft -F FORWARD"],
        "iptables-legacy": [
            "iptables-legacy -F",
            "iptables-legacy -t nat -F; iptables-legacy -t nat -X",
        ],
    }[backend]
    for command in flushes:
        for again in (
            lambda: firewall.ensure_policies((BOTH,)),
            lambda: firewall.reload(Settings()),
        ):
            run("sh", "-ec", command)
            mark = firewall_mark.read()
            assert mark
            assert not firewall_mark.in_place(mark)
            again()
            assert firewall_mark.in_place(mark)
            assert sorted(ruleset().split()) == sorted(before.split())
            assert outside.fetch(UPLINK, 8080) == OUTSIDE


@in_guest
@each_backend
def test_nothing_of_ours_is_left_and_nothing_of_others_touched(backend: str) -> None:
    choose(backend)
    program = "iptables-legacy" if backend == "iptables-legacy" else "iptables-nft"
    run(program, "-A", "FORWARD", "-s", "198.51.100.0/24", "-j", "ACCEPT")
    run(program, "-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport", "1", "-j", "REDIRECT")
    run("nft", "add table inet mine")
    before = [line for line in ruleset().splitlines() if "198.51" in line or "REDIRECT" in line]
    forwarded = Path("/proc/sys/net/ipv4/ip_forward").read_text(encoding="ascii")
    one = Dual(1, BOTH, (WEB,))
    Dual(2, OTHER)
    firewall.unpublish(one.id)
    firewall.release(OTHER.bridge)
    assert "sysbox1" not in ruleset()
    assert "sysbox0" in ruleset()
    firewall.release(BOTH.bridge)
    after = ruleset()
    assert [line for line in after.splitlines() if "198.51" in line or "REDIRECT" in line] == before
    assert "SYSBOX" not in after
    assert "table inet sysbox" not in after
    assert "table inet mine" in after
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text(encoding="ascii") == forwarded
    assert firewall_mark.read() is None


@in_private_network
def test_the_packet_filter_that_has_rules_gets_ours() -> None:
    assert firewall_choice.choose("auto") == ("nft", "no packet filter had rules")
    run(
        "nft",
        "add table inet theirs; add chain inet theirs c { type filter hook input priority 0; }",
    )
    assert firewall_choice.with_rules() == {}, "a chain without a rule decides nothing"
    run("nft", "add rule inet theirs c tcp dport 1 drop")
    assert firewall_choice.choose("auto") == ("nft", "it has the table theirs")
    run("iptables-nft", "-P", "FORWARD", "DROP")
    assert firewall_choice.choose("auto")[0] == "iptables-nft"
    run("iptables-legacy", "-A", "INPUT", "-s", "198.51.100.1", "-j", "DROP")
    assert firewall_choice.choose("auto") == (
        "iptables-legacy", "it has rules in the legacy table filter",
    )  # fmt: skip
    assert firewall_choice.choose("nft") == ("nft", "Firewall= in sysbox.conf")


@in_private_network
def test_a_host_stays_with_the_tables_that_have_its_rules() -> None:
    choose("iptables-legacy")
    one = Container(1, DEFAULT_NETWORK, (WEB,))
    two = Container(2, DEFAULT_NETWORK)
    assert firewall.reload(Settings()) == "iptables-legacy"
    assert "SYSBOX-DNAT" in run("iptables-legacy-save")
    one.serve(80)
    assert firewall.reload(Settings(firewall="nft")) == "nft"
    assert "SYSBOX" not in run("iptables-legacy-save")
    assert fetch("127.0.0.1", 8080) == GATEWAY
    assert two.fetch(one.address, 80) == two.address


@in_private_network
def test_forwarding_costs_the_host_no_default_route() -> None:
    """accept_ra=2 on links that had 1, and all as before at the end."""
    run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1")
    for link, number in (("up0", 1), ("up1", 0)):
        Path(f"/proc/sys/net/ipv6/conf/{link}/accept_ra").write_text(f"{number}", encoding="ascii")

    def values() -> list[str]:
        names = ["all/forwarding", "up0/accept_ra", "up1/accept_ra", "default/accept_ra"]
        paths = [Path(f"/proc/sys/net/ipv6/conf/{name}") for name in names]
        return [path.read_text(encoding="ascii").strip() for path in paths]

    before = values()
    forwarding.enable(ipv6=True)
    forwarding.enable(ipv6=True)
    assert values() == ["1", "2", "0", before[3]]
    assert "net/ipv6/conf/up0/accept_ra" in forwarding.changed()
    forwarding.restore()
    assert values() == before
    assert forwarding.changed() == {}


@two_backends
def test_ports_of_a_running_container_are_added_and_withdrawn(backend: str) -> None:
    choose(backend)
    outside, one = Outside(), Dual(1, BOTH, (WEB,))
    one.serve(80)
    addresses = (one.address, one.address6)
    more = (WEB.replace(host_port=8081), WEB.replace(host_port=0, host_ip=UPLINK6))
    first, second = firewall.add(one.id, more, addresses)
    assert outside.fetch(UPLINK, 8081) == OUTSIDE
    assert outside.fetch(UPLINK6, second.host_port) == OUTSIDE6
    with pytest.raises(Conflict, match=f"already used by container {one.id[:12]}"):
        firewall.add(one.id, (WEB.replace(host_ip="127.0.0.1"),), addresses)
    firewall.withdraw(one.id, (first, WEB))
    assert outside.fetch(UPLINK, 8081) == "ConnectionRefusedError"
    assert outside.fetch(UPLINK6, 8080) == "ConnectionRefusedError"
    assert [entry.port for entry in ports.load()] == [second]


@in_private_network
def test_a_change_of_the_host_firewall_beside_ours_is_no_reason_to_make_rules_again() -> None:
    choose("nft")
    Dual(1, BOTH)
    run(
        "nft",
        "add table inet theirs; add chain inet theirs c { type filter hook input priority 0; }",
    )
    mark = firewall_mark.read()
    assert mark
    assert firewall_mark.in_place(mark)
    done = subprocess.run(["iptables-legacy", "-S"], capture_output=True, check=False)
    assert done.returncode == 0
    assert os.path.exists(firewall.MARK)


@in_private_network
def test_rules_are_made_once_for_many_that_start_at_once() -> None:
    """Those that have waited for the lock find what the first has made."""
    program = Path("/usr/local/sbin/nft")
    run("mount", "-t", "tmpfs", "tmpfs", str(program.parent))
    program.write_text('#!/bin/sh\necho run >>/run/nft-runs\nexec /usr/sbin/nft "$@"\n')
    program.chmod(0o755)
    choose("nft")
    starting, begin = os.pipe()
    children = []
    for _ in range(64):
        pid = os.fork()
        if pid == 0:
            os.close(begin)
            os.read(starting, 1)
            try:
                firewall.ensure_policies((BOTH,))
            except BaseException:
                os._exit(1)
            os._exit(0)
        children.append(pid)
    os.close(starting)
    os.close(begin)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 64
    assert Path("/run/nft-runs").read_text(encoding="ascii") == "run\n"
    firewall.ensure_policies((OTHER,))
    assert Path("/run/nft-runs").read_text(encoding="ascii") == "run\n" * 2
