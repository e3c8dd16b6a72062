"""The units of a network's resolver. Pure."""

from __future__ import annotations

from typing import Any

import pytest

from sysbox.units import resolverplan
from sysbox.units.resolverplan import ResolverPlan

PLAN = ResolverPlan(
    network="lan", directory="/run/sysbox/names/lan", run="/run/sysbox",
    addresses=("10.1.0.1", "fd00::1"), launcher="/usr/bin/sysbox", package="/usr/lib/python3/sysbox",
)  # fmt: skip


def service(plan: ResolverPlan = PLAN) -> dict[str, Any]:
    return {one.name: one.value for one in resolverplan.service_properties(plan)}


def test_the_socket_has_both_protocols_on_each_gateway() -> None:
    found = {one.name: one.value for one in resolverplan.socket_properties(PLAN)}
    assert found["Listen"] == [
        ("Datagram", "10.1.0.1:53"), ("Stream", "10.1.0.1:53"),
        ("Datagram", "[fd00::1]:53"), ("Stream", "[fd00::1]:53"),
    ]  # fmt: skip
    assert found["FreeBind"] is True
    assert "BindToDevice" not in found
    assert "PartOf" not in found
    part = PLAN.replace(network_unit="sysbox-network-lan.service")
    found = {one.name: one.value for one in resolverplan.socket_properties(part)}
    assert found["PartOf"] == ["sysbox-network-lan.service"]


def test_a_resolver_that_fails_meets_the_limit_of_its_service_first() -> None:
    """Then the socket fails with it, and says so; and one that leaves when idle meets neither."""
    socket = {one.name: one.value for one in resolverplan.socket_properties(PLAN)}
    found = service()
    assert found["StartLimitIntervalUSec"] <= socket["TriggerLimitIntervalUSec"]
    assert found["StartLimitBurst"] < socket["TriggerLimitBurst"]


def test_it_sees_the_names_of_its_network_alone() -> None:
    found = service()
    assert found["DynamicUser"] is True
    assert found["CapabilityBoundingSet"] == 0
    assert found["TemporaryFileSystem"] == [("/run/sysbox", "ro,mode=0755")]
    assert found["BindReadOnlyPaths"] == [
        ("/run/sysbox/names/lan", "/run/sysbox/names/lan", False, 0)
    ]
    assert found["ProtectHome"] == "tmpfs"
    assert found["ReadOnlyPaths"] == ["/proc", "/sys"]


@pytest.mark.parametrize(
    ("launcher", "package", "bound"),
    [
        ("/root/venv/bin/sysbox", "/root/venv/lib/sysbox", ["/root/venv", "/root/venv/lib/sysbox"]),
        ("/home/me/bin/sysbox", "/opt/lib/sysbox", ["/home/me"]),
        ("/opt/bin/sysbox", "/opt/lib/sysbox", []),
    ],
)
def test_an_installation_where_others_may_not_enter(
    launcher: str, package: str, bound: list[str]
) -> None:
    found = service(PLAN.replace(launcher=launcher, package=package))
    assert [one[0] for one in found["BindReadOnlyPaths"]][1:] == bound
    assert found["ProtectHome"] == "tmpfs"
