"""A network as it was defined: its name, subnets, policy, options and labels. Pure.

`networks.py` keeps the definitions; the network `bridge` has none, it is made from sysbox.conf.
"""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.base.frozen import Frozen
from sysbox.container.identity import is_id
from sysbox.netns import subnets
from sysbox.spec import Route

# the networks that need no definition, with ids that never change: the SHA-256 of "sysbox network NAME"
BUILTIN = {
    "bridge": "f78581549ff04ede887775595ce23e8485c1585bfb00ce0cdb110fbc4806642c",
    "host": "f8aa181d19e70fda0598d9276caed61d9a55e075c8b4d1b4b9db241e4231e1a0",
    "none": "d04438e786fba5cfd8612950dd44ab4a0f245604b2fb0cd31fcd472837dae46a",
}
BRIDGE, MACVLAN, IPVLAN, NULL = DRIVERS = ("bridge", "macvlan", "ipvlan", "null")
BELOW = (MACVLAN, IPVLAN)  # whose links inside are below a link of the host, their parent
# the first of each is the default
MODES = {MACVLAN: ("bridge", "private", "vepa", "passthru"), IPVLAN: ("l2", "l3", "l3s")}
ROUTED = ("l3", "l3s")  # modes without neighbours: nothing is asked for the address of a gateway
GATEWAY_MODES = ("nat", "routed")
MTU = (68, 65535)  # bytes: the least of IPv4 (RFC 791), and the most of a veth
MTU6 = 1280  # bytes: the least of IPv6 (RFC 8200)
VLANS = (1, 4094)  # IEEE 802.1Q
# what the names of links have: they stand in the rules of packet filters
_LINK = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._")
_END_OF_TIME = 1 << 63  # nanoseconds since 1970


class Network(Frozen):
    """One network, its links and its policy. The defaults are those of the network `bridge`."""

    name: str = "bridge"
    bridge: str = "sysbox0"  # the link on the host; "" with another driver
    subnet: str = "10.90.0.0/16"
    gateway: str = "10.90.0.1"  # the bridge's own address
    mtu: int = 1500  # bytes; 0 is that of the parent
    # policy: each is on the way of packets as netns/rules.py and the bridge's ports have it
    isolate: bool = (
        True  # containers of other networks cannot reach those of this one, nor be reached
    )
    host_access: bool = True  # containers may open connections to the host itself
    icc: bool = True  # containers of this network may reach each other
    internal: bool = False  # nothing leads out of it: no default route, no published ports
    masquerade: bool = True  # what leaves over IPv4 has the host's address
    gateway_mode_ipv6: str = "nat"  # nat, routed: whether that holds for IPv6 too
    host_binding: str = ""  # host address of published ports that name none; "" is all
    nic: str = ""  # the only link of the host that leads out; "" is any
    id: str = BUILTIN["bridge"]  # 64 hex digits
    driver: str = "bridge"
    ip_range: str = ""  # within the subnet: where addresses are chosen from; "" is all of it
    subnet6: str = ""  # "" is a network without IPv6
    gateway6: str = ""
    ip_range6: str = ""
    interface: str = "eth"  # the links inside have this name and a number
    dns: bool = False  # containers of this network find each other by name
    dns_servers: tuple[str, ...] = ()  # that other questions go to; () is the host's
    routes: tuple[Route, ...] = ()  # that its containers get, besides the default route
    options: dict[str, str] = {}  # noqa: RUF012 (as given with --opt)
    labels: dict[str, str] = {}  # noqa: RUF012
    created_ns: int = 0  # since 1970; 0 is unknown
    parent: str = (
        ""  # the link of the host that the containers' links are below: of macvlan and ipvlan
    )
    mode: str = ""  # of these links
    vlan: int = 0  # of the bridge's ports; 0 is a bridge that looks at no tags

    def wrong(self) -> str:
        if not is_id(self.id):
            return "id: must be 64 hexadecimal digits"
        for field in ("bridge", "parent", "nic", "interface"):
            name = getattr(self, field)
            if len(name) > 15 or not _LINK.issuperset(name) or name[:1] in ("-", "."):
                return f"{field}: must be the name of a link"
        if self.driver not in DRIVERS:
            return f"driver: must be {' or '.join(DRIVERS)}"
        for field, driver in (("bridge", self.driver == BRIDGE), ("parent", self.driver in BELOW)):
            if bool(getattr(self, field)) != driver:
                return f"{field}: must be the name of a link, of a network that has one"
        if self.mode not in MODES.get(self.driver, ("",)):
            return f"mode: must be {' or '.join(MODES.get(self.driver, ('left out',)))}"
        if self.vlan and not (self.driver == BRIDGE and VLANS[0] <= self.vlan <= VLANS[1]):
            return f"vlan: must be from {VLANS[0]} to {VLANS[1]}, of a bridge"
        if self.gateway_mode_ipv6 not in GATEWAY_MODES:
            return f"gateway_mode_ipv6: must be {' or '.join(GATEWAY_MODES)}"
        if not (MTU[0] <= self.mtu <= MTU[1] or (self.mtu == 0 and self.driver != BRIDGE)):
            return f"mtu: must be from {MTU[0]} to {MTU[1]}"
        if not 0 <= self.created_ns < _END_OF_TIME:
            return "created_ns: out of range"
        try:
            for address in (*self.dns_servers, *filter(None, (self.host_binding,))):
                subnets.number_of(address)
        except SpecError as error:
            return f"dns_servers, host_binding: {error.message}"
        try:
            check(self)
        except SpecError as error:
            return f"subnet: {error.message}"
        return ""


