"""Convert limits to unit properties, and to writes of the few cgroup files that no property sets.

The cgroup version decides the properties' names: with v1 controllers those that systemd applies natively
there (CPUShares, MemoryLimit, BlockIO*), with v2 the new ones, the only ones that systemd 258 and later
know. A file that has a property is never written: systemd would revert it at the next daemon-reload.

Pure, but for looking up the sizes of huge pages.
"""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.spec import Limits
from sysbox.units.limits.properties import CgroupWrite, Property

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.host import HostFacts
    from sysbox.units.limits.disks import Disks

_NO_LIMITS = Limits()
_OF_DISKS = (
    "blkio_weight",
    "blkio_weight_device",
    "device_read_bps",
    "device_write_bps",
    "device_read_iops",
    "device_write_iops",
)
_KINDS = ("char-", "block-")


def plan_limits(
    limits: Limits, facts: HostFacts, disks: Disks
) -> tuple[tuple[Property, ...], tuple[CgroupWrite, ...]]:
    """The properties and the writes for the limits; both empty without a limit.

    `disks` are those that the limits name (disks.py). Raises SpecError that names the flag and the range, and
    Unsupported for a limit that this host lacks.
    """
    if limits == _NO_LIMITS:
        return (), ()
    from sysbox.units.limits import cpu, memory  # here: only a container with limits needs them

    properties: list[Property] = []
    writes: list[CgroupWrite] = []
    cpu.plan(limits, facts, properties, writes)
    memory.plan(limits, facts, properties, writes)
    if any(getattr(limits, field) for field in _OF_DISKS):
        from sysbox.units.limits import io

        io.plan(limits, facts, disks, properties, writes)
    if limits.net_cls is not None or limits.hugetlb:
        from sysbox.units.limits import rare

        rare.plan(limits, facts, writes)
    if limits.ip_allow or limits.ip_deny or limits.ip_accounting:
        from sysbox.units.limits import network

        network.plan(limits, facts, properties)
    return tuple(properties), tuple(writes)


def plan_devices(rules: tuple[tuple[str, str], ...] | None) -> tuple[Property, ...]:
    """DevicePolicy and DeviceAllow for (path or `char-GROUP`, access) rules; None means privileged.

    Raises SpecError for a rule that is not systemd's (systemd.resource-control(5)).
    """
    if rules is None:
        return (Property(name="DevicePolicy", signature="s", value="auto"),)
    allowed: dict[str, str] = {}
    for what, access in rules:
        if not what.startswith(("/dev/", *_KINDS)) or any(char <= " " for char in what):
            raise SpecError(
                f"device rule {what!r}: a path below /dev, or char-GROUP or block-GROUP"
            )
        if not access or not set(access) <= set("rwm"):
            raise SpecError(f"device rule {what!r}: access {access!r} must be made of r, w, m")
        # merged, since systemd keeps only the last rule for a device, where the kernel adds them up
        had = allowed.get(what, "")
        allowed[what] = had + "".join(one for one in access if one not in had)
    return (
        Property(name="DevicePolicy", signature="s", value="strict"),
        Property(name="DeviceAllow", signature="a(ss)", value=list(allowed.items())),
    )
