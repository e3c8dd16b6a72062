"""Definitions of networks and their files; subnets of both families."""

from __future__ import annotations

from pathlib import Path

import pytest

from sysbox.base.errors import Conflict, FormatError, NotFound, SpecError
from sysbox.netns import networks, subnets
from sysbox.netns.network import BUILTIN, Network, bridge_name, check, unique_local
from sysbox.parse.network import OF_USERS_HINT

ID = "0123456789abcdef" * 4
WEB = Network(
    name="web", id=ID, bridge=bridge_name(ID), subnet="10.1.2.0/24", gateway="10.1.2.1",
    ip_range="10.1.2.128/25", subnet6="fd00:1::/64", gateway6="fd00:1::1", labels={"a": "b"},
    options={"mtu": "1400"}, mtu=1400, dns=True, icc=False, created_ns=5,
)  # fmt: skip


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Definitions of this test's own."""
    monkeypatch.setattr(networks, "NETWORKS", str(tmp_path / "networks"))
    monkeypatch.setattr(networks, "DECLARED", str(tmp_path / "declared"))
    return tmp_path / "networks"


def test_a_definition_is_read_as_it_was_written(files: Path) -> None:
    with networks.Lock():
        networks.store(WEB)
    assert networks.load("web") == networks.find("web") == networks.find(ID[:4]) == WEB
    assert networks.all_networks() == [WEB]
    assert networks.defined() == ["web"]
    assert (files / "web.json").stat().st_mode & 0o777 == 0o600
    assert networks.forget("web")
    assert not networks.forget("web")
    assert networks.defined() == []


def test_a_definition_that_is_declared(files: Path) -> None:
    declared = files.parent / "declared"
    declared.mkdir()
    unit = WEB.replace(id="e" * 64, subnet="10.7.0.0/24", gateway="10.7.0.1", ip_range="")
    (declared / "web.json").write_bytes(networks.to_file(unit))
    assert networks.load("web") == networks.find("e" * 8) == unit
    assert (networks.defined(), networks.exists("web")) == (["web"], True)
    assert networks.subnets_of() == ("10.7.0.0/24", "fd00:1::/64")
    assert networks.subnets_of(str(files)) == ()
    with pytest.raises(Conflict, match=f"network web: is declared by {declared}/web.json"):
        networks.refuse_declared("web")
    assert not networks.forget("web")
    # that of `network create` counts
    with networks.Lock():
        networks.store(WEB)
    assert (networks.load("web"), networks.all_networks()) == (WEB, [WEB])
    assert networks.subnets_of() == ("10.1.2.0/24", "fd00:1::/64")
    networks.refuse_declared("web")
    assert networks.forget("web")
    (declared / "web.json").write_text("{")
    with pytest.raises(FormatError) as error:
        networks.load("web")
    assert "network rm" not in error.value.hint
    assert networks.subnets_of() == ()


def test_what_is_not_there_is_named() -> None:
    with networks.Lock():
        networks.store(WEB)
    for word in ("wob", "hots", ID[1:9], ID[:3]):
        with pytest.raises(NotFound, match=f"no such network: {word}"):
            networks.find(word)
    assert "'web'" in networks._hint("wob")
    assert "'host'" in networks._hint("hots")
    assert networks._hint("pasta") == networks._hint("slirp4netns") == OF_USERS_HINT


def test_an_id_of_several() -> None:
    with networks.Lock():
        networks.store(WEB)
        networks.store(WEB.replace(name="two", id=ID[:8] + "f" * 56))
    with pytest.raises(Conflict, match="two, web"):
        networks.find(ID[:8])


@pytest.mark.parametrize("name", ["", "../x", "x/y", "-x", "bridge", "host", "none", "default"])
def test_names_that_no_network_has(name: str) -> None:
    with pytest.raises(SpecError):
        networks.check(name)
    assert not networks.exists(name)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not valid JSON"),
        ("[]", "must be an object"),
        ('{"name": "web"}', "missing|id"),
        ('{"format": 2}', "format: must be a number from 1 to 1"),
        ('{"surprise": 1}', "unknown key"),
        ('{"name": "other"}', "name: must be web"),
        ('{"name": "web", "mtu": 1}', "mtu: must be from 68"),
        ('{"name": "web", "driver": "bridg"}', "driver: must be bridge"),
        (
            '{"name": "web", "gateway": "10.9.0.1"}',
            "gateway 10.9.0.1: is not an address of the subnet",
        ),
        ('{"name": "web", "isolate": 1}', "must be bool"),
        ('{"name": "web", "nic": "a\\nb"}', "nic: must be the name of a link"),
        ('{"name": "web", "bridge": "a b"}', "bridge: must be the name of a link"),
        ('{"name": "web", "interface": "-x"}', "interface: must be the name of a link"),
        ('{"name": "web", "dns_servers": ["x"]}', "'x' is not an IP address"),
        ('{"name": "web", "host_binding": "x"}', "'x' is not an IP address"),
        ('{"name": "web", "subnet": "127.0.0.0/8"}', "overlaps 127.0.0.0/8"),
    ],
)
def test_a_damaged_definition_is_one_line(files: Path, text: str, reason: str) -> None:
    files.mkdir()
    (files / "web.json").write_text(text)
    if text == '{"name": "web"}':
        # all the rest has the defaults of the network `bridge`, its id too
        assert networks.load("web").id == BUILTIN["bridge"]
        return
    with pytest.raises(FormatError, match=reason) as error:
        networks.load("web")
    assert "web.json" in str(error.value)
    assert "network rm --force web" in error.value.hint
    damaged: list[str] = []
    assert networks.all_networks(damaged) == []
    assert len(damaged) == 1


