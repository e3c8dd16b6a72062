"""The slice of a pod: its limits are the slice's properties, so they hold for all containers together.

The slice is there from `pod create` to `pod rm`, and what `systemctl set-property` changes stays meanwhile.
systemd forgets it at a stop of the slice and at a reboot; the next start of the pod makes it again.
"""

from __future__ import annotations

from sysbox import scope
from sysbox.base.errors import SystemdError, Unsupported
from sysbox.host import exists, probe
from sysbox.units import names, ownslice, scopeplan
from sysbox.units.bus import SYSTEMD, Bus
from sysbox.units.limits.plan import plan_limits
from sysbox.units.limits.properties import Property

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.pods import Pod
    from sysbox.host import HostFacts
    from sysbox.spec import ContainerSpec

PARENT = "sysbox.slice"
_EXISTS = f"{SYSTEMD}.UnitExists"
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.")


def unit_of(name: str, parent: str = PARENT) -> str:
    """The slice of a pod below another slice: sysbox-pod-web.slice. Raises SpecError.

    "-" separates a slice from its parent (systemd.slice(5)): one in a name is escaped as systemd-escape(1)
    does, or a pod web-1 would be below the pod web.
    """
    above = names.check_slice(parent, "--cgroup-parent").removesuffix(".slice")
    word = "".join(one if one in _PLAIN else f"\\x{ord(one):02x}" for one in name)
    return names.check_slice(f"{'' if above == '-' else above + '-'}pod-{word}.slice", "--name")


def parent_of(unit: str, name: str) -> str:
    """The slice that the slice of a pod of this name is below: the inverse of `unit_of`."""
    above = unit.removesuffix(unit_of(name, "-.slice"))
    return f"{above.removesuffix('-') or '-'}.slice"


def plan(spec: ContainerSpec, facts: HostFacts) -> tuple[Property, ...]:
    """The properties for the limits of a pod. Raises SpecError, Unsupported for one without."""
    from sysbox.units.cgroup import blockdev

    disks = blockdev.disks_of(spec, facts)
    properties, writes = plan_limits(spec.limits, facts, disks)
    for one in writes:
        if not one.optional:
            raise Unsupported(
                f"{one.controller}: a limit by {one.file} is that of a container, not of a pod",
                hint="give it to the containers of the pod",
            )
    return scopeplan.asked_properties(properties, spec.properties, facts, disks)


def ensure(pod: Pod) -> None:
    """Make the slice, unless it is there. Raises SpecError, SystemdError."""
    facts = probe()
    if exists(f"{facts.controllers.get('name=systemd', '')}/{names.slice_path(pod.slice)}"):
        return
    wanted = plan(pod.spec, facts)
    properties = (
        Property(name="Description", signature="s", value=f"sysbox pod {pod.name}"),
        Property(name="CPUAccounting", signature="b", value=True),
        Property(name="MemoryAccounting", signature="b", value=True),
        Property(name="TasksAccounting", signature="b", value=True),
        *wanted,
    )
    ownslice.ensure(facts)
    with Bus.connect() as bus:
        try:
            scope.start_service(bus, pod.slice, properties).wait()
        except SystemdError as error:
            if error.dbus_name != _EXISTS:
                raise
            # another process was faster, or a unit below it has had systemd make it without these
            if wanted:
                scope.set_properties(bus, pod.slice, wanted)


def stop(unit: str) -> None:
    """Stop the slice and what is in it; none is success. Raises SystemdError."""
    with Bus.connect() as bus:
        scope.stop(bus, unit)
        scope.reset_failed(bus, unit)
