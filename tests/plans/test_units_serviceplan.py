"""The service around a container: its properties on the bus, its unit file, its restart policy. Pure."""

from __future__ import annotations

import pytest

from sysbox.spec import ContainerSpec, RestartPolicy
from sysbox.units import names, serviceplan
from sysbox.units.limits.properties import INFINITY, Property
from sysbox.units.serviceplan import ServicePlan

OWN, OTHER = "a" * 64, names.service_unit("b" * 64)


def settings(*joined: str) -> list[str]:
    spec = ContainerSpec(image="bb:1", restart=RestartPolicy(name="always"))
    plan = serviceplan.plan_service(OWN, "child", spec, "/usr/bin/sysbox").replace(joined=joined)
    return serviceplan.unit_file(plan).splitlines()


def test_it_comes_after_those_it_joins_and_wants_none_of_them() -> None:
    """Wanted, one that its user has stopped would be started again with the next start of this one."""
    assert f"After=network.target dbus.socket {OTHER}" in settings(OTHER)
    assert not [line for line in settings(OTHER) if line.startswith(("Wants=", "Requires="))]
    assert "After=network.target dbus.socket" in settings()


def test_the_whole_file_is_as_earlier_versions_wrote_it() -> None:
    """A file that were written otherwise would be replaced, and systemd told, at the next start of each."""
    spec = ContainerSpec(image="bb:1", restart=RestartPolicy(name="on-failure", retries=5))
    plan = serviceplan.plan_service(OWN, "child", spec, "/opt/100%/sysbox", (133, 134))
    assert (
        serviceplan.unit_file(plan)
        == f"""\
# sysbox made this for the restart policy of container child, and removes it with the container.
[Unit]
Description=sysbox container child
After=network.target dbus.socket

[Service]
Type=notify
NotifyAccess=main
ExecStart="/opt/100%%/sysbox" _supervise {OWN}
ExecStopPost="/opt/100%%/sysbox" _cleanup {OWN}
KillMode=mixed
TimeoutStartSec=infinity
TimeoutStopSec=40s
Slice=sysbox.slice
OOMPolicy=continue
MemoryMax=536870912
TasksMax=64
SuccessExitStatus=133 134

[Unit]
StartLimitIntervalSec=infinity
StartLimitBurst=6

[Service]
Restart=on-failure
RestartSec=100ms
RestartForceExitStatus=133

[Install]
WantedBy=multi-user.target
"""
    )


def of(properties: tuple[Property, ...]) -> dict[str, tuple[str, object]]:
    found = {one.name: (one.signature, one.value) for one in properties}
    assert len(found) == len(properties)
    return found


def planned(stop_timeout: int = 10) -> ServicePlan:
    spec = ContainerSpec(image="bb:1", stop_timeout=stop_timeout)
    return serviceplan.plan_service(OWN, "child", spec, "/usr/bin/sysbox", (133, 134))


def runs(verb: str) -> tuple[str, object]:
    return "a(sasb)", [("/usr/bin/sysbox", ["/usr/bin/sysbox", verb, OWN], False)]


BOUNDS = {"MemoryMax": ("t", 512 << 20), "TasksMax": ("t", 64)}
GONE_AT_ITS_END = {"CollectMode": ("s", "inactive-or-failed"), "Slice": ("s", "sysbox.slice")}
SCOPE = names.scope_unit(OWN)
BEHIND_ITS_SCOPE = {
    "PartOf": ("as", [SCOPE]),
    "After": ("as", ["network.target", "dbus.socket", SCOPE]),
}


def test_the_transient_service_as_a_whole() -> None:
    """The time to stop is the monitor's own, and half a minute to record how the container ended."""
    assert of(serviceplan.transient(planned())) == {
        "Description": ("s", "sysbox container child"),
        "Type": ("s", "notify"),
        "NotifyAccess": ("s", "main"),
        "ExecStart": runs("_supervise"),
        "ExecStopPost": runs("_cleanup"),
        "KillMode": ("s", "mixed"),
        "TimeoutStartUSec": ("t", INFINITY),
        "TimeoutStopUSec": ("t", 40_000_000),
        "OOMPolicy": ("s", "continue"),
        "SuccessExitStatus": ("(aiai)", ([133, 134], [])),
        **GONE_AT_ITS_END,
        **BEHIND_ITS_SCOPE,
        **BOUNDS,
    }


def test_without_a_timeout_systemd_waits_too() -> None:
    assert of(serviceplan.transient(planned(-1)))["TimeoutStopUSec"] == ("t", INFINITY)
    assert "\nTimeoutStopSec=infinity\n" in serviceplan.unit_file(planned(-1))
    assert of(serviceplan.transient(planned(0)))["TimeoutStopUSec"] == ("t", 30_000_000)


def test_what_starts_it_once_more() -> None:
    assert of(serviceplan.starter(planned())) == {
        "Description": ("s", "Restart of sysbox container child"),
        "Type": ("s", "exec"),
        "ExecStart": runs("_again"),
        **GONE_AT_ITS_END,
        **BOUNDS,
    }
    assert of(serviceplan.restarter(planned())) == {
        "Description": ("s", "Restart of sysbox container child"),
        "Type": ("s", "oneshot"),
        "ExecStart": runs("restart"),
        **GONE_AT_ITS_END,
        **BOUNDS,
    }


def test_what_stands_between_the_scope_and_a_service_with_restarts() -> None:
    assert of(serviceplan.stopper(planned())) == {
        "Description": ("s", "Graceful stop of sysbox container child"),
        "Type": ("s", "oneshot"),
        "RemainAfterExit": ("b", True),
        "ExecStop": runs("_stop"),
        "TimeoutStopUSec": ("t", INFINITY),
        "IgnoreOnIsolate": ("b", True),
        **GONE_AT_ITS_END,
        **BEHIND_ITS_SCOPE,
        **BOUNDS,
    }


@pytest.mark.parametrize(
    ("policy", "retries", "lines"),
    [
        ("always", 0, ["StartLimitIntervalSec=1min", "StartLimitBurst=30", "Restart=always"]),
        ("unless-stopped", 0, ["StartLimitIntervalSec=1min", "StartLimitBurst=30", "Restart=always"]),
        ("on-failure", 0, ["StartLimitIntervalSec=1min", "StartLimitBurst=30", "Restart=on-failure"]),
        ("on-failure", 3, ["StartLimitIntervalSec=infinity", "StartLimitBurst=4", "Restart=on-failure"]),
        ("no", 0, ["StartLimitIntervalSec=1min", "StartLimitBurst=30", "Restart=no"]),
    ],
)  # fmt: skip
def test_the_restart_policy(policy: str, retries: int, lines: list[str]) -> None:
    """The first start is none of the retries."""
    spec = ContainerSpec(image="bb:1", restart=RestartPolicy(name=policy, retries=retries))
    plan = serviceplan.plan_service(OWN, "child", spec, "/usr/bin/sysbox")
    found = serviceplan.policy_settings(plan).splitlines()
    assert [line for line in found if "=" in line] == [*lines, "RestartSec=100ms"]


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/usr/bin/sysbox", '"/usr/bin/sysbox"'),
        ("/a b/100%/sysbox", '"/a b/100%%/sysbox"'),
        ("/$HOME/sysbox", '"/$$HOME/sysbox"'),
        ('/a"b/c\\d', '"/a\\"b/c\\\\d"'),
    ],
)
def test_systemd_expands_nothing_in_the_name_of_a_program(path: str, word: str) -> None:
    assert serviceplan.program_word(path) == word
