"""The files of names: written before a command runs, gone with the last container."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sysbox.base import codec
from sysbox.netns import names
from sysbox.netns.attachment import Attachment

A_ID, B_ID = "a" * 64, "b" * 64
LAN = Attachment(
    network="lan", network_id="c" * 64, subnet="10.1.0.0/22", gateway="10.1.0.1", address="10.1.0.2",
    subnet6="fd00::/64", gateway6="fd00::1", address6="fd00::2", aliases=("www",), dns=True,
)  # fmt: skip
BACK = Attachment(
    network="back", subnet="10.2.0.0/22", gateway="10.2.0.1", address="10.2.0.2", dns=True,
    internal=True,
)  # fmt: skip
PLAIN = Attachment(network="bridge", subnet="10.90.0.0/16", gateway="10.90.0.1")


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of this test's own."""
    monkeypatch.setattr(names, "DIRECTORY", str(tmp_path / "names"))
    return tmp_path / "names"


def content(directory: Path, network: str, name: str) -> dict[str, object]:
    found: dict[str, object] = codec.loads((directory / network / name).read_bytes(), name)
    return found


def test_a_place_is_reserved_and_names_nobody(directory: Path) -> None:
    assert names.reserve(A_ID, LAN.network)
    assert not names.reserve(B_ID, LAN.network)
    names.configure("lan", LAN)
    assert content(directory, "lan", A_ID) == {"pid": 0, "start": 0}
    assert content(directory, "lan", names.SETTINGS) == {
        "subnets": ["10.1.0.0/22", "fd00::/64"],
        "gateways": ["10.1.0.1", "fd00::1"],
        "servers": [],
        "internal": False,
    }
    assert names.networks() == ["lan"]
    assert names.containers("lan") == [A_ID, B_ID]


def test_the_resolver_may_read_them_whatever_the_callers_umask(directory: Path) -> None:
    before = os.umask(0o077)
    try:
        names.reserve(A_ID, LAN.network)
        names.configure("lan", LAN)
        names.publish(A_ID, ("web", "box"), (7, 8), (LAN,))
    finally:
        os.umask(before)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / "lan").stat().st_mode & 0o777 == 0o755
    for name in (A_ID, names.SETTINGS):
        assert (directory / "lan" / name).stat().st_mode & 0o777 == 0o644


def test_who_is_on_several_networks_is_told_of_all(directory: Path) -> None:
    for one in (LAN, BACK):
        names.reserve(A_ID, one.network)
    names.publish(A_ID, ("web", "box"), (7, 8), (LAN, PLAIN, BACK), ("192.0.2.1",), {"db": B_ID})
    assert content(directory, "lan", A_ID) == {
        "pid": 7,
        "start": 8,
        "name": "web",
        "hostname": "box",
        "aliases": ["www"],
        "addresses": ["10.1.0.2", "fd00::2"],
        "servers": ["192.0.2.1"],
        "links": {"db": B_ID},
        "others": ["10.2.0.1"],
        "internal": False,
    }
    assert content(directory, "back", A_ID)["others"] == ["10.1.0.1"]
    assert not (directory / "bridge").exists()
    names.publish(A_ID, ("web", "box"), (7, 8), (BACK,))
    assert content(directory, "back", A_ID)["internal"] is True


def test_the_last_one_takes_the_directory_along(directory: Path) -> None:
    for container in (A_ID, B_ID):
        names.reserve(container, LAN.network)
    (directory / "lan" / f"{A_ID}.123").touch()  # of a writer that was killed
    assert not names.withdraw(A_ID, "lan")
    assert names.dead(lambda one: one == B_ID) == []
    assert names.dead(lambda one: one == A_ID) == [("lan", B_ID)]
    assert names.withdraw(B_ID, "lan")
    assert not names.withdraw(B_ID, "lan")
    assert names.networks() == []
