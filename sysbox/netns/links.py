"""The bridge, the veth pair, and the container's end of it.

The pair needs no cleanup: the kernel removes it with the container's network namespace.
"""

from __future__ import annotations

import _socket
import errno as _errno
import time

from sysbox.base.errors import KernelError
from sysbox.linux import sysctl
from sysbox.netns import interfaces, subnets, sysctls
from sysbox.netns import rtnetlink as rt
from sysbox.netns.network import BRIDGE, ROUTED
from sysbox.netns.topology import (
    outward,
)
from sysbox.spec import Bandwidth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.netns.attachment import Attachment
    from sysbox.netns.topology import NetPlan
    from sysbox.spec import Route

_STEP, _TRIES = (
    0.01,
    500,
)  # seconds, and how often: the kernel removes a namespace in a fraction of one


def ensure_bridge(attachment: Attachment) -> int:
    """Make sure that the network's bridge is up and has its address; returns its interface index.

    Four ioctls where the bridge exists. Raises Conflict where another link of this host uses the subnet or
    the bridge has another address, KernelError.
    """
    probe = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        there = interfaces.address(probe, attachment.bridge)
        if there == (attachment.gateway, attachment.prefix, True):
            return interfaces.index(probe, attachment.bridge)
        _make_bridge(probe, attachment, there)
        return interfaces.index(probe, attachment.bridge)
    except OSError as error:
        raise KernelError.of("look up the bridge", attachment.bridge, error) from None
    finally:
        probe.close()


def connect(
    plan: NetPlan,
    pid: int,
    netns_fd: int = -1,
    bridges: tuple[int, ...] = (),
    before_up: Callable[[], object] | None = None,
) -> None:
    """Make the container's links: pairs with one end on a bridge, and links below a parent.

    The namespace is `netns_fd`, or that of the process `pid` where it is -1. `bridges` are the interface
    indexes of `near`, () if unknown. All pairs are one batch. `before_up` is called before their ends here
    are up: until then a running container sends nothing. Raises Conflict, KernelError (EXFULL: no port left).
    """
    bridges = bridges or tuple(near(one) for one in plan.attachments)
    hairpin = bool(plan.ports)
    messages: list[rt.Message] = []
    late: list[rt.Message] = []
    below: list[tuple[Attachment, int]] = []
    for one, index in zip(plan.attachments, bridges, strict=True):
        if one.driver == BRIDGE:
            messages.append(pair(one, index, pid, netns_fd))
            (messages if before_up is None else late).append(bridge_port(one, hairpin=hairpin))
        else:
            below.append((one, index))
    with rt.Socket() as link:
        if messages:
            _make_pairs(link, plan, messages)
        if below:
            from sysbox.netns import parents  # which few containers need

            parents.connect(below, namespace(pid, netns_fd))
        if before_up is not None:
            before_up()
        if plan.bandwidth != Bandwidth():
            from sysbox.netns import shaping  # which few containers need

            ends = shaping.ends(plan.id, plan.attachments)
            shaping.limit(plan.id, ends, plan.bandwidth, Bandwidth())
        if late:
            link.request(late)


def _make_pairs(link: rt.Socket, plan: NetPlan, messages: list[rt.Message]) -> None:
    results = link.attempt(messages)
    if any(code == _errno.EEXIST for message, code, _ in results if message.flags & rt.NLM_F_EXCL):
        # The kernel is still removing the network namespace of an earlier start. Only this
        # container uses the links' names, so remove the old pairs now.
        _remove(link, plan)
        results = link.attempt(messages)
    link.check(results)


def near(attachment: Attachment) -> int:
    """The interface index of what a container's link is made on: the bridge, or the parent.

    Either is made if it is missing. Raises as `ensure_bridge`, NotFound and Unsupported for a parent.
    """
    if attachment.driver == BRIDGE:
        return ensure_bridge(attachment)
    from sysbox.netns import parents  # which few containers need

    return parents.ensure(attachment)


def remove_link(name: str) -> None:
    """Remove a link, a pair or a bridge; an absent one is success. Raises KernelError."""
    with rt.Socket() as link:
        link.check(link.attempt([remove(name)]), ignore=(_errno.ENODEV,))


def _remove(link: rt.Socket, plan: NetPlan) -> None:
    results = link.attempt([remove(one.host_link) for one in plan.attachments if one.host_link])
    link.check(results, ignore=(_errno.ENODEV,))


