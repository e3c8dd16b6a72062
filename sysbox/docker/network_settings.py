"""docker's NetworkSettings of a container."""

from __future__ import annotations

from sysbox.base.errors import SysboxError
from sysbox.container import store
from sysbox.container.status import read_networks
from sysbox.docker.host_config import bindings
from sysbox.docker.shapes import NULL, Map, NullList, NullMap, Strings, Struct, listed
from sysbox.host import read_text
from sysbox.netns import subnets
from sysbox.netns.attachment import Attachment
from sysbox.netns.network import BUILTIN
from sysbox.netns.topology import network_of
from sysbox.spec import Endpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


def network_settings(
    record: store.Record, status: store.Status, exposed: Iterable[str]
) -> dict[str, Any]:
    """docker's NetworkSettings; `exposed` are the ports (80/tcp) that the image or the container declares.

    The fields beside `Networks` are those of the network `bridge`, if the container is on it.
    """
    mode = record.spec.namespaces.network
    attachments, ports = read_networks(record)
    attachments = tuple(_complete(record, one) for one in attachments)
    default = next((one for one in attachments if not one.network_id), None)
    bridged = bool(attachments)
    own = bool(status.pid) and mode in BUILTIN  # else another container's namespace
    published = _published(ports)
    open_ports = {name: published.get(name, NullList()) for name in (*exposed, *published)}
    return Struct(
        {
            "Bridge": attachments[0].bridge if attachments else "",
            "SandboxID": record.id if own else "",
            "HairpinMode": False,
            "LinkLocalIPv6Address": "",
            "LinkLocalIPv6PrefixLen": 0,
            "Ports": Map(open_ports if bridged else {}),
            "SandboxKey": f"/proc/{status.pid}/ns/net" if own else "",
            "SecondaryIPAddresses": NullList(),
            "SecondaryIPv6Addresses": NullList(),
            "EndpointID": record.id if default else "",
            **_ends(default or Attachment(network="")),
            "Networks": Map(_networks(record, attachments)),
        }
    )


def _networks(record: store.Record, attachments: tuple[Attachment, ...]) -> dict[str, Any]:
    """Each of its networks, with its ends while it runs."""
    mode, asked = record.spec.namespaces.network, record.spec.networks
    if record.spec.pod and not asked and mode != "bridge":
        return {one.network: _endpoint(record, one, None) for one in attachments}
    if mode != "bridge":
        return {mode: _endpoint(record, Attachment(network=mode), None)} if mode in BUILTIN else {}
    ends = {one.network: one for one in attachments}
    endpoints = {one.network: one for one in asked or (Endpoint(network=mode),)}
    return {
        name: _endpoint(record, ends.get(name, Attachment(network=name)), endpoints.get(name))
        for name in dict.fromkeys((*endpoints, *ends))
    }


def _published(ports: Any) -> dict[str, Any]:
    return {
        key: [Struct({**one, "HostIp": one["HostIp"] or "0.0.0.0"}) for one in found]
        for key, found in bindings(ports).items()
    }


def _complete(record: store.Record, attached: Attachment) -> Attachment:
    """Fill in what an older version did not record, from the host's present configuration."""
    if attached.bridge or attached.network_id:
        return attached
    network = network_of(record.spec.bridge, read_text("/proc/net/route"))
    prefix = subnets.split(network.subnet)[1]
    return attached.replace(bridge=network.bridge, gateway=network.gateway, prefix=prefix)


def _ends(attached: Attachment) -> dict[str, Any]:
    return {
        "Gateway": attached.gateway,
        "GlobalIPv6Address": attached.address6,
        "GlobalIPv6PrefixLen": attached.prefix6,
        "IPAddress": attached.address,
        "IPPrefixLen": attached.prefix,
        "IPv6Gateway": attached.gateway6,
        "MacAddress": attached.mac,
    }


def _endpoint(record: store.Record, attached: Attachment, asked: Endpoint | None) -> dict[str, Any]:
    """The container's end of one network."""
    static = Strings()
    if asked and asked.address:
        static["IPv4Address"] = asked.address
    if asked and asked.address6:
        static["IPv6Address"] = asked.address6
    aliases = asked.aliases if asked else ()
    running = bool(attached.address)
    return Struct(
        {
            "IPAMConfig": static or NULL,
            "Links": NullList(),
            # docker adds the short id to those of a user-defined network
            "Aliases": listed(
                (*aliases, record.id[:12]) if attached.network not in BUILTIN else ()
            ),
            "NetworkID": _id_of(attached),
            "EndpointID": record.id if running else "",
            **_ends(attached),
            "DriverOpts": NullMap(),
        }
    )


def _id_of(attached: Attachment) -> str:
    """The network's id; "" for one that was removed."""
    if attached.network in BUILTIN:
        return BUILTIN[attached.network]
    if attached.network_id:
        return attached.network_id
    from sysbox.netns import networks  # only for a container that does not run

    try:
        return networks.load(attached.network).id
    except SysboxError:
        return ""
