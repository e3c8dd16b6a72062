"""Plan the scope of one container: its name, its slice, every property it starts with. Pure."""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.base.frozen import Frozen
from sysbox.units import names
from sysbox.units.limits.plan import plan_devices
from sysbox.units.limits.properties import INFINITY, CgroupWrite, Property

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.host import HostFacts
    from sysbox.spec import ContainerSpec
    from sysbox.units.limits.disks import Disks

_DESCRIPTION_MAX = 200  # characters
_SECOND = 1_000_000  # microseconds
_KEEPER = "system-sysbox.slice"
_STOP_NOW = 1000  # microseconds: systemd takes 0 for "never"
_MEMSW = "memory.memsw.limit_in_bytes"
_FLAGS = {  # property that limits a device -> its flag
    "BlockIOReadBandwidth": "--device-read-bps",
    "BlockIOWriteBandwidth": "--device-write-bps",
    "IOReadBandwidthMax": "--device-read-bps",
    "IOWriteBandwidthMax": "--device-write-bps",
    "IOReadIOPSMax": "--device-read-iops",
    "IOWriteIOPSMax": "--device-write-iops",
    "IODeviceWeight": "--blkio-weight-device",
}


class KeeperPlan(Frozen):
    """An empty slice beside the scopes that keeps controllers enabled in their parent.

    Without it systemd enables them in every sibling unit when the first scope starts, and disables them
    when the last one ends, which is most of what starting and stopping a lone container costs.
    """

    unit: str
    directory: str  # exists while the slice is active
    properties: tuple[Property, ...]


class ScopePlan(Frozen):
    """What `scope.begin` sends to PID 1, and `tree.apply_writes` writes."""

    unit: str
    slice: str
    description: str
    properties: tuple[Property, ...] = ()
    writes: tuple[CgroupWrite, ...] = ()
    keeper: KeeperPlan | None = None


def plan_scope(
    container: str,
    spec: ContainerSpec,
    *,
    properties: tuple[Property, ...],
    writes: tuple[CgroupWrite, ...],
    devices: tuple[tuple[str, str], ...] | None,
    facts: HostFacts,
    disks: Disks,
    service: str = "",
    oom_policy: str = "kill",
    tuned: dict[str, str] | None = None,
) -> ScopePlan:
    """The scope for `container` (64 hex). `properties` and `writes` come from plan_limits, `devices` are the
    rules for plan_devices, `disks` those that its limits and properties name, `service` is the unit that
    supervises the container ("": foreground).

    `--property` comes last, so that it overrides a flag; what others have `tuned` since overrides both
    (see dropins.py). Raises SpecError for a bad slice or property.
    """
    own = (
        *_lifetime(spec, oom_policy),
        *_ordering(service),
        *_accounting(facts),
        *plan_devices(devices),
    )
    wanted = asked_properties(properties, spec.properties, facts, disks)
    writes = beside_properties(writes, spec.properties, wanted)
    if tuned:
        wanted, writes = tune(wanted, writes, tuned, facts)
    slice_unit = names.check_slice(spec.slice)
    return ScopePlan(
        unit=names.scope_unit(container),
        slice=slice_unit,
        description=describe(spec.name or container[:12], spec.image),
        properties=(*own, *wanted),
        writes=writes,
        keeper=_keeper(facts) if slice_unit == "system.slice" else None,
    )


def asked_properties(
    limits: tuple[Property, ...],
    texts: tuple[str, ...],
    facts: HostFacts,
    disks: Disks,
) -> tuple[Property, ...]:
    """The properties of plan_limits and of `--property`, with devices as whole disks. Raises SpecError."""
    if texts:
        from sysbox.units.limits.allowlist import parse_property  # here: only --property needs it

        limits += tuple(parse_property(text, facts) for text in texts)
    return tuple(_on_disks(one, disks) for one in limits)


def beside_properties(
    writes: tuple[CgroupWrite, ...], texts: tuple[str, ...], asked: tuple[Property, ...]
) -> tuple[CgroupWrite, ...]:
    """The writes of plan_limits where `texts` of `--property` override flags; `asked` is asked_properties."""
    if not texts:
        return writes
    from sysbox.units.limits.dropins import memory_in  # here: only --property needs it

    return _beside(memory_in(asked), writes)