def test_subnets_that_do_not_fit_together() -> None:
    check(WEB)
    for change, reason in (
        ({"gateway": "10.1.3.1"}, "gateway 10.1.3.1"),
        ({"gateway": "10.1.2.0"}, "gateway 10.1.2.0"),
        ({"gateway": "10.1.2.255"}, "gateway 10.1.2.255"),
        ({"gateway6": "fd00:2::1"}, "gateway fd00:2::1"),
        ({"ip_range": "10.1.0.0/16"}, "ip-range"),
        ({"ip_range": "10.1.3.0/25"}, "ip-range"),
        ({"subnet6": "10.7.0.0/24"}, "not one of IPv6"),
        ({"mtu": 1279}, "mtu 1279: IPv6 needs at least 1280"),
    ):
        with pytest.raises(SpecError, match=reason):
            check(WEB.replace(**change))


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("10.0.0.0/8", "10.9.0.0/16", True),
        ("10.9.0.0/16", "10.10.0.0/16", False),
        ("fd00::/16", "fd00:1::/64", True),
        ("fd00::/64", "fd01::/64", False),
        ("10.0.0.0/8", "fd00::/64", False),
    ],
)
def test_overlap(one: str, other: str, both: bool) -> None:
    assert subnets.overlap(one, other) is subnets.overlap(other, one) is both


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0.1/8",
        "fd00::1/64",
        "10.0.0.0",
        "10.0.0.0/31",
        "10.0.0.0/7",
        "fd00::/127",
        "x/8",
        "::/0",
    ],
)
def test_bad_subnets(text: str) -> None:
    with pytest.raises(SpecError):
        subnets.split(text)


def test_routes_of_the_host() -> None:
    v4 = (
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth0\t0000640A\t00000000\t0001\t0\t0\t0\t00FCFFFF\t0\t0\t0\n"
    )
    zero = "0" * 32
    rest = f"{zero} 00 {zero} 00000100 00000001 00000000 00000001"
    v6 = "".join(
        f"{address} {bits:02x} {rest} {link}\n"
        for address, bits, link in (
            ("fd000001" + "0" * 24, 64, "eth1"),
            ("fe80" + "0" * 28, 64, "eth1"),
            (zero, 0, "eth1"),
            ("fd000001" + "0" * 23 + "5", 128, "lo"),
            ("ff00" + "0" * 28, 8, "eth1"),
        )
    )
    found = subnets.routes(v4, v6)
    assert found == [("10.100.0.0/22", "eth0"), ("fd00:1::/64", "eth1")]
    assert subnets.taken("10.100.2.0/24", found) == "10.100.0.0/22 on eth0"
    assert subnets.taken("10.100.2.0/24", found, "eth0") == ""
    assert subnets.taken("fd00::/16", found) == "fd00:1::/64 on eth1"
    assert subnets.taken("10.0.0.0/9", [("10.1.2.3/32", "x")]) == "10.1.2.3/32 on x"


def test_what_is_derived_from_an_id() -> None:
    assert bridge_name(ID) == "sb-0123456789ab"
    assert unique_local(ID) == "fd01:2345:6789:abcd::/64"
    subnets.split(unique_local("0" * 64))


@pytest.mark.parametrize(
    ("subnet", "with_what"),
    [
        ("0.1.0.0/16", "0.0.0.0/8"),
        ("127.5.0.0/16", "127.0.0.0/8"),
        ("224.0.0.0/24", "224.0.0.0/4"),
        ("255.0.0.0/8", "255.255.255.0/24"),
        ("::ffff:10.0.0.0/112", "::/8"),
        ("fe80::/64", "fe80::/10"),
        ("ff02::/64", "ff00::/8"),
    ],
    ids=["zero", "loopback", "multicast", "broadcast", "mapped", "link-local", "multicast6"],
)
def test_subnets_that_no_link_can_have(subnet: str, with_what: str) -> None:
    assert subnets.unusable(subnet).startswith(f"overlaps {with_what}, ")


@pytest.mark.parametrize("subnet", ["10.0.0.0/8", "169.254.0.0/16", "240.0.0.0/8", "fd00::/8"])
def test_subnets_that_a_link_can_have(subnet: str) -> None:
    assert subnets.unusable(subnet) == ""
