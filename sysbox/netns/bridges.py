"""Show and check bridges and their ports, through pyroute2.

Starting a container does not use this module. The functions read the network namespace of the calling
process.
"""

from __future__ import annotations

import _socket

from sysbox.base.errors import Conflict, KernelError, NotFound, Unsupported
from sysbox.base.frozen import Frozen
from sysbox.netns import leases, subnets
from sysbox.netns.network import Network
from sysbox.netns.rtnetlink import IFF_UP
from sysbox.netns.topology import bridge_mac, host_link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from typing import Any


class BridgePort(Frozen):
    """A link that is a port of a bridge."""

    name: str
    up: bool
    isolated: bool
    container: str = ""  # id of its container, where a lease names one


class Bridge(Frozen):
    """The state of a bridge in the kernel."""

    name: str
    up: bool
    mac: str
    mtu: int
    addresses: tuple[str, ...]  # "10.90.0.1/16"
    ports: tuple[BridgePort, ...]


def all_bridges() -> tuple[Bridge, ...]:
    """Every bridge of this network namespace, by name. Raises KernelError."""

    def ask(route: Any) -> tuple[list[Any], list[Any]]:
        return list(route.get_links()), list(route.get_addr(family=_socket.AF_INET))

    links, addresses = _with_route("list the network links", ask)
    owners = {
        host_link(container_id, network_id): container_id
        for network_id in ("", *leases.in_use())
        for container_id in leases.all(network_id)
    }
    found = [_bridge(link, links, addresses, owners) for link in links if _kind(link) == "bridge"]
    return tuple(sorted(found, key=lambda bridge: bridge.name))


def made_by_sysbox() -> tuple[Bridge, ...]:
    """The bridges that sysbox has made, including those of an earlier sysbox.conf. Raises KernelError.

    They are recognised by their MAC, which `bridge_mac` derives from the address.
    """
    return tuple(
        one
        for one in all_bridges()
        if any(one.mac == bridge_mac(address.partition("/")[0]) for address in one.addresses)
    )


def inspect(name: str) -> Bridge:
    """One bridge. Raises NotFound where none has that name, KernelError."""
    for bridge in all_bridges():
        if bridge.name == name:
            return bridge
    raise NotFound(f"no bridge {name}", hint="it is made when the first container uses it")


def verify(bridge: Bridge, network: Network) -> list[str]:
    """Messages about what is wrong with a network's bridge and its links; [] where nothing is."""
    wrong = []
    if not bridge.up:
        wrong.append(f"{bridge.name} is down")
    wanted = f"{network.gateway}/{subnets.split(network.subnet)[1]}"
    if wanted not in bridge.addresses:
        wrong.append(f"{bridge.name} lacks its address {wanted}")
    if bridge.mtu != network.mtu:
        wrong.append(f"{bridge.name} has the MTU {bridge.mtu} instead of {network.mtu}")
    for port in bridge.ports:
        if port.container and not port.up:
            wrong.append(f"{port.name} is down")
        if port.isolated == network.icc and port.container:
            state = "isolated" if port.isolated else "not isolated"
            wrong.append(f"{port.name} is {state}, against the network's policy")
    return wrong


def remove(name: str) -> None:
    """Remove a bridge; an absent one is success. Raises Conflict while it has ports, KernelError."""
    try:
        if inspect(name).ports:
            raise Conflict(f"the bridge {name} still has ports", hint="stop the containers on it")
    except NotFound:
        return
    _with_route(
        f"remove the bridge {name}",
        lambda route: [route.link("del", index=index) for index in route.link_lookup(ifname=name)],
    )


def remove_below(
    enter: Callable[[], AbstractContextManager[None]], parent: int, kept: set[str]
) -> None:
    """Remove the links in the network namespace that `enter` is for whose parent is the link of the host with
    this index, but those of the names `kept`. Raises KernelError.
    """

    def ask(route: Any) -> None:
        for link in list(route.get_links()):
            # without the namespace's id the parent is one of the container's own
            elsewhere = link.get("link_netnsid") is not None
            if elsewhere and link.get("link") == parent and link.get("ifname") not in kept:
                route.link("del", index=link["index"])

    with enter():
        _with_route("remove a link of a container", ask)


def _with_route(what: str, ask: Callable[[Any], Any]) -> Any:
    """Call `ask` with a pyroute2.IPRoute. Raises KernelError, which says `what` failed; Unsupported."""
    from sysbox.base import program

    program.load_site()
    try:
        from pyroute2 import IPRoute
        from pyroute2.netlink.exceptions import NetlinkError
    except ImportError as error:
        raise Unsupported(
            f"{what}: cannot load pyroute2: {error}", hint="install sysbox anew"
        ) from None
    try:
        with IPRoute() as route:
            return ask(route)
    except NetlinkError as error:
        raise KernelError(what, "", error.code) from None
    except OSError as error:
        raise KernelError.of(what, "", error) from None


def _bridge(link: Any, links: list[Any], addresses: list[Any], owners: dict[str, str]) -> Bridge:
    index = link["index"]
    own = [entry for entry in addresses if entry["index"] == index]
    return Bridge(
        name=link.get("ifname"),
        up=bool(link["flags"] & IFF_UP),
        mac=link.get("address"),
        mtu=link.get("mtu"),
        addresses=tuple(f"{entry.get('address')}/{entry['prefixlen']}" for entry in own),
        ports=tuple(_port(other, owners) for other in links if other.get("master") == index),
    )


def _port(link: Any, owners: dict[str, str]) -> BridgePort:
    name = link.get("ifname")
    flag = link.get_nested("linkinfo", "info_slave_data", "brport_isolated")
    return BridgePort(
        name=name,
        up=bool(link["flags"] & IFF_UP),
        isolated=bool(flag),
        container=owners.get(name, ""),
    )


def _kind(link: Any) -> str:
    return link.get_nested("linkinfo", "kind") or ""