def check(network: Network) -> None:
    """Raises SpecError for subnets, gateways and ranges that do not fit together, and says which."""
    for family, subnet, gateway, ip_range in ends(network):
        if subnets.family_of(subnet) != family:
            raise SpecError(f"subnet {subnet}: is not one of IPv{family}")
        subnets.split(subnet)
        if why := subnets.unusable(subnet):
            raise SpecError(f"subnet {subnet}: {why}", hint="choose another subnet")
        low, high = subnets.hosts(subnet)
        if not subnets.contains(subnet, gateway) or not low <= subnets.number_of(gateway) <= high:
            raise SpecError(
                f"gateway {gateway}: is not an address of the subnet {subnet}",
                hint=f"as in {subnets.first(subnet)}",
            )
        if ip_range:
            base, bits = subnets.split(ip_range)
            inside = subnets.contains(subnet, subnets.text_of(base, family))
            if not inside or bits < subnets.split(subnet)[1]:
                raise SpecError(f"ip-range {ip_range}: is not within the subnet {subnet}")
    for one in network.routes:
        _check_route(network, one)
    if network.subnet6 and 0 < network.mtu < MTU6:
        raise SpecError(f"mtu {network.mtu}: IPv6 needs at least {MTU6}")


def _check_route(network: Network, route: Route) -> None:
    subnets.check_destination(route.destination)
    family = subnets.family_of(route.destination)
    subnet = network.subnet6 if family == 6 else network.subnet
    if not subnet or not subnets.contains(subnet, route.gateway):
        raise SpecError(
            f"route {route.destination}: its gateway {route.gateway} is not in the network's"
            f" {subnet or 'IPv6, which it lacks'}",
            hint="the gateway is an address of the network",
        )
    if not 0 <= route.metric < 1 << 32:
        raise SpecError(f"route {route.destination}: the metric {route.metric} is out of range")


def ends(network: Network) -> list[tuple[int, str, str, str]]:
    """(4 or 6, subnet, gateway, range) of each family that the network has."""
    if network.driver == NULL:
        return []
    found = [(4, network.subnet, network.gateway, network.ip_range)]
    if network.subnet6:
        found.append((6, network.subnet6, network.gateway6, network.ip_range6))
    return found


def bridge_name(network_id: str) -> str:
    """The bridge of a network, unless another name was asked for; derived from the network's id."""
    return f"sb-{network_id[:12]}"


def vlan_of(parent: str) -> tuple[str, int]:
    """("eth0", 20) of a parent "eth0.20", a VLAN that can be made; ("", 0) of another name."""
    base, _, number = parent.rpartition(".")
    if not base or not (number.isascii() and number.isdigit()) or number[0] == "0":
        return "", 0
    return (base, int(number)) if len(number) < 5 and int(number) <= VLANS[1] else ("", 0)


def unique_local(network_id: str) -> str:
    """The IPv6 subnet of a network that was given none: a ULA (RFC 4193) from its id."""
    digits = network_id[:14]  # 40 bits of the global id, 16 of the subnet
    number = int(f"fd{digits}", 16) << 64
    return f"{subnets.text_of(number, 6)}/64"
