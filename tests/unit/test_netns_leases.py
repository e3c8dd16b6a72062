"""Which address comes next, and what the lease and port files hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from sysbox.base import paths
from sysbox.base.errors import Conflict, FormatError
from sysbox.base.flock import Lock
from sysbox.netns import leases, ports
from sysbox.netns.rules import Published
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


def test_addresses_go_round_before_they_come_again() -> None:
    given = [leases.acquire(f"c{number}", *SMALL) for number in range(3)]
    assert given == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
    leases.release("c0")
    leases.release("c0")
    assert leases.acquire("c3", *SMALL) == "10.0.0.5"
    assert leases.acquire("c4", *SMALL) == "10.0.0.6"
    assert leases.acquire("c5", *SMALL) == "10.0.0.2"
    with pytest.raises(Conflict, match="no address is free"):
        leases.acquire("c6", *SMALL)


def test_a_container_keeps_its_address() -> None:
    assert leases.acquire("a", *SMALL) == leases.acquire("a", *SMALL) == leases.all()["a"]
    assert "b" not in leases.all()


def test_addresses_of_the_dead_come_back() -> None:
    for name in "abc":
        leases.acquire(name, *SMALL)
    assert leases.reclaim({"b", "x"}.__contains__) == ["a", "c"]
    assert leases.all() == {"b": "10.0.0.3"}


def test_a_thousand_leases(files: Path) -> None:
    lines = ["10.90.3.233"] + [f"10.90.{n >> 8}.{n & 255} {n:064x}" for n in range(2, 1002)]
    (files / "leases").write_text("\n".join(lines) + "\n")
    assert leases.acquire("new") == "10.90.3.234"
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
    ports.store(entries)
    assert ports.load() == entries


@pytest.mark.parametrize("line", ["", "a b c", "a 10.0.0.2 tcp * x 80", "a b c d e f g"])
def test_a_damaged_port_file_is_named(files: Path, line: str) -> None:
    (files / "ports").write_text(line + "\n")
    with pytest.raises(FormatError, match="ports"):
        ports.load()


def test_a_port_of_another_container_is_refused() -> None:
    held = Published(id="a" * 64, address="10.0.0.2", port=Port(container_port=80, host_port=8080))
    with pytest.raises(Conflict, match="already used by container aaaaaaaaaaaa"):
        ports.resolve((Port(container_port=1, host_port=8080, host_ip="127.0.0.1"),), (held,))


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
    leases.acquire("machine", *SMALL)
    for name in ("one", "two"):
        leases.share(name)  # as it boots
    given = {"machine": "10.0.0.2"}
    for number, host in enumerate(("one", "two", "one")):
        named = files / f"{host}.name"
        named.write_text(f"{host}\n")
        monkeypatch.setattr(leases, "_NAME", str(named))
        monkeypatch.setattr(leases, "FILE", str(files / f"{host}.leases"))
        given[f"c{number}"] = leases.acquire(f"c{number}", *SMALL)
    assert sorted(given.values()) == ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"]
    # one of them is stopped: what it had is free again, and nothing else
    assert not leases.forget_host("two")
    assert {leases.acquire(f"d{number}", *SMALL) for number in range(2)} == {
        "10.0.0.6",
        given["c1"],
    }
    with pytest.raises(Conflict):
        leases.acquire("e", *SMALL)
    monkeypatch.setattr(leases, "_NAME", str(files / "none"))
    assert leases.forget_host("one")
    assert not leases.forget_host("one")
    assert not shared.exists()
