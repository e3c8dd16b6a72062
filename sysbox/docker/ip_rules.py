"""With whom a container may exchange packets, by systemd's names: as it is, or will be."""

from __future__ import annotations

from sysbox.base.errors import SysboxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.container.records import Traffic
    from sysbox.container.store import Record

_LISTS = ("IPAddressAllow", "IPAddressDeny")
_COUNTED = "IPAccounting"


def ip_rules(properties: dict[str, Any]) -> dict[str, Any]:
    """The entries of inspect, from properties by their names on the bus."""
    found: dict[str, Any] = {name: _texts(properties.get(name)) for name in _LISTS}
    return {**found, _COUNTED: bool(properties.get(_COUNTED))}


def _texts(networks: list[Any] | None) -> list[str]:
    if not networks:
        return []
    from sysbox.parse.addresses import network_text, reduce  # which few containers need

    return [network_text(one) for one in reduce(networks)]


def by_name(traffic: Traffic) -> dict[str, int]:
    """What was counted, under systemd's names; -1 is unknown."""
    return {
        "IPIngressBytes": traffic.received,
        "IPIngressPackets": traffic.received_packets,
        "IPEgressBytes": traffic.sent,
        "IPEgressPackets": traffic.sent_packets,
    }


def at_next_start(record: Record) -> dict[str, Any]:
    """The same of a container that does not run."""
    limits, texts = record.spec.limits, (*record.spec.properties, *record.tuned)
    if not (
        limits.ip_allow or limits.ip_deny or limits.ip_accounting
        or any(text.startswith((_COUNTED, *_LISTS)) for text in texts)
    ):  # fmt: skip
        return ip_rules({})
    from sysbox.host import probe  # which few containers need
    from sysbox.lifecycle import update_plan
    from sysbox.units.cgroup.blockdev import disks_of

    facts = probe()
    try:
        disks = disks_of(record.spec, facts)
        planned, _ = update_plan.wanted(record.spec, record.tuned, facts, disks)
    except SysboxError:
        return ip_rules({})  # ignoring: the next start reports what is wrong
    return ip_rules({name: one.value for name, one in planned.items()})
