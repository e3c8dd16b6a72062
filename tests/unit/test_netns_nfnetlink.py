"""nf_tables by messages of our own, compared with what nft(8) shows; in a network namespace of the test's."""

from __future__ import annotations

import errno
import json
import subprocess
from typing import Any

import pytest
from forked import in_child

from sysbox.linux.namespace import CLONE_NEWNET
from sysbox.netns import firewall_nft, nfnetlink
from sysbox.netns.rules import Policy, Published
from sysbox.spec import Port

POLICY = Policy(bridge="sysbox0", subnet="10.90.0.0/16", subnet6="fd00::/64")
WEB = Port(container_port=80, host_port=8080)
ENTRIES = (
    Published(id="a" * 64, address="10.90.0.2", port=WEB),
    Published(id="a" * 64, address="fd00::2", port=WEB),
    Published(
        id="b" * 64, address="10.90.0.3", port=WEB.replace(host_ip="192.0.2.1", protocol="udp")
    ),
    Published(id="b" * 64, address="fd00::3", port=WEB.replace(host_ip="2001:db8::1", host_port=1)),
)


def _maps() -> dict[str, list[object]]:
    done = subprocess.run(
        ["nft", "-j", "list", "maps", "inet"], capture_output=True, text=True, check=True
    )
    listed = [one["map"] for one in json.loads(done.stdout)["nftables"] if "map" in one]
    return {one["name"]: sorted(map(json.dumps, one.get("elem", []))) for one in listed}


@pytest.fixture(autouse=True)
def _needs(requires: Any) -> None:
    requires.root()
    requires.program("nft")


def test_elements_are_those_that_nft_makes() -> None:
    def body() -> None:
        firewall_nft.apply((POLICY,), ENTRIES)
        by_nft = _maps()
        assert sorted(map(len, by_nft.values())) == [1, 1, 1, 1]
        assert firewall_nft.withdraw(ENTRIES)
        assert set(map(len, _maps().values())) == {0}
        assert firewall_nft.publish(ENTRIES)
        assert _maps() == by_nft

    in_child(body, CLONE_NEWNET)


def test_a_missing_table_and_a_missing_element_are_noticed() -> None:
    def body() -> None:
        assert not firewall_nft.publish(ENTRIES)
        assert not firewall_nft.in_place((POLICY,))
        firewall_nft.apply((POLICY,), ENTRIES[:1])
        assert firewall_nft.in_place((POLICY,))
        assert firewall_nft.withdraw(ENTRIES), "those that are there go, the others are gone"
        assert set(map(len, _maps().values())) == {0}
        subprocess.run(["nft", "flush", "chain", "inet", "sysbox", "forward"], check=True)
        assert not firewall_nft.in_place((POLICY,))
        firewall_nft.remove()
        firewall_nft.remove()
        with nfnetlink.Socket() as wire:
            assert wire.chains() == []

    in_child(body, CLONE_NEWNET)


def test_many_ports_are_more_than_one_message() -> None:
    def body() -> None:
        many = tuple(
            Published(
                id="a" * 64, address="10.90.0.2", port=Port(container_port=1, host_port=number)
            )
            for number in range(1, 3001)
        )
        firewall_nft.apply((POLICY,), ())
        assert firewall_nft.publish(many)
        assert len(_maps()["everywhere4"]) == 3000
        assert firewall_nft.withdraw(many)
        assert _maps()["everywhere4"] == []

    in_child(body, CLONE_NEWNET)


def test_a_refused_batch_changes_nothing() -> None:
    def body() -> None:
        firewall_nft.apply((POLICY,), ())
        good = nfnetlink.elements(
            "sysbox", "everywhere4", [(b"\6\0\0\0\0\1\0\0", b"\12\0\0\1\0\1\0\0", "")]
        )
        bad = nfnetlink.elements("sysbox", "nowhere", [(b"\6\0\0\0\0\1\0\0", b"", "")])
        messages = [(nfnetlink.NEWSETELEM, 0x400, body) for body in (*good, *bad)]
        with nfnetlink.Socket() as wire:
            assert wire.commit(messages) == errno.ENOENT
        assert _maps()["everywhere4"] == []

    in_child(body, CLONE_NEWNET)
