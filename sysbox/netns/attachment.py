"""A container on a network. A module of its own: every command that reads a run loads it."""

from __future__ import annotations

from sysbox.base.frozen import Frozen
from sysbox.spec import Route


class Attachment(Frozen):
    """A container's connection to one network: in its plan, and with addresses in its runtime.

    In a plan, an address is one that was asked for; a start leases the others.
    """

    network: str  # the network's name
    bridge: str = ""  # name of the network's bridge; "" with another driver
    interface: str = "eth0"  # name of the container's link
    host_link: str = ""  # name of the host's end of a pair; "" where there is none
    mac: str = ""  # of the container's end, "02:..."
    mtu: int = 0  # bytes; 0 is that of the parent
    subnet: str = ""  # "10.90.0.0/16"
    address: str = ""  # IPv4, leased at the start; "" without one
    prefix: int = 0  # bits of the subnet's mask
    gateway: str = ""
    address6: str = ""  # IPv6
    prefix6: int = 0
    gateway6: str = ""
    # the network's policy: see netns/network.py. True is what the rules have always done
    isolate: bool = True
    host_access: bool = True
    icc: bool = True
    internal: bool = False
    masquerade: bool = True
    gateway_mode_ipv6: str = "nat"
    host_binding: str = ""
    nic: str = ""
    network_id: str = (
        ""  # "" is the network `bridge`, also of a run that an older version has begun
    )
    subnet6: str = ""  # "fd00::/64"; "" without IPv6
    ip_range: str = ""
    ip_range6: str = ""
    aliases: tuple[str, ...] = ()  # names of the container on this network, besides its own
    dns: bool = False  # the network's resolver answers on its gateways
    dns_servers: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ()
    driver: str = "bridge"
    parent: str = ""  # as in a Network
    mode: str = ""
    vlan: int = 0