def prepare_inside(procfs: int, link: str = "default", *, ipv6: bool = False) -> None:
    """Keep router advertisements from configuring a link (CVE-2020-13401). Raises KernelError.

    With `ipv6` its link-local address is there at once too: only containers of sysbox are on the network.
    Called in the container's network namespace: in a new one for the links that will be made there, else for
    a link that is not up yet. `procfs` is the host's. Does nothing where the kernel has no IPv6.
    """
    for name in ("accept_ra", "autoconf", *(("accept_dad",) if ipv6 else ())):
        try:
            sysctl.write(procfs, f"net/ipv6/conf/{link}/{name}", "0")
        except KernelError as error:
            if error.errno != _errno.ENOENT:
                raise


def configure_inside(plan: NetPlan, addresses: tuple[str, ...] = ()) -> None:
    """Set loopback up, give each interface its addresses, and one the default route, in one batch.

    Called in the container's own process. It opens no file and imports nothing, so it also works in the new
    root. `addresses` are the leases, without a mask, in the order of the attachments: that of IPv4 and, after
    a space, that of IPv6, if any. Raises KernelError.
    """
    if plan.mode not in ("bridge", "none"):
        return
    messages = [set_up(1, "lo")]
    for one, leased in zip(plan.attachments, addresses, strict=True):
        address, _, address6 = leased.partition(" ")
        messages += inside(one, interfaces.index_of(one.interface), address, address6)
    messages += default_routes(plan.attachments)
    request_inside(messages, plan.attachments)


def request_inside(messages: list[rt.Message], attachments: tuple[Attachment, ...]) -> None:
    """Configure a container's links. Raises KernelError.

    Of links below a parent the kernel refuses a MAC or an address for as long as it is still removing the
    network namespace of an earlier start, which had the same: then the batch is repeated.
    """
    tries = 1 if all(one.driver == BRIDGE for one in attachments) else _TRIES
    with rt.Socket() as link:
        results = link.attempt(messages)
        while tries > 1 and any(code == _errno.EADDRINUSE for _, code, _ in results):
            time.sleep(_STEP)
            tries -= 1
            again = [message for message, code, _ in results if code not in (0, _errno.EEXIST)]
            results = link.attempt(again)
        link.check(results)


def default_routes(
    attachments: tuple[Attachment, ...], families: tuple[int, ...] = (4, 6)
) -> list[rt.Message]:
    """The messages that add the default routes of a container with these attachments, in order."""
    ways = ((family, outward(attachments, family)) for family in families)
    return [
        _by_link(one, family)
        if one.mode in ROUTED
        else default_route(one.gateway6 if family == 6 else one.gateway)
        for family, one in ways
        if one
    ]


def _by_link(one: Attachment, family: int) -> rt.Message:
    """The default route of an ipvlan link that has no neighbours: the host routes what comes by it."""
    family = _socket.AF_INET6 if family == 6 else _socket.AF_INET
    body = rt.route(family, scope=rt.RT_SCOPE_LINK)
    body += rt.u32(rt.RTA_OIF, interfaces.index_of(one.interface))
    flags = rt.NLM_F_CREATE | rt.NLM_F_EXCL
    return rt.Message(rt.RTM_NEWROUTE, flags, body, f"add the default route by {one.interface}")


def namespace(pid: int, netns_fd: int) -> bytes:
    """The attribute that puts a link into the namespace `netns_fd`, or that of `pid` where it is -1."""
    return rt.u32(rt.IFLA_NET_NS_FD, netns_fd) if netns_fd >= 0 else rt.u32(rt.IFLA_NET_NS_PID, pid)


