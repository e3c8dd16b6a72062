"""Plan a container's network: names, addresses, ports, and the network's constants. Pure.

The default subnet avoids the defaults of docker (172.17.0.0/16), podman (10.88.0.0/16 and 10.89.0.0/16),
LXC (10.0.3.0/24) and libvirt (192.168.122.0/24).
"""

from __future__ import annotations

import _socket

from sysbox.base.errors import Conflict, SpecError, Unsupported, UsageError
from sysbox.base.frozen import Frozen
from sysbox.netns import subnets
from sysbox.netns.attachment import Attachment
from sysbox.netns.network import BRIDGE, IPVLAN, NULL, Network
from sysbox.spec import Bandwidth, Bridge, ContainerSpec, Endpoint, Port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_ID_DIGITS = 10  # digits of the id in link names and MACs; a link's name has at most 15 characters


DEFAULT_NETWORK = Network()
# for a bridge without Subnet= in sysbox.conf: the default, then those to try where it is in use
SUBNETS = tuple(f"10.{number}.0.0/16" for number in range(90, 100))


class NetPlan(Frozen):
    """The plan of a container's networks, the only input of the modules that set them up."""

    id: str  # the container's id, 64 hex digits
    mode: str  # bridge, none, host, join
    join: str = ""  # mode join: "container:ID" or "ns:PATH"
    attachments: tuple[Attachment, ...] = ()  # the first that leads out has the default route
    ports: tuple[Port, ...] = ()
    bandwidth: Bandwidth = Bandwidth()

    def describe(self) -> str:
        """For `run --dry-run`: a line for each network."""
        if not self.attachments:
            return f"network {self.join or self.mode}"
        lines = [
            f"network {one.bridge or one.network} {' '.join(filter(None, (one.subnet, one.subnet6)))}"
            f" via {one.gateway}, "
            + (f"link {one.host_link}" if one.host_link else f"{one.driver} below {one.parent}")
            for one in self.attachments
        ]
        ports = ", ".join(port_text(port) for port in self.ports)
        rates = f", up {self.bandwidth.up} B/s" if self.bandwidth.up else ""
        rates += f", down {self.bandwidth.down} B/s" if self.bandwidth.down else ""
        return "\n".join(lines) + rates + (f", ports {ports}" if ports else "")


def network_of(asked: Bridge, routes: str) -> Network:
    """The network of a container on the network `bridge`; `routes` is the text of /proc/net/route.

    A requested subnet is never replaced. Otherwise it is the subnet of the existing bridge, or the first free
    one of SUBNETS: inside a container of sysbox the outer container's subnet is in use. Raises SpecError.
    """
    if asked.subnet:
        return _network(asked.name, asked.subnet)
    fields = [line.split() for line in routes.splitlines()[1:]]
    there = {one[1] for one in fields if len(one) > 1 and one[0] == asked.name}
    for subnet in SUBNETS:
        base = subnets.split(subnet)[0].to_bytes(4, "little").hex().upper()
        if base in there:
            return _network(asked.name, subnet)
    others = subnets.routes(routes, "")
    free = (one for one in SUBNETS if not subnets.taken(one, others, asked.name))
    return _network(asked.name, next(free, SUBNETS[0]))


def _network(bridge: str, subnet: str) -> Network:
    """A network whose bridge has the subnet's first address. Raises SpecError."""
    return Network(bridge=bridge, subnet=subnet, gateway=subnets.first(subnet))


def plan_network(
    container_id: str,
    spec: ContainerSpec,
    network: Network = DEFAULT_NETWORK,
    named: dict[str, Network] | None = None,
) -> NetPlan:
    """The plan of one container's networks: `network` is that of the name `bridge`, `named` has the others.

    As in docker, ports are ignored with `none` and `host`. Raises SpecError for an invalid mode, port or
    address, UsageError for published ports with a joined namespace, Unsupported for the host address ::1.
    """
    mode = spec.namespaces.network
    check_bandwidth(spec)
    if mode in ("none", "host"):
        return NetPlan(id=container_id, mode=mode)
    if mode.startswith(("container:", "ns:")) and not mode.endswith(":"):
        if spec.ports:
            raise UsageError(
                f"ports cannot be published with --network {mode}",
                hint="publish them from the container that owns the network namespace",
            )
        return NetPlan(id=container_id, mode="join", join=mode)
    if mode != "bridge":
        hint = "bridge, none, host, container:NAME or ns:PATH"
        raise SpecError(f"--network {mode}: no such network", hint=hint)
    found: list[Attachment] = []
    for endpoint in spec.networks or (Endpoint(network=network.name),):
        one = network if endpoint.network == network.name else (named or {}).get(endpoint.network)
        if one is None:
            raise SpecError(f"--network {endpoint.network}: no such network")
        if one.driver == NULL:
            _check_alone(one.name, spec)
            return NetPlan(id=container_id, mode="none")
        found.append(attach(container_id, one, endpoint, found))
    check_shaped(spec, found)
    return NetPlan(
        id=container_id, mode="bridge", attachments=tuple(found),
        ports=check_ports(spec.ports), bandwidth=spec.bandwidth,
    )  # fmt: skip


