"""Which address comes next, and what the lease and port files hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from sysbox.base import paths
from sysbox.base.errors import Conflict, FormatError
from sysbox.base.flock import Lock
from sysbox.netns import leases, ports
from sysbox.netns import shared as hosts
from sysbox.netns.rules import Published
from sysbox.netns.topology import DEFAULT_NETWORK
from sysbox.spec import Port

SMALL = ("10.0.0.0/29", "10.0.0.1")


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lease and port files of this test's own."""
    monkeypatch.setattr(paths, "NETWORK", str(tmp_path))
    monkeypatch.setattr(leases, "FILE", f"{tmp_path}/leases")
    monkeypatch.setattr(leases, "_LOCK", f"{tmp_path}/leases.lock")
    monkeypatch.setattr(ports, "FILE", f"{tmp_path}/ports")
    return tmp_path


def acquire(
    container_id: str,
    subnet: str = DEFAULT_NETWORK.subnet,
    gateway: str = DEFAULT_NETWORK.gateway,
) -> str:
    """The container's address on the network `bridge`."""
    with leases.NetworkLock():
        return leases.lease("", container_id, subnet, gateway)


def test_addresses_go_round_before_they_come_again() -> None:
    given = [acquire(f"c{number}", *SMALL) for number in range(3)]
    assert given == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
    leases.release("c0")
    leases.release("c0")
    assert acquire("c3", *SMALL) == "10.0.0.5"
    assert acquire("c4", *SMALL) == "10.0.0.6"
    assert acquire("c5", *SMALL) == "10.0.0.2"
    with pytest.raises(Conflict, match="no address is free"):
        acquire("c6", *SMALL)


def test_a_container_keeps_its_address() -> None:
    assert acquire("a", *SMALL) == acquire("a", *SMALL) == leases.all()["a"]
    assert "b" not in leases.all()


def test_addresses_of_the_dead_come_back() -> None:
    for name in "abc":
        acquire(name, *SMALL)
    assert leases.reclaim({"b", "x"}.__contains__) == ["a", "c"]
    assert leases.all() == {"b": "10.0.0.3"}


def test_a_thousand_leases(files: Path) -> None:
    lines = ["10.90.3.233"] + [f"10.90.{n >> 8}.{n & 255} {n:064x}" for n in range(2, 1002)]
    (files / "leases").write_text("\n".join(lines) + "\n")
    assert acquire("new") == "10.90.3.234"
    assert len(leases.all()) == 1001


def test_a_pointer_outside_the_subnet_starts_over() -> None:
    assert leases.choose("10.0.0.0/24", "10.0.0.1", "192.0.2.9", set()) == "10.0.0.2"
    assert leases.choose("10.0.0.0/24", "10.0.0.1", "10.0.0.254", set()) == "10.0.0.2"


@pytest.mark.parametrize(
    "text", ["10.0.0.2\nbroken\n", "x\n10.0.0.2 a\n10.0.0.3 a\n", "x\n1 2 3\n"]
)
def test_a_damaged_lease_file_is_named(files: Path, text: str) -> None:
    (files / "leases").write_text(text)
    with pytest.raises(FormatError, match="leases"):
        leases.all()


def test_ports_survive_being_written_down() -> None:
    entries = (
        Published(id="a" * 64, address="10.0.0.2", port=Port(container_port=80, host_port=8080)),
        Published(
            id="b" * 64,
            address="10.0.0.3",
            port=Port(container_port=53, host_port=53, host_ip="127.0.0.1", protocol="udp"),
        ),
    )
    ports.store(ports.render(entries))
    assert ports.load() == entries


@pytest.mark.parametrize("line", ["", "a b c", "a 10.0.0.2 tcp * x 80", "a b c d e f g"])
def test_a_damaged_port_file_is_named(files: Path, line: str) -> None:
    (files / "ports").write_text(line + "\n")
    with pytest.raises(FormatError, match="ports"):
        ports.load()


def test_a_port_of_another_container_is_refused() -> None:
    held = Published(id="a" * 64, address="10.0.0.2", port=Port(container_port=80, host_port=8080))
    wanted = Port(container_port=1, host_port=8080, host_ip="127.0.0.1")
    with pytest.raises(Conflict, match="already used by container aaaaaaaaaaaa"):
        ports.resolve((wanted,), ports.render((held,)), ("10.0.0.3",))


def test_a_lock_that_is_held_is_named(files: Path) -> None:
    path = f"{files}/some.lock"
    with (
        Lock(path),
        pytest.raises(Conflict, match=r"some\.lock has been locked"),
        Lock(path, timeout=0.01),
    ):
        pass
    with Lock(path):
        pass