def tune(
    wanted: tuple[Property, ...],
    writes: tuple[CgroupWrite, ...],
    tuned: dict[str, str],
    facts: HostFacts,
) -> tuple[tuple[Property, ...], tuple[CgroupWrite, ...]]:
    """Override what is wanted by what others set, `tuned`. Properties unknown to this host are left out."""
    from sysbox.units.limits import dropins  # here: only a container that was tuned needs it

    writes = _beside(dropins.memory_of(tuned, facts), writes)
    return dropins.overlay(wanted, tuned, facts), writes


def _beside(memory: int, writes: tuple[CgroupWrite, ...]) -> tuple[CgroupWrite, ...]:
    """The writes beside this limit of memory, bytes: the kernel refuses a lower one of memory and swap."""
    return tuple(
        one.replace(value=str(max(int(one.value), memory))) if one.file == _MEMSW else one
        for one in writes
        if one.file != _MEMSW or memory != INFINITY
    )


def _on_disks(one: Property, disks: Disks) -> Property:
    """The property with each device replaced by its whole disk, which the kernel can limit."""
    if one.signature != "a(st)":
        return one
    from sysbox.units.limits.disks import find  # which few containers need

    flag = _FLAGS.get(one.name, f"--property {one.name}")
    return one.replace(value=[(find(disks, path, flag).node, value) for path, value in one.value])


def describe(name: str, image: str) -> str:
    """One printable line for `systemctl status`; a newline would end the setting in its file."""
    text = f"sysbox container {name} ({image})"
    line = "".join(char if char.isprintable() else "?" for char in text)
    if len(line) > _DESCRIPTION_MAX:
        line = line[: _DESCRIPTION_MAX - 3] + "..."
    return line


def _lifetime(spec: ContainerSpec, oom_policy: str) -> tuple[Property, ...]:
    timeout = INFINITY if spec.stop_timeout < 0 else spec.stop_timeout * _SECOND or _STOP_NOW
    if oom_policy not in ("continue", "stop", "kill"):
        raise SpecError(f"OOM policy {oom_policy!r}: must be continue, stop or kill")
    # a failed scope stays loaded, so that `systemctl status` shows why; not with --rm
    collect = "inactive-or-failed" if spec.remove else "inactive"
    return (
        Property(name="Delegate", signature="b", value=True),
        Property(name="CollectMode", signature="s", value=collect),
        Property(name="TimeoutStopUSec", signature="t", value=timeout),
        # a delegated unit's default is "continue"; half an application is worse than none
        Property(name="OOMPolicy", signature="s", value=oom_policy),
    )


def _ordering(service: str) -> tuple[Property, ...]:
    """Order the scope's stop at shutdown: after its supervising service, which ends the payload gracefully.

    The service's own dependencies on the scope are in serviceplan.py.
    """
    ordering = [
        Property(name="DefaultDependencies", signature="b", value=True),
        Property(name="After", signature="as", value=["network.target", "dbus.socket"]),
    ]
    if not service:
        # SIGCONT has no effect: the supervisor learns of the stop job and stops the container
        ordering.append(Property(name="KillSignal", signature="i", value=18))
    else:
        ordering.append(Property(name="Before", signature="as", value=[service]))
    return tuple(ordering)


def _accounting(facts: HostFacts) -> tuple[Property, ...]:
    """Counters for `stats`; not IOAccounting, with which systemd ignores every BlockIO* setting."""
    wanted = ["CPUAccounting", "MemoryAccounting", "TasksAccounting"]
    if facts.cgroup_mode == "v1":
        wanted.append("BlockIOAccounting")
    return tuple(Property(name=name, signature="b", value=True) for name in wanted)


def _keeper(facts: HostFacts) -> KeeperPlan:
    # setting a weight, even to its default, makes systemd enable the controller
    weights = {
        "v1": ("CPUShares", 1024, "BlockIOWeight", 500),
        "v2": ("CPUWeight", 100, "IOWeight", 100),
    }
    cpu, cpu_weight, io, io_weight = weights[facts.cgroup_mode]
    return KeeperPlan(
        unit=_KEEPER,
        directory=f"{facts.controllers.get('name=systemd', '')}/system.slice/{_KEEPER}",
        properties=(
            Property(name="Description", signature="s", value="Controllers of sysbox containers"),
            Property(name=cpu, signature="t", value=cpu_weight),
            Property(name=io, signature="t", value=io_weight),
            *_accounting(facts),
        ),
    )
