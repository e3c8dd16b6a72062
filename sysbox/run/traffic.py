"""The packets of a scope: whether they are filtered and counted as it says, and what was counted.

systemd does both: IPAddressAllow=, IPAddressDeny=, IPAccounting= (systemd.resource-control(5)).
"""

from __future__ import annotations

from sysbox import scope
from sysbox.base.errors import SysboxError, SystemdError
from sysbox.container.records import Traffic
from sysbox.run import packet_lists
from sysbox.units.bus import MANAGER, MANAGER_PATH, Bus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sysbox.container.records import Record
    from sysbox.netns.attachment import Attachment
    from sysbox.units.scopeplan import ScopePlan

_COUNTERS = ("IPIngressBytes", "IPIngressPackets", "IPEgressBytes", "IPEgressPackets")
_NO_DATA = (1 << 64) - 1


def begin(
    bus: Bus, record: Record, plan: ScopePlan, attached: tuple[Attachment, ...], cgroup: str
) -> Bus | None:
    """Before its command runs: make sure that its packets are filtered and counted as its scope says.

    Returns a connection that keeps the scope's unit, and with it what was counted, loaded after its end; None
    if nobody will ask, or the system bus cannot be reached. A supervising service keeps it loaded by itself.
    Raises Unsupported, KernelError.
    """
    packet_lists.follow(bus, record, attached, plan.properties, cgroup)
    supervised = any(one.name == "Before" for one in plan.properties)
    counted_ = any(one.name == "IPAccounting" and one.value for one in plan.properties)
    if supervised or record.spec.remove or not counted_:
        return None
    try:
        held = Bus.broker()  # PID 1 counts no references of its private peers
        held.call(MANAGER_PATH, MANAGER, "RefUnit", "s", (plan.unit,))
    except SystemdError:
        return None
    return held


def counted(units: Iterable[str]) -> dict[str, Traffic]:
    """What systemd has counted for units so far, without those of which it counts nothing.

    Of one that has ended too, while it is loaded.
    """
    found = {}
    try:
        with Bus.connect() as bus:
            for unit in units:
                kind = scope.INTERFACES[unit[unit.rfind(".") :]]
                values = scope.properties(bus, unit, kind, _COUNTERS)
                numbers = [values.get(name, _NO_DATA) for name in _COUNTERS]
                if _NO_DATA not in numbers:
                    received, received_packets, sent, sent_packets = numbers
                    found[unit] = Traffic(
                        received=received,
                        received_packets=received_packets,
                        sent=sent,
                        sent_packets=sent_packets,
                    )
    except SysboxError:
        pass  # ignoring: systemd cannot be asked, so what it has counted is unknown
    return found
