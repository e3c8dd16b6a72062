"""docker's NetworkSettings of a container."""

from __future__ import annotations

from sysbox.container import store
from sysbox.container.status import read_network
from sysbox.docker.host_config import bindings
from sysbox.docker.shapes import NULL, Map, NullList, NullMap, Struct
from sysbox.host import read_text
from sysbox.netns.topology import network_of, split_subnet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from sysbox.netns.topology import Network

# the networks that there are, with ids that never change: each the SHA-256 of "sysbox network NAME"
NETWORKS = {
    "bridge": "f78581549ff04ede887775595ce23e8485c1585bfb00ce0cdb110fbc4806642c",
    "host": "f8aa181d19e70fda0598d9276caed61d9a55e075c8b4d1b4b9db241e4231e1a0",
    "none": "d04438e786fba5cfd8612950dd44ab4a0f245604b2fb0cd31fcd472837dae46a",
}


def network_settings(
    record: store.Record, status: store.Status, exposed: Iterable[str]
) -> dict[str, Any]:
    """Of one container; `exposed` are the ports that its image or it declares, as in 80/tcp."""
    network = network_of(record.spec.bridge, read_text("/proc/net/route"))
    mode = record.spec.namespaces.network
    address, mac, ports = read_network(record)
    bridged = mode == "bridge" and bool(address)
    ends = _ends(network, address, mac, bridged=bridged)
    endpoint = record.id if bridged else ""
    own = bool(status.pid) and mode in NETWORKS  # else the namespace is another's
    published = _published(ports)
    open_ports = {name: published.get(name, NullList()) for name in (*exposed, *published)}
    return Struct(
        {
            "Bridge": network.bridge if bridged else "",
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
            "Networks": Map({mode: _endpoint(mode, endpoint, ends)} if mode in NETWORKS else {}),
        }
    )


def _published(ports: Any) -> dict[str, Any]:
    return {
        key: [Struct({**one, "HostIp": one["HostIp"] or "0.0.0.0"}) for one in found]
        for key, found in bindings(ports).items()
    }


def _ends(network: Network, address: str, mac: str, *, bridged: bool) -> dict[str, Any]:
    return {
        "Gateway": network.gateway if bridged else "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "IPAddress": address,
        "IPPrefixLen": split_subnet(network.subnet)[1] if bridged else 0,
        "IPv6Gateway": "",
        "MacAddress": mac,
    }


def _endpoint(mode: str, endpoint: str, ends: dict[str, Any]) -> dict[str, Any]:
    """The container's end of one network."""
    return {
        "IPAMConfig": NULL,
        "Links": NullList(),
        "Aliases": NullList(),
        "NetworkID": NETWORKS[mode],
        "EndpointID": endpoint,
        **ends,
        "DriverOpts": NullMap(),
    }