def check_bandwidth(spec: ContainerSpec) -> None:
    """Raise SpecError if a limit is asked for a network that is not the container's own."""
    mode = spec.namespaces.network
    if mode not in ("bridge", "none") and spec.bandwidth != Bandwidth():
        raise SpecError(
            f"--network-bandwidth needs a network of the container's own, not --network {mode}",
            hint="leave out --network-bandwidth, or limit the container that owns the network",
        )


def _check_alone(name: str, spec: ContainerSpec) -> None:
    """Raises Conflict if a container has another network beside one of the driver null."""
    if len(spec.networks) > 1:
        raise Conflict(
            f"--network {name}: its driver gives a container no link, so it goes with no other network",
            hint="name the others only",
        )


def check_shaped(spec: ContainerSpec, attachments: Iterable[Attachment]) -> None:
    """Raises SpecError if a limit is asked for a link without an end on the host, where limits are."""
    for one in attachments if spec.bandwidth != Bandwidth() else ():
        if one.driver != BRIDGE:
            raise SpecError(
                f"--network-bandwidth limits networks of the driver bridge; {one.network} is one of"
                f" {one.driver}",
                hint=f"leave it out, or limit {one.parent} with tc(8)",
            )


# what a container's connection has of its network, as it is there
_OF_NETWORK = (
    "bridge", "mtu", "driver", "parent", "mode", "vlan",
    "subnet", "gateway", "ip_range", "subnet6", "gateway6", "ip_range6", "routes", "dns", "dns_servers",
    "isolate", "host_access", "icc", "internal", "masquerade", "gateway_mode_ipv6", "host_binding", "nic",
)  # fmt: skip


def attach(
    container_id: str, network: Network, endpoint: Endpoint, others: Iterable[Attachment]
) -> Attachment:
    """A container's connection to one more network, beside `others`. Raises SpecError, Conflict."""
    others = tuple(others)
    if any(one.network == network.name for one in others):
        raise Conflict(f"the container is on the network {network.name} already")
    _check_static(network, endpoint)
    network_id = "" if network.name == DEFAULT_NETWORK.name else network.id
    bridged = network.driver == BRIDGE
    return Attachment(
        network=network.name,
        network_id=network_id,
        interface=_interface(network, endpoint, others),
        host_link=host_link(container_id, network_id) if bridged else "",
        mac=endpoint.mac or mac_address(container_id, network_id),
        address=endpoint.address,
        prefix=subnets.split(network.subnet)[1],
        address6=endpoint.address6,
        prefix6=subnets.split(network.subnet6)[1] if network.subnet6 else 0,
        aliases=endpoint.aliases,
        **{field: getattr(network, field) for field in _OF_NETWORK},
    )


def _interface(network: Network, endpoint: Endpoint, others: tuple[Attachment, ...]) -> str:
    """The name of the link inside: as asked, else the first free one. Raises Conflict."""
    taken = {one.interface for one in others}
    if endpoint.interface in taken:
        raise Conflict(
            f"--network {network.name}: the link {endpoint.interface} is that of another network",
            hint="give it another interface_name=",
        )
    if endpoint.interface:
        return endpoint.interface
    number = 0
    while f"{network.interface}{number}" in taken:
        number += 1
    return f"{network.interface}{number}"


def shares_mac(one: Network | Attachment) -> bool:
    """Whether a container's link has the MAC of its parent, which it cannot choose."""
    return one.driver == IPVLAN or one.mode == "passthru"


