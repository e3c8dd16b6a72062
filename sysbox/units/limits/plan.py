"""Limits as asked → unit properties and the few cgroup files that no property reaches.

Names are chosen by the cgroup hierarchy: with v1 controllers the names that systemd applies natively
there (CPUShares, MemoryLimit, BlockIO*), with v2 the new ones, which is all that systemd 258 and
later know. A file that has a property is never written: systemd would revert it at the next
daemon-reload.

Pure but for a look at the disks and huge pages that limits name.
"""

from __future__ import annotations

from sysbox.units.limits import cpu, memory
from sysbox.units.limits.properties import CgroupWrite, Property

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.host import HostFacts
    from sysbox.spec import Limits

_OF_DISKS = (
    "blkio_weight",
    "blkio_weight_device",
    "device_read_bps",
    "device_write_bps",
    "device_read_iops",
    "device_write_iops",
)


def plan(limits: Limits, facts: HostFacts) -> tuple[tuple[Property, ...], tuple[CgroupWrite, ...]]:
    """See `properties.plan_limits`."""
    properties: list[Property] = []
    writes: list[CgroupWrite] = []
    cpu.plan(limits, facts, properties, writes)
    memory.plan(limits, facts, properties, writes)
    if any(getattr(limits, field) for field in _OF_DISKS):
        from sysbox.units.limits import io

        io.plan(limits, facts, properties, writes)
    if limits.net_cls is not None or limits.hugetlb:
        from sysbox.units.limits import rare

        rare.plan(limits, facts, writes)
    return tuple(properties), tuple(writes)
