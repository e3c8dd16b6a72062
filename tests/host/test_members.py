"""Containers join a network and leave it, many at once: each finds a bridge, and the last one removes it."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from network_lab import in_private_network

from sysbox.base.errors import NotFound
from sysbox.netns import leases, members, networks
from sysbox.netns.network import Network
from sysbox.netns.topology import NetPlan, plan_network
from sysbox.spec import ContainerSpec, Endpoint, Namespaces

LAN = Network(
    name="lan", id="c" * 64, bridge="sb-lan", subnet="10.44.0.0/22", gateway="10.44.0.1",
    subnet6="fd00:44::/64", gateway6="fd00:44::1",
)  # fmt: skip


def planned(number: int) -> NetPlan:
    spec = ContainerSpec(
        image="x", namespaces=Namespaces(network="bridge"), networks=(Endpoint(network="lan"),)
    )
    return plan_network(f"{number:010x}" + "5c" * 27, spec, named={"lan": LAN})


def define() -> None:
    networks.NETWORKS = "/run/networks"
    with networks.Lock():
        networks.store(LAN)


def bridge_is_there() -> bool:
    return Path("/sys/class/net/sb-lan/bridge").exists()


@in_private_network
def test_64_join_at_once() -> None:
    define()
    members.join(planned(64))  # the first start makes the rules, which is slow
    members.leave(planned(64).id)
    go, start = os.pipe()
    said, say = os.pipe()
    children = []
    for number in range(64):
        pid = os.fork()
        if pid == 0:
            os.close(start)
            os.read(go, 1)
            (one,), (index,) = members.join(planned(number))
            os.write(say, f"{one.address} {one.address6} {index}\n".encode())
            os._exit(0)
        children.append(pid)
    os.close(go)
    os.close(start)
    for pid in children:
        assert os.waitpid(pid, 0)[1] == 0
    os.close(say)
    with os.fdopen(said) as file:
        lines = [line.split() for line in file.read().splitlines()]
    assert len({line[0] for line in lines}) == len({line[1] for line in lines}) == 64
    assert len({line[2] for line in lines}) == 1, "there was one bridge only"
    for number in range(64):
        assert bridge_is_there()
        members.leave(planned(number).id)
    assert not bridge_is_there()
    assert leases.in_use() == []


@in_private_network
def test_who_joins_while_the_last_one_leaves_finds_a_bridge() -> None:
    define()
    children = []
    for number in range(4):
        pid = os.fork()
        if pid == 0:
            chance = random.Random(number)
            plan = planned(number)
            for _ in range(25):
                _, (index,) = members.join(plan)
                there = Path("/sys/class/net/sb-lan/ifindex").read_text()
                assert int(there) == index
                if chance.random() < 0.5:
                    assert Path("/sys/class/net/sb-lan").exists()
                members.leave(plan.id)
            os._exit(0)
        children.append(pid)
    for pid in children:
        assert os.waitpid(pid, 0)[1] == 0
    assert not bridge_is_there()
    assert leases.in_use() == []


@in_private_network
def test_a_bridge_that_was_left_is_collected() -> None:
    define()
    plan = planned(1)
    members.join(plan)
    assert members.users(LAN.id) == [plan.id]
    assert not members.remove_stale(LAN), "it is in use"
    # as if /run had been lost
    for path in Path(leases.directory(LAN.id)).iterdir():
        path.unlink()
    assert members.remove_stale(LAN)
    assert not bridge_is_there()
    assert not members.remove_stale(LAN)
    assert leases.in_use() == []


@in_private_network
def test_a_failed_join_leaves_nothing() -> None:
    define()
    plan = planned(1)
    (one,) = plan.attachments
    wrong = plan.replace(attachments=(one.replace(network_id="d" * 64),))
    with pytest.raises(NotFound, match="another one has its name now"):
        members.join(wrong)
    assert leases.in_use() == []
    members.leave(plan.id)
    assert leases.in_use() == []


@in_private_network
def test_a_bridge_that_is_removed_behind_the_last_one() -> None:
    """Who joins meanwhile waits for the child, and finds a bridge of its own."""
    define()
    one, two = planned(1), planned(2)
    for _ in range(10):
        members.join(one)
        members.leave(one.id, behind=True)
        _, (index,) = members.join(two)
        assert int(Path("/sys/class/net/sb-lan/ifindex").read_text()) == index
        members.leave(two.id, behind=True)
        for _ in range(2):
            os.waitpid(-1, 0)
        assert not bridge_is_there()
    assert leases.in_use() == []
