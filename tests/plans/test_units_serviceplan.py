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
