"""A network in docker's `inspect` shape, and in the lines of `network ls`."""

from __future__ import annotations

import time

from sysbox.base.errors import SysboxError
from sysbox.container import store
from sysbox.container.names import taken_names
from sysbox.docker.shapes import Map, NullList, NullMap, Strings, Struct
from sysbox.netns import host_firewall
from sysbox.netns.network import BELOW, BRIDGE, BUILTIN, NULL, Network, ends
from sysbox.run import resolver_units

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def describe(network: Network) -> dict[str, Any]:
    """What docker shows of a network, every key of API 1.41; beside them DNS, failures and routes."""
    bridged, linked = network.driver == BRIDGE, network.driver in (BRIDGE, *BELOW)
    return Struct(
        {
            "Name": network.name,
            "Id": network.id,
            "Created": moment(network),
            "Scope": "local",
            "Driver": network.driver,
            "EnableIPv6": bool(network.subnet6),
            "IPAM": Struct(
                {
                    "Driver": "default",
                    "Options": NullMap(),
                    "Config": _ipam(network) if linked else NullList(),
                }
            ),
            "Internal": network.internal,
            "Attachable": False,
            "Ingress": False,
            "ConfigFrom": Struct({"Network": ""}),
            "ConfigOnly": False,
            "Containers": Map(_containers(network)),
            "Options": Strings(_options(network)),
            "Labels": Strings(network.labels),
            "DNSEnabled": network.dns,
            "DNSFailure": _failure(network),
            "FirewallFailure": host_firewall.failure(network.bridge) if bridged else "",
            "Routes": [
                Struct(
                    {"Destination": one.destination, "Gateway": one.gateway, "Metric": one.metric}
                )
                for one in network.routes
            ],
        }
    )


def _failure(network: Network) -> str:
    """What is wrong with the resolver of a network that has containers, or ""."""
    if not network.dns:
        return ""
    try:
        return resolver_units.failure(network.name)
    except SysboxError as error:
        return error.message


def moment(network: Network) -> str:
    """When it was made, as docker writes it."""
    seconds, rest = divmod(network.created_ns, 1_000_000_000)
    return time.strftime(f"%Y-%m-%dT%H:%M:%S.{rest:09}Z", time.gmtime(seconds))


def _ipam(network: Network) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for _, subnet, gateway, ip_range in ends(network):
        one = {"Subnet": subnet, "Gateway": gateway}
        if ip_range:
            one["IPRange"] = ip_range
        found.append(Struct(one))
    return found


def _options(network: Network) -> dict[str, str]:
    """The options as given, and the link of the host that was chosen: the bridge, or the parent."""
    if network.driver == BRIDGE:
        return {**network.options, "com.docker.network.bridge.name": network.bridge}
    return {**network.options, "parent": network.parent} if network.driver in BELOW else {}


def _containers(network: Network) -> dict[str, dict[str, Any]]:
    """The running containers on it, by id."""
    found: dict[str, dict[str, Any]] = {}
    network_id = "" if network.id == BUILTIN["bridge"] else network.id
    for container_id in taken_names().values() if network.driver in (BRIDGE, *BELOW) else ():
        try:
            running = store.runtime(container_id)
            if running is None or not running.alive():
                continue
            name = store.load(container_id).name
        except SysboxError:
            continue  # it is just being removed, or its record is damaged
        for one in running.attachments():
            if one.network_id != network_id:
                continue
            found[container_id] = Struct(
                {
                    "Name": name,
                    "EndpointID": container_id,
                    "MacAddress": one.mac,
                    "IPv4Address": f"{one.address}/{one.prefix}" if one.address else "",
                    "IPv6Address": f"{one.address6}/{one.prefix6}" if one.address6 else "",
                }
            )
    return found


def row(network: Network) -> dict[str, Any]:
    """One line of the listing, under docker's keys."""
    labels = network.labels
    return {
        "CreatedAt": moment(network),
        "Driver": network.driver,
        "ID": network.id,
        "IPv4": "false" if network.driver == NULL else "true",
        "IPv6": "true" if network.subnet6 else "false",
        "Internal": "true" if network.internal else "false",
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        "Label": lambda key: labels.get(key, ""),
        "Name": network.name,
        "Scope": "local",
    }
