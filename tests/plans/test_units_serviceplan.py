"""The unit file of a container with a restart policy."""

from __future__ import annotations

from sysbox.spec import ContainerSpec, RestartPolicy
from sysbox.units import names, serviceplan

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
TimeoutStopSec=15s
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