def test_hosts_in_one_network_give_each_address_once(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two embedded hosts on the machine's network, each with a lease file of its own, and the machine."""
    shared = files / "addresses"
    monkeypatch.setattr(leases, "SHARED", str(shared))
    acquire("machine", *SMALL)
    for name in ("one", "two"):
        leases.share(name)  # as it boots
    given = {"machine": "10.0.0.2"}
    for number, host in enumerate(("one", "two", "one")):
        named = files / f"{host}.name"
        named.write_text(f"{host}\n")
        monkeypatch.setattr(hosts, "_NAME", str(named))
        monkeypatch.setattr(leases, "FILE", str(files / f"{host}.leases"))
        given[f"c{number}"] = acquire(f"c{number}", *SMALL)
    assert sorted(given.values()) == ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"]
    # one of them is stopped: what it had is free again, and nothing else
    assert not leases.forget_host("two")
    assert {acquire(f"d{number}", *SMALL) for number in range(2)} == {
        "10.0.0.6",
        given["c1"],
    }
    with pytest.raises(Conflict):
        acquire("e", *SMALL)
    monkeypatch.setattr(hosts, "_NAME", str(files / "none"))
    assert leases.forget_host("one")
    assert not leases.forget_host("one")
    assert not shared.exists()


NET = "ab" * 32
LAN = ("10.1.2.0/24", "10.1.2.1")
SIX = ("fd00::/64", "fd00::1")


def test_each_network_and_family_has_leases_of_its_own(files: Path) -> None:
    assert acquire("a", *SMALL) == "10.0.0.2"
    with leases.NetworkLock(NET):
        assert leases.lease(NET, "a", *LAN) == "10.1.2.2"
        assert leases.lease(NET, "a", *SIX) == "fd00::2"
        assert leases.lease(NET, "b", *SIX) == "fd00::3"
        assert leases.lease(NET, "b", *LAN, ip_range="10.1.2.128/25") == "10.1.2.128"
    assert leases.in_use() == [NET]
    assert leases.all() == {"a": "10.0.0.2"}
    assert leases.all(NET) == {"a": "10.1.2.2", "b": "10.1.2.128"}
    assert leases.all(NET, 6) == {"a": "fd00::2", "b": "fd00::3"}
    assert leases.release("a", NET)
    assert not leases.release("a", NET)
    assert (leases.all(NET), leases.all()) == ({"b": "10.1.2.128"}, {"a": "10.0.0.2"})
    with leases.NetworkLock(NET):
        assert leases.drop(NET, lambda _: True) == ["b"]
        leases.forget(NET)
    assert leases.in_use() == []
    assert not (files / NET).exists()


def test_an_address_that_was_asked_for() -> None:
    with leases.NetworkLock(NET):
        assert leases.lease(NET, "a", *LAN, wanted="10.1.2.9") == "10.1.2.9"
        assert leases.lease(NET, "a", *LAN, wanted="10.1.2.9") == "10.1.2.9"
        assert leases.lease(NET, "a", *SIX, wanted="FD00:0::09") == "fd00::9"
        with pytest.raises(Conflict, match=r"address 10\.1\.2\.9: is that of container a"):
            leases.lease(NET, "b", *LAN, wanted="10.1.2.9")
        with pytest.raises(Conflict, match="is that of container a"):
            leases.lease(NET, "b", *SIX, wanted="fd00::0009")
        # it does not move the place from which addresses are chosen
        assert leases.lease(NET, "b", *LAN) == "10.1.2.2"
        assert leases.lease(NET, "b", *LAN, wanted="10.1.2.77") == "10.1.2.77"
        assert leases.all(NET) == {"a": "10.1.2.9", "b": "10.1.2.77"}


def test_addresses_of_the_host() -> None:
    """Below a link of the host, its own are on the same wire."""
    own = {"10.1.2.2", "fd00::2"}
    with leases.NetworkLock(NET):
        assert leases.lease(NET, "a", *LAN, host=own) == "10.1.2.3"
        assert leases.lease(NET, "a", *SIX, host=own) == "fd00::3"
        for wanted, subnet in (("10.1.2.2", LAN), ("FD00:0::02", SIX)):
            with pytest.raises(Conflict, match=f"address {wanted}: is this host's own"):
                leases.lease(NET, "b", *subnet, wanted=wanted, host=own)


def test_a_range_that_is_full() -> None:
    with leases.NetworkLock(NET):
        given = {leases.lease(NET, f"c{n}", *LAN, ip_range="10.1.2.0/30") for n in range(2)}
        assert given == {"10.1.2.2", "10.1.2.3"}
        with pytest.raises(Conflict, match=r"no address is free in 10\.1\.2\.0/30"):
            leases.lease(NET, "c3", *LAN, ip_range="10.1.2.0/30")


def test_the_lock_of_a_network_survives_its_removal() -> None:
    """Another process waits for it meanwhile, and makes it again."""
    first = leases.NetworkLock(NET)
    leases.forget(NET)
    with leases.NetworkLock(NET):
        first.release()
        assert leases.lease(NET, "a", *LAN) == "10.1.2.2"
    assert leases.all(NET) == {"a": "10.1.2.2"}


def test_hosts_in_one_network_know_each_others_subnets(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "SHARED", str(files / "addresses"))
    leases.announce(["10.100.0.0/22"])  # nobody to tell
    assert leases.announced() == []
    leases.share("one", ("10.100.0.0/22",), ("10.100.4.0/22", "fd00::/64"))
    leases.share("two")
    theirs = "a network of the embedded host 'one'"
    assert leases.announced() == [("10.100.4.0/22", theirs), ("fd00::/64", theirs)]
    named = files / "two.name"
    named.write_text("two\n")
    monkeypatch.setattr(hosts, "_NAME", str(named))
    leases.announce(["10.100.8.0/22"])
    assert sorted(one[0] for one in leases.announced()) == [
        "10.100.0.0/22",
        "10.100.4.0/22",
        "fd00::/64",
    ]
    monkeypatch.setattr(hosts, "_NAME", str(files / "none"))
    assert not leases.forget_host("one")
    assert [one[0] for one in leases.announced()] == ["10.100.8.0/22"]
    assert leases.forget_host("two")
