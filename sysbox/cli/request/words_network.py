"""From a Network to the flags of `network create` that define it. Pure."""

from __future__ import annotations

from sysbox.netns import network, subnets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sysbox.netns.network import Network
    from sysbox.units.quadlet.writer import Flag


def network_flags(one: Network) -> Iterator[Flag]:
    """The flags, without the name. A subnet that sysbox has chosen is among them."""
    if one.driver != network.BRIDGE:
        yield "--driver", "none" if one.driver == network.NULL else one.driver
    for _, subnet, gateway, ip_range in network.ends(one):
        yield "--subnet", subnet
        if gateway != subnets.first(subnet):
            yield "--gateway", gateway
        if ip_range:
            yield "--ip-range", ip_range
    if one.subnet6:
        yield "--ipv6", None
    if one.internal:
        yield "--internal", None
    if one.driver == network.BRIDGE and not one.dns:
        yield "--disable-dns", None
    for server in one.dns_servers:
        yield "--dns", server
    link = one.bridge if one.driver == network.BRIDGE else one.parent
    if link not in (network.bridge_name(one.id), *_of_options(one)):
        yield "--interface-name", link
    for route in one.routes:
        metric = f",{route.metric}" if route.metric else ""
        yield "--route", f"{route.destination},{route.gateway}{metric}"
    for name, value in one.options.items():
        yield "--opt", f"{name}={value}"
    for name, value in one.labels.items():
        yield "--label", f"{name}={value}"


def _of_options(one: Network) -> tuple[str, ...]:
    """The links that options name, and none."""
    return "", *one.options.values()