def _check_static(network: Network, endpoint: Endpoint) -> None:
    """Raises SpecError for an address that no container of the network can have."""
    if endpoint.mac and shares_mac(network):
        raise SpecError(
            f"address {endpoint.mac}: containers of {network.name} have the MAC of {network.parent}",
            hint="leave it out, or use a macvlan network of another mode",
        )
    for address, subnet, gateway in (
        (endpoint.address, network.subnet, network.gateway),
        (endpoint.address6, network.subnet6, network.gateway6),
    ):
        if not address:
            continue
        if not subnet:
            raise SpecError(
                f"address {address}: the network {network.name} has no IPv6",
                hint="`sysbox network create --ipv6` makes one that has",
            )
        low, high = subnets.hosts(subnet)
        if not subnets.contains(subnet, address):
            raise SpecError(f"address {address}: is not in {subnet}, the subnet of {network.name}")
        if not low <= subnets.number_of(address) <= high:
            raise SpecError(f"address {address}: is that of the subnet {subnet} or its broadcast")
        if subnets.number_of(address) == subnets.number_of(gateway):
            raise SpecError(f"address {address}: is the gateway of the network {network.name}")


def outward(attachments: Iterable[Attachment], family: int = 4) -> Attachment | None:
    """The attachment with the default route and the published ports: the first that leads out, or None."""
    for one in attachments:
        if not one.internal and (family == 4 or one.gateway6):
            return one
    return None


def publishing(attachments: Iterable[Attachment]) -> Attachment | None:
    """The attachment at whose addresses ports are published: `outward`, if its packets pass the host's
    packet filter; those of macvlan and ipvlan do not, and all ports are reachable there.
    """
    one = outward(attachments)
    return one if one and one.driver == BRIDGE else None


def _digits(container_id: str, network_id: str) -> str:
    """Ten hexadecimal digits for a container's end of a network: of the id, on the network `bridge`."""
    own = container_id[:_ID_DIGITS]
    if not network_id:
        return own
    return f"{int(own, 16) ^ int(network_id[:_ID_DIGITS], 16):0{_ID_DIGITS}x}"


def host_link(container_id: str, network_id: str = "") -> str:
    """The name of the host's end of the veth pair, derived from the ids of container and network."""
    return "sb" + _digits(container_id, network_id)


def mac_address(container_id: str, network_id: str = "") -> str:
    """A locally administered unicast MAC from the ids, the same at each start: neighbours cache it."""
    digits = _digits(container_id, network_id)
    return "02:" + ":".join(digits[at : at + 2] for at in range(0, _ID_DIGITS, 2))


def bridge_mac(gateway: str) -> str:
    """A fixed MAC for a bridge. Without one the kernel uses the lowest MAC of its ports, which changes with
    them.
    """
    address = _socket.inet_pton(_socket.AF_INET, gateway)
    return "02:5b:" + ":".join(f"{byte:02x}" for byte in address)


def port_text(port: Port) -> str:
    """ "0.0.0.0:8080->80/tcp", as docker's `ps` shows it."""
    address = f"[{port.host_ip}]" if ":" in port.host_ip else port.host_ip or "0.0.0.0"
    host = f"{address}:{port.host_text or '(any)'}"
    return f"{host}->{port.container_port}/{port.protocol}"


def ports_overlap(one: Port, other: Port) -> bool:
    """Whether two published ports apply to the same packets; not where one has yet to be found."""
    if one.protocol != other.protocol or one.host_port != other.host_port:
        return False
    if not one.is_chosen or not other.is_chosen:
        return False
    first, second = one.host_ip, other.host_ip
    if not first or not second:  # on every address, of both families
        return True
    if (":" in first) != (":" in second):
        return False
    return first == second or not {first, second}.isdisjoint(("0.0.0.0", "::"))


def check_ports(ports: tuple[Port, ...]) -> tuple[Port, ...]:
    """The ports, if they can be published together. Raises SpecError, Unsupported for [::1]."""
    seen: dict[int, list[Port]] = {}  # host port -> ports that use it, usually one
    for port in ports:
        if not 1 <= port.container_port <= 65535 or not 0 <= port.host_port <= 65535:
            raise SpecError(f"port {port_text(port)}: must be 1 to 65535")
        if port.host_ip and ":" not in port.host_ip:
            subnets.number_of(port.host_ip)
        if port.host_ip == "::1":
            # the kernel routes no answer to ::1 that came over a link (IPv6 has no route_localnet)
            raise Unsupported(
                f"port {port_text(port)}: the loopback address of IPv6 cannot be translated",
                hint="publish it on 127.0.0.1",
            )
        if port.is_chosen:
            same = seen.setdefault(port.host_port, [])
            if any(ports_overlap(earlier, port) for earlier in same):
                raise SpecError(f"port {port_text(port)} is published twice")
            same.append(port)
    return ports
