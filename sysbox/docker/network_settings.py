"""docker's NetworkSettings of a container."""

from __future__ import annotations

from sysbox.container import store
from sysbox.container.status import read_networks
from sysbox.docker.host_config import bindings
from sysbox.docker.shapes import NULL, Map, NullList, NullMap, Struct
from sysbox.host import read_text
from sysbox.netns.attachment import Attachment
from sysbox.netns.network import BUILTIN
from sysbox.netns.topology import network_of, split_subnet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


def network_settings(
    record: store.Record, status: store.Status, exposed: Iterable[str]
) -> dict[str, Any]:
    """docker's NetworkSettings; `exposed` are the ports (80/tcp) that the image or the container declares."""
    mode = record.spec.namespaces.network
    attachments, ports = read_networks(record)
    attached = _complete(record, attachments[0]) if attachments else Attachment(network=mode)
    bridged = bool(attachments)
    ends = _ends(attached)
    endpoint = record.id if bridged else ""
    own = bool(status.pid) and mode in BUILTIN  # else another container's namespace
    published = _published(ports)
    open_ports = {name: published.get(name, NullList()) for name in (*exposed, *published)}
    return Struct(
        {
            "Bridge": attached.bridge,
            "SandboxID": record.id if own else "",
            "HairpinMode": False,
            "LinkLocalIPv6Address": "",
            "LinkLocalIPv6PrefixLen": 0,
            "Ports": Map(open_ports if bridged else {}),
            "SandboxKey": f"/proc/{status.pid}/ns/net" if own else "",
            "SecondaryIPAddresses": NullList(),
            "SecondaryIPv6Addresses": NullList(),
            "EndpointID": endpoint,
            **ends,
            "Networks": Map({mode: _endpoint(mode, endpoint, ends)} if mode in BUILTIN else {}),
        }
    )


def _published(ports: Any) -> dict[str, Any]:
    return {
        key: [Struct({**one, "HostIp": one["HostIp"] or "0.0.0.0"}) for one in found]
        for key, found in bindings(ports).items()
    }


def _complete(record: store.Record, attached: Attachment) -> Attachment:
    """Fill in what an older version did not record, from the host's present configuration."""
    if attached.bridge:
        return attached
    network = network_of(record.spec.bridge, read_text("/proc/net/route"))
    prefix = split_subnet(network.subnet)[1]
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


def _endpoint(mode: str, endpoint: str, ends: dict[str, Any]) -> dict[str, Any]:
    """The container's end of one network."""
    return {
        "IPAMConfig": NULL,
        "Links": NullList(),
        "Aliases": NullList(),
        "NetworkID": BUILTIN[mode],
        "EndpointID": endpoint,
        **ends,
        "DriverOpts": NullMap(),
    }