def pair(attachment: Attachment, master: int, pid: int, netns_fd: int) -> rt.Message:
    """The message that makes both ends, each in its namespace, with its name, MAC and MTU."""
    # one queue each: a pair has no hardware queues, and each queue costs sysfs objects
    one_queue = rt.u32(rt.IFLA_NUM_TX_QUEUES, 1) + rt.u32(rt.IFLA_NUM_RX_QUEUES, 1)
    peer = rt.nested(
        rt.VETH_INFO_PEER,
        rt.ifinfo(),
        rt.text(rt.IFLA_IFNAME, attachment.interface),
        rt.u32(rt.IFLA_MTU, attachment.mtu),
        rt.mac(rt.IFLA_ADDRESS, attachment.mac),
        one_queue,
        namespace(pid, netns_fd),
    )
    body = (
        rt.ifinfo(),
        rt.text(rt.IFLA_IFNAME, attachment.host_link),
        rt.u32(rt.IFLA_MTU, attachment.mtu),
        rt.u32(rt.IFLA_MASTER, master),
        one_queue,
        rt.nested(
            rt.IFLA_LINKINFO, rt.text(rt.IFLA_INFO_KIND, "veth"), rt.nested(rt.IFLA_INFO_DATA, peer)
        ),
    )
    flags = rt.NLM_F_CREATE | rt.NLM_F_EXCL
    what = f"make the link {attachment.host_link}"
    return rt.Message(rt.RTM_NEWLINK, flags, b"".join(body), what)


def bridge_port(attachment: Attachment, *, hairpin: bool) -> rt.Message:
    """Settings that the kernel accepts only for an existing link: no IPv6 address, the port's flags, up.

    An isolated port (Linux 4.18) exchanges no frames with other isolated ports, whether or not bridged frames
    pass through iptables on this host. Where they do (br_netfilter), a container may connect to its own
    published port; the bridge then must send the frame back through the port it came from: hairpin mode.
    """
    body = (
        rt.ifinfo(0, rt.IFF_UP, rt.IFF_UP),
        rt.text(rt.IFLA_IFNAME, attachment.host_link),
        rt.nested(
            rt.IFLA_LINKINFO,
            rt.text(rt.IFLA_INFO_SLAVE_KIND, "bridge"),
            rt.nested(
                rt.IFLA_INFO_SLAVE_DATA,
                rt.u8(rt.IFLA_BRPORT_MODE, int(hairpin)),
                rt.u8(rt.IFLA_BRPORT_ISOLATED, int(not attachment.icc)),
            ),
        ),
        rt.nested(rt.IFLA_AF_SPEC, _no_ipv6_address()),
    )
    what = f"set up the link {attachment.host_link}"
    return rt.Message(rt.RTM_NEWLINK, 0, b"".join(body), what)


def inside(
    attachment: Attachment, index: int, address: str, address6: str = ""
) -> list[rt.Message]:
    """The messages for the container's end: no address but the leased ones, up."""
    quiet = rt.ifinfo(index) + rt.nested(
        rt.IFLA_AF_SPEC,
        # announce the MAC: neighbours may have cached that of an earlier owner of the address
        _ipv4_settings((rt.IPV4_DEVCONF_ARP_NOTIFY, 1)),
        # neighbour discovery needs a link-local address (RFC 4861, 7.2.2)
        b"" if address6 else _no_ipv6_address(),
    )
    name = attachment.interface
    messages = [
        rt.Message(rt.RTM_NEWLINK, 0, quiet, f"set up {name}"),
        add_address(index, address, attachment.subnet, name),
        set_up(index, name),
    ]
    if address6:
        messages.append(add_address6(index, address6, attachment.prefix6, name))
    return messages + [static_route(one) for one in attachment.routes]


def default_route(gateway: str) -> rt.Message:
    """The message that adds the default route via a gateway."""
    if ":" in gateway:
        body = rt.route(_socket.AF_INET6) + rt.ipv6(rt.RTA_GATEWAY, gateway)
    else:
        body = rt.route() + rt.ipv4(rt.RTA_GATEWAY, gateway)
    flags = rt.NLM_F_CREATE | rt.NLM_F_EXCL
    return rt.Message(rt.RTM_NEWROUTE, flags, body, f"add the default route via {gateway}")


def static_route(route: Route) -> rt.Message:
    """The message that adds a route of a network."""
    base, _, bits = route.destination.partition("/")
    family = _socket.AF_INET6 if ":" in base else _socket.AF_INET
    address = rt.ipv6 if ":" in base else rt.ipv4
    body = (
        rt.route(family, int(bits)),
        address(rt.RTA_DST, base),
        address(rt.RTA_GATEWAY, route.gateway),
        rt.u32(rt.RTA_PRIORITY, route.metric) if route.metric else b"",
    )
    flags = rt.NLM_F_CREATE | rt.NLM_F_EXCL
    what = f"add the route to {route.destination} via {route.gateway}"
    return rt.Message(rt.RTM_NEWROUTE, flags, b"".join(body), what)


