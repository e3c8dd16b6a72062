"""A container on a network. A module of its own: every command that reads a run loads it."""

from __future__ import annotations

from sysbox.base.frozen import Frozen


class Attachment(Frozen):
    """A container's connection to one network: in its plan, and with addresses in its runtime."""

    network: str  # the network's name
    bridge: str = ""  # name of the network's bridge
    interface: str = "eth0"  # name of the container's end of the veth pair
    host_link: str = ""  # name of the host's end
    mac: str = ""  # of the container's end, "02:..."
    mtu: int = 0  # bytes
    subnet: str = ""  # "10.90.0.0/16"
    address: str = ""  # IPv4, leased at the start; "" without one
    prefix: int = 0  # bits of the subnet's mask
    gateway: str = ""
    address6: str = ""  # IPv6
    prefix6: int = 0
    gateway6: str = ""
    isolate: bool = False
    host_access: bool = True
