"""Links below a link of the host: the messages, and what the kernel makes of them, in its own namespaces."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked import in_child
from test_netns_rtnetlink import IFINFO, theirs, tree

from sysbox.base.errors import Conflict, NotFound, Unsupported
from sysbox.linux import _sys
from sysbox.linux.namespace import CLONE_NEWNET, CLONE_NEWNS
from sysbox.netns import interfaces, leases, links, parents
from sysbox.netns import rtnetlink as rt
from sysbox.netns.attachment import Attachment

NET = "0123456789abcdef" * 4
LAN = Attachment(
    network="lan", network_id=NET, driver="macvlan", parent="lan0", mode="bridge", interface="eth0",
    mac="02:00:00:00:00:07", subnet="10.36.0.0/24", prefix=24, gateway="10.36.0.1",
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "data"),
    [
        ({}, ("IFLA_MACVLAN_MODE", "bridge")),
        ({"mode": "private", "mtu": 1400}, ("IFLA_MACVLAN_MODE", "private")),
        ({"mode": "vepa"}, ("IFLA_MACVLAN_MODE", "vepa")),
        ({"mode": "passthru"}, ("IFLA_MACVLAN_MODE", "passthru")),
        ({"driver": "ipvlan", "mode": "l2"}, ("IFLA_IPVLAN_MODE", 0)),
        ({"driver": "ipvlan", "mode": "l3"}, ("IFLA_IPVLAN_MODE", 1)),
        ({"driver": "ipvlan", "mode": "l3s"}, ("IFLA_IPVLAN_MODE", 2)),
    ],
    ids=["bridge", "private", "vepa", "passthru", "l2", "l3", "l3s"],
)
def test_the_message_is_pyroute2s(change: dict[str, Any], data: tuple[str, Any]) -> None:
    one = LAN.replace(**change)
    attributes: list[Any] = [("IFLA_IFNAME", "eth0"), ("IFLA_LINK", 5), ("IFLA_NET_NS_FD", 9)]
    attributes += [("IFLA_MTU", one.mtu)] if one.mtu else []
    if one.driver == "macvlan" and one.mode != "passthru":
        attributes.append(("IFLA_ADDRESS", one.mac))
    info = [("IFLA_INFO_KIND", one.driver), ("IFLA_INFO_DATA", {"attrs": [data]})]
    attributes.append(("IFLA_LINKINFO", {"attrs": info}))
    body = theirs("ifinfmsg", "RTM_NEWLINK", {}, attributes)
    ours = parents.message(one, 5, links.namespace(0, 9)).body
    assert (ours[:IFINFO], tree(ours[IFINFO:])) == (body[:IFINFO], tree(body[IFINFO:]))


def on_a_host(body: Callable[[], Any]) -> Any:
    """What `body` returns in a network namespace with a link lan0, and no state of sysbox."""

    def run() -> Any:
        _sys.mount("tmpfs", "/run", "tmpfs", 0, None)
        _sys.mount("sysfs", "/sys", "sysfs", 0, None)
        _make("lan0", "veth", up=True)
        return body()

    return in_child(run, CLONE_NEWNET | CLONE_NEWNS)


def _make(name: str, kind: str, *, up: bool, alias: str = "") -> None:
    info = rt.nested(rt.IFLA_LINKINFO, rt.text(rt.IFLA_INFO_KIND, kind))
    flags = rt.IFF_UP if up else 0
    whose = rt.text(rt.IFLA_IFNAME, name)
    named = rt.ifinfo(0, flags, flags) + whose + rt.text(rt.IFLA_IFALIAS, alias)
    with rt.Socket() as link:
        link.request([
            rt.Message(rt.RTM_NEWLINK, rt.NLM_F_CREATE, rt.ifinfo() + whose + info, "make a link"),
            rt.Message(rt.RTM_NEWLINK, 0, named, "set up a link"),
        ])  # fmt: skip


def _namespace() -> int:
    """Another network namespace; this process is in its own afterwards."""
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    _sys.unshare(CLONE_NEWNET)
    there = os.open("/proc/self/ns/net", os.O_RDONLY)
    _sys.setns(here, CLONE_NEWNET)
    os.close(here)
    return there


def _configure(there: int, one: Attachment, address: str) -> str:
    """The MAC of a link that was configured in a namespace."""
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    _sys.setns(there, CLONE_NEWNET)
    index = interfaces.index_of(one.interface)
    links.request_inside(links.inside(one, index, address), (one,))
    _sys.mount("sysfs", "/mnt", "sysfs", 0, None)
    mac = Path(f"/mnt/class/net/{one.interface}/address").read_text()
    _sys.umount2("/mnt", 0)
    _sys.setns(here, CLONE_NEWNET)
    os.close(here)
    return mac.strip()


def test_a_link_is_made_in_its_namespace_at_once() -> None:
    def run() -> tuple[str, list[str]]:
        there = _namespace()
        parents.connect([(LAN, parents.ensure(LAN))], links.namespace(0, there))
        return _configure(there, LAN, "10.36.0.7"), sorted(os.listdir("/sys/class/net"))

    assert on_a_host(run) == (LAN.mac, ["lan0", "lo", "veth0"])


def test_a_mac_that_the_kernel_is_about_to_free() -> None:
    """The link of the last start has the same; it goes while the next one is configured."""

    def run() -> str:
        index = parents.ensure(LAN)
        first, second = _namespace(), _namespace()
        for there in (first, second):
            parents.connect([(LAN, index)], links.namespace(0, there))
        _configure(first, LAN, "10.36.0.7")
        os.close(first)  # the last reference: the kernel removes what is in it, at leisure
        return _configure(second, LAN, "10.36.0.7")

    assert on_a_host(run) == LAN.mac


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"parent": "lan7"}, "NotFound: network lan: its parent lan7 is not there"),
        (
            {"parent": "lan7.20"},
            "NotFound: network lan: its parent lan7.20 is not there, nor lan7, which it would be made on",
        ),
        ({"parent": "lan1"}, "Conflict: network lan: its parent lan1 is down"),
        ({"parent": "lan1.20"}, "Conflict: network lan: its parent lan1 is down"),
    ],
    ids=["missing", "of a VLAN missing", "down", "of a VLAN down"],
)
def test_a_parent_that_cannot_be(change: dict[str, str], reason: str) -> None:
    def run() -> str:
        _make("lan1", "veth", up=False)
        try:
            parents.ensure(LAN.replace(**change))
        except (NotFound, Conflict) as error:
            return f"{type(error).__name__}: {error.message}{'' if error.hint else ' (no hint)'}"
        return "made"

    assert on_a_host(run) == reason


def test_a_kind_that_the_kernel_lacks() -> None:
    def run() -> list[str]:
        said = []
        for one in (LAN.replace(driver="novlan"), LAN):
            index = interfaces.index_of("lan0") + (0 if one.driver == "novlan" else 50)
            try:
                if one.driver == "novlan":
                    parents._IPVLAN["bridge"] = 0
                parents.connect([(one, index)], links.namespace(os.getpid(), -1))
            except (Unsupported, NotFound) as error:
                said.append(f"{error.message} ({error.hint})")
        return said

    lacks, gone = on_a_host(run)
    assert lacks.startswith("network lan: this kernel has no links of the kind novlan")
    assert gone.startswith("network lan: its parent lan0 is not there any more")


def test_which_parent_goes_with_the_last_container() -> None:
    """One that is missing, since it will be made, or that was made: it has the alias. Another one stays."""

    def run() -> list[Any]:
        one = LAN.replace(parent=f"sb-{NET[:12]}")
        found: list[Any] = []
        for alias in ("", f"sysbox network {NET[:12]}"):
            with leases.NetworkLock(NET):
                parents.note(one)
                _make(one.parent, "veth", up=True, alias=alias)
                found += [parents.is_ours(one.parent, NET), parents.is_ours(one.parent, "f" * 64)]
                found += [parents.noted(NET), parents.noted(NET)]
                parents.note(one)
                found.append(parents.noted(NET))
            links.remove_link(one.parent)
        return found

    parent = f"sb-{NET[:12]}"
    assert on_a_host(run) == [False, False, "", "", "", True, False, parent, "", parent]


def test_addresses_of_the_host() -> None:
    def run() -> list[str]:
        index = interfaces.index_of("lan0")
        with rt.Socket() as link:
            link.request([
                links.add_address(index, "10.36.0.9", "10.36.0.0/24", "lan0"),
                links.add_address(index, "10.36.0.10", "10.36.0.0/24", "lan0"),
                links.add_address6(index, "fd00:36::9", 64, "lan0"),
            ])  # fmt: skip
        return sorted(parents.host_addresses())

    found = on_a_host(run)
    assert {"10.36.0.9", "10.36.0.10", "fd00:36::9"} <= set(found)
    assert "10.36.0.255" not in found
    assert "10.36.0.0" not in found