def add_address(index: int, address: str, subnet: str, name: str) -> rt.Message:
    """The message that adds an IPv4 address of a subnet to a link."""
    base, bits = subnets.split(subnet)
    broadcast = subnets.text_of(base | ((1 << (32 - bits)) - 1), 4)
    body = (
        rt.ifaddr(index, bits),
        rt.ipv4(rt.IFA_LOCAL, address),
        rt.ipv4(rt.IFA_ADDRESS, address),
        rt.ipv4(rt.IFA_BROADCAST, broadcast),
    )
    flags = rt.NLM_F_CREATE | rt.NLM_F_EXCL
    what = f"add {address}/{bits} to {name}"
    return rt.Message(rt.RTM_NEWADDR, flags, b"".join(body), what)


def add_address6(index: int, address: str, bits: int, name: str) -> rt.Message:
    """The message that adds an IPv6 address to a link that is up; it can be used at once."""
    body = (
        rt.ifaddr(index, bits, _socket.AF_INET6),
        rt.ipv6(rt.IFA_LOCAL, address),
        rt.ipv6(rt.IFA_ADDRESS, address),
    )
    flags = rt.NLM_F_CREATE | rt.NLM_F_EXCL
    what = f"add {address}/{bits} to {name}"
    return rt.Message(rt.RTM_NEWADDR, flags, b"".join(body), what)


def set_up(index: int, name: str) -> rt.Message:
    """The message that sets a link up."""
    body = rt.ifinfo(index, rt.IFF_UP, rt.IFF_UP)
    return rt.Message(rt.RTM_NEWLINK, 0, body, f"set {name} up")


def remove(name: str) -> rt.Message:
    """The message that removes a link."""
    body = rt.ifinfo() + rt.text(rt.IFLA_IFNAME, name)
    return rt.Message(rt.RTM_DELLINK, 0, body, f"remove the link {name}")


def _make_bridge(
    probe: _socket.socket, attachment: Attachment, there: tuple[str, int, bool]
) -> None:
    from sysbox.netns import forwarding, new_bridge  # most starts find the bridge

    one, name = attachment, attachment.bridge
    new_bridge.refuse_other(there, one)
    new_bridge.refuse_overlap(one)
    with rt.Socket() as link:
        # EEXIST: another process made it meanwhile, or it has lost its address; complete it
        link.check(link.attempt([new_bridge.bridge(one)]), ignore=(_errno.EEXIST,))
        if one.vlan:
            new_bridge.check_vlan(one)
        index = interfaces.index(probe, name)
        settings = rt.ifinfo(index) + rt.nested(
            rt.IFLA_AF_SPEC,
            # route_localnet (ip-sysctl): the host reaches ports published on 127.0.0.1 through this
            # link; a rule in the raw table drops packets of containers to 127.0.0.0/8 (CVE-2020-8558)
            _ipv4_settings((rt.IPV4_DEVCONF_ROUTE_LOCALNET, 1), (rt.IPV4_DEVCONF_RP_FILTER, 1)),
        )
        messages = [
            rt.Message(rt.RTM_NEWLINK, 0, settings, f"set up {name}"),
            add_address(index, one.gateway, one.subnet, name),
            set_up(index, name),
        ]
        # no other host is on it: containers send no router advertisements that count, and take no address
        for key, value in (("accept_ra", "0"), ("accept_dad", "0")) if one.subnet6 else ():
            sysctls.write(f"net/ipv6/conf/{name}/{key}", value, missing_ok=False)
        quiet = "0" if one.subnet6 else "1"
        sysctls.write(f"net/ipv6/conf/{name}/disable_ipv6", quiet, missing_ok=not one.subnet6)
        if one.subnet6:
            messages.append(add_address6(index, one.gateway6, one.prefix6, name))
        link.check(link.attempt(messages), ignore=(_errno.EEXIST,))
    forwarding.enable(ipv6=bool(one.subnet6))


def _ipv4_settings(*settings: tuple[int, int]) -> bytes:
    values = [rt.u32(kind, value) for kind, value in settings]
    return rt.nested(_socket.AF_INET, rt.nested(rt.IFLA_INET_CONF, *values))


def _no_ipv6_address() -> bytes:
    mode = rt.u8(rt.IFLA_INET6_ADDR_GEN_MODE, rt.IN6_ADDR_GEN_MODE_NONE)
    return rt.nested(_socket.AF_INET6, mode)
