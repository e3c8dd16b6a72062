"""--ip-allow and --ip-deny at a container's own links, where systemd's programs do not see all its packets.

The programs see what the sockets of the scope send and receive, if systemd can attach them. A container with
NET_RAW also sends whole frames (packet(7)), which they do not see, and without the unified hierarchy or BPF
there are none. The lists are the properties of the scope in any case, and those of the slices above it.
"""

from __future__ import annotations

from sysbox import scope
from sysbox.base.errors import Unsupported
from sysbox.container import store
from sysbox.host import probe
from sysbox.linux import capability
from sysbox.netns import list_filter
from sysbox.netns.list_filter import Lists
from sysbox.netns.network import BRIDGE
from sysbox.security import capabilities
from sysbox.units.bus import Bus
from sysbox.units.cgroup import packets
from sysbox.units.limits.network import ADVICE, OWN_LINKS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sysbox.container.records import Record
    from sysbox.host import HostFacts
    from sysbox.netns.attachment import Attachment
    from sysbox.units.limits.properties import Property

_EVERY_CAPABILITY = (1 << 64) - 1


def follow(
    bus: Bus,
    record: Record,
    attached: tuple[Attachment, ...],
    properties: Iterable[Property],
    cgroup: str,
) -> None:
    """After properties of its scope were set: have them act on its packets.

    Raises Unsupported where neither systemd nor a filter of its links can, KernelError, SystemdError.
    """
    properties = tuple(properties)
    filtered = all(one.driver == BRIDGE for one in attached)
    at_links = filtered and record.spec.namespaces.network in OWN_LINKS
    packets.check(properties, cgroup, probe(), at_links=at_links)
    if any(one.name in packets.LISTS for one in properties):
        apply(bus, record, attached, cgroup)


def apply(bus: Bus, record: Record, attached: tuple[Attachment, ...], cgroup: str) -> None:
    """Have the filters of these links apply the lists that its scope has now. Raises as `follow`."""
    below = [one for one in attached if one.driver != BRIDGE]
    if not below and not any(one.host_link for one in attached):
        return
    found = _lists(bus, cgroup)
    if below and found.deny and (lack := packets.lack(cgroup, probe())):
        one = below[0]
        raise Unsupported(
            f"--ip-deny: {lack}, and the links of {one.network}, of the driver {one.driver}, have no filter",
            hint=ADVICE,
        )
    if found.deny and not reason(record, cgroup, probe()):
        found = Lists([], [])
    list_filter.install(attached, found)


def renew(record: Record) -> None:
    """`apply` to a container that may be running, after others have set properties. Raises as `follow`."""
    runtime = store.runtime(record.id)
    if runtime is None or not runtime.started_ns or not runtime.alive():
        return
    with Bus.connect() as bus:
        apply(bus, record, runtime.attachments(), runtime.cgroup)


def reason(record: Record, cgroup: str, facts: HostFacts) -> str:
    """Why the lists of a container are applied at its links too; "" if systemd's programs see everything."""
    lack = packets.lack(cgroup, facts)
    if lack:
        return lack
    granted = capabilities.resolve(record.spec.security, _EVERY_CAPABILITY)
    raw = granted & capability.mask(("NET_RAW",))
    return "it has NET_RAW, and so can send whole frames" if raw else ""


def _lists(bus: Bus, cgroup: str) -> Lists:
    """The lists of its scope and of the slices above, which systemd adds up."""
    allow, deny = packets.LISTS
    found = Lists([], [])
    for unit in filter(None, cgroup.split("/")):
        kind = scope.INTERFACES.get(unit[unit.rfind(".") :])
        if kind is not None:
            values = scope.properties(bus, unit, kind, packets.LISTS)
            found.allow += values.get(allow) or []
            found.deny += values.get(deny) or []
    return found
