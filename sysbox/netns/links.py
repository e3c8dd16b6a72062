"""The bridge, the veth pair, and the container's end of it.

The pair needs no cleanup: the kernel removes it with the container's network namespace.
"""

from __future__ import annotations

import _socket
import _struct
import errno as _errno
import fcntl
import posix

from sysbox.base.errors import Conflict, KernelError
from sysbox.host import read_text
from sysbox.netns import rtnetlink as rt
from sysbox.netns.topology import address_text, bridge_mac, overlapping_route, split_subnet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.netns.attachment import Attachment
    from sysbox.netns.topology import NetPlan

_SIOCGIFFLAGS = 0x8913
_SIOCGIFADDR = 0x8915
_SIOCGIFNETMASK = 0x891B
_SIOCGIFINDEX = 0x8933


def ensure_bridge(attachment: Attachment) -> int:
    """Make sure that the network's bridge is up and has its address; returns its interface index.

    Four ioctls where the bridge exists. Raises Conflict where another link of this host uses the subnet or
    the bridge has another address, KernelError.
    """
    probe = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        there = _address(probe, attachment.bridge)
        if there == (attachment.gateway, attachment.prefix, True):
            return _index(probe, attachment.bridge)
        _refuse_other(there, attachment)
        _make_bridge(probe, attachment)
        return _index(probe, attachment.bridge)
    except OSError as error:
        raise KernelError.of("look up the bridge", attachment.bridge, error) from None
    finally:
        probe.close()


def connect(plan: NetPlan, pid: int, netns_fd: int = -1, bridges: tuple[int, ...] = ()) -> None:
    """Make the veth pairs: one end on the bridge, the other in the container's network namespace.

    The namespace is `netns_fd`, or that of the process `pid` where it is -1. `bridges` are the bridges'
    interface indexes, () if unknown. All pairs are one batch. Raises Conflict, and KernelError; EXFULL where
    a bridge has no port left.
    """
    bridges = bridges or tuple(ensure_bridge(one) for one in plan.attachments)
    hairpin = bool(plan.ports)
    messages = [
        message
        for one, master in zip(plan.attachments, bridges, strict=True)
        for message in (pair(one, master, pid, netns_fd), bridge_port(one, hairpin=hairpin))
    ]
    with rt.Socket() as link:
        results = link.attempt(messages)
        if any(result[1] == _errno.EEXIST for result in results[::2]):
            # The kernel is still removing the network namespace of an earlier start. Only this
            # container uses the links' names, so remove the old pairs now.
            _remove(link, plan)
            results = link.attempt(messages)
        link.check(results)


def disconnect(plan: NetPlan) -> None:
    """Remove the veth pairs without waiting for the end of the namespace; an absent pair is success.

    Raises KernelError.
    """
    if not plan.attachments:
        return
    with rt.Socket() as link:
        _remove(link, plan)


def _remove(link: rt.Socket, plan: NetPlan) -> None:
    results = link.attempt([remove(one.host_link) for one in plan.attachments])
    link.check(results, ignore=(_errno.ENODEV,))


def prepare_inside() -> None:
    """Keep router advertisements from configuring eth0 (CVE-2020-13401). Raises KernelError.

    Called in the container's own process, in its new network namespace, before eth0 exists and while /proc is
    still the host's. Does nothing where the kernel has no IPv6.
    """
    for name in ("accept_ra", "autoconf"):
        _write_sysctl(f"net/ipv6/conf/default/{name}", "0", missing_ok=True)


def configure_inside(plan: NetPlan, addresses: tuple[str, ...] = ()) -> None:
    """Set loopback up, give each interface its address, and the first the default route, in one batch.

    Called in the container's own process. It opens no file and imports nothing, so it also works in the new
    root. `addresses` are the leases, without a mask, in the order of the attachments. Raises KernelError.
    """
    if plan.mode not in ("bridge", "none"):
        return
    messages = [set_up(1, "lo")]
    for number, (one, address) in enumerate(zip(plan.attachments, addresses, strict=True)):
        index = _index_of(one.interface)
        messages += inside(one, index, address)
        if number == 0:
            messages.append(default_route(one.gateway))
    with rt.Socket() as link:
        link.request(messages)


def _index_of(name: str) -> int:
    probe = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        return _index(probe, name)
    except OSError as error:
        raise KernelError.of("look up", name, error) from None
    finally:
        probe.close()


def pair(attachment: Attachment, master: int, pid: int, netns_fd: int) -> rt.Message:
    """The message that makes both ends, each in its namespace, with its name, MAC and MTU."""
    if netns_fd >= 0:
        place = rt.u32(rt.IFLA_NET_NS_FD, netns_fd)
    else:
        place = rt.u32(rt.IFLA_NET_NS_PID, pid)
    # one queue each: a pair has no hardware queues, and each queue costs sysfs objects
    one_queue = rt.u32(rt.IFLA_NUM_TX_QUEUES, 1) + rt.u32(rt.IFLA_NUM_RX_QUEUES, 1)
    peer = rt.nested(
        rt.VETH_INFO_PEER,
        rt.ifinfo(),
        rt.text(rt.IFLA_IFNAME, attachment.interface),
        rt.u32(rt.IFLA_MTU, attachment.mtu),
        rt.mac(rt.IFLA_ADDRESS, attachment.mac),
        one_queue,
        place,
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


def inside(attachment: Attachment, index: int, address: str) -> list[rt.Message]:
    """The messages for the container's end: no automatic IPv6 address, address, up."""
    quiet = rt.ifinfo(index) + rt.nested(
        rt.IFLA_AF_SPEC,
        # announce the MAC: neighbours may have cached that of an earlier owner of the address
        _ipv4_settings((rt.IPV4_DEVCONF_ARP_NOTIFY, 1)),
        _no_ipv6_address(),
    )
    name = attachment.interface
    return [
        rt.Message(rt.RTM_NEWLINK, 0, quiet, f"set up {name}"),
        add_address(index, address, attachment.subnet, name),
        set_up(index, name),
    ]


def default_route(gateway: str) -> rt.Message:
    """The message that adds the IPv4 default route via a gateway."""
    body = rt.default_route() + rt.ipv4(rt.RTA_GATEWAY, gateway)
    flags = rt.NLM_F_CREATE | rt.NLM_F_EXCL
    return rt.Message(rt.RTM_NEWROUTE, flags, body, f"add the default route via {gateway}")


def add_address(index: int, address: str, subnet: str, name: str) -> rt.Message:
    """The message that adds an address of a subnet to a link."""
    base, bits = split_subnet(subnet)
    broadcast = address_text(base | ((1 << (32 - bits)) - 1))
    body = (
        rt.ifaddr(index, bits),
        rt.ipv4(rt.IFA_LOCAL, address),
        rt.ipv4(rt.IFA_ADDRESS, address),
        rt.ipv4(rt.IFA_BROADCAST, broadcast),
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


def bridge(attachment: Attachment) -> rt.Message:
    """The message that makes the bridge: no STP, no forward delay, a fixed MAC."""
    body = (
        rt.ifinfo(),
        rt.text(rt.IFLA_IFNAME, attachment.bridge),
        rt.u32(rt.IFLA_MTU, attachment.mtu),
        rt.mac(rt.IFLA_ADDRESS, bridge_mac(attachment.gateway)),
        rt.nested(
            rt.IFLA_LINKINFO,
            rt.text(rt.IFLA_INFO_KIND, "bridge"),
            rt.nested(
                rt.IFLA_INFO_DATA,
                rt.u32(rt.IFLA_BR_FORWARD_DELAY, 0),
                rt.u32(rt.IFLA_BR_STP_STATE, 0),
            ),
        ),
    )
    flags = rt.NLM_F_CREATE | rt.NLM_F_EXCL
    return rt.Message(rt.RTM_NEWLINK, flags, b"".join(body), f"make the bridge {attachment.bridge}")


def _make_bridge(probe: _socket.socket, attachment: Attachment) -> None:
    taken = overlapping_route(read_text("/proc/net/route"), attachment)
    if taken:
        raise Conflict(
            f"network {attachment.bridge}: its subnet {attachment.subnet} overlaps the route {taken}",
            hint="remove the route, choose another Subnet= in sysbox.conf, or use --network host or none",
        )
    with rt.Socket() as link:
        # EEXIST: another process made it meanwhile, or it has lost its address; complete it
        link.check(link.attempt([bridge(attachment)]), ignore=(_errno.EEXIST,))
        index = _index(probe, attachment.bridge)
        settings = rt.ifinfo(index) + rt.nested(
            rt.IFLA_AF_SPEC,
            # route_localnet (ip-sysctl): the host reaches ports published on 127.0.0.1 through this
            # link; a rule in the raw table drops packets of containers to 127.0.0.0/8 (CVE-2020-8558)
            _ipv4_settings((rt.IPV4_DEVCONF_ROUTE_LOCALNET, 1), (rt.IPV4_DEVCONF_RP_FILTER, 1)),
        )
        _write_sysctl(f"net/ipv6/conf/{attachment.bridge}/disable_ipv6", "1", missing_ok=True)
        messages = [
            rt.Message(rt.RTM_NEWLINK, 0, settings, f"set up {attachment.bridge}"),
            add_address(index, attachment.gateway, attachment.subnet, attachment.bridge),
            set_up(index, attachment.bridge),
        ]
        link.check(link.attempt(messages), ignore=(_errno.EEXIST,))
    enable_forwarding()


def enable_forwarding() -> None:
    """Switch on IPv4 forwarding. Raises KernelError where /proc/sys cannot be written."""
    if read_text("/proc/sys/net/ipv4/ip_forward").strip() != "1":
        _write_sysctl("net/ipv4/ip_forward", "1", missing_ok=False)


def _ipv4_settings(*settings: tuple[int, int]) -> bytes:
    values = [rt.u32(kind, value) for kind, value in settings]
    return rt.nested(_socket.AF_INET, rt.nested(rt.IFLA_INET_CONF, *values))


def _no_ipv6_address() -> bytes:
    mode = rt.u8(rt.IFLA_INET6_ADDR_GEN_MODE, rt.IN6_ADDR_GEN_MODE_NONE)
    return rt.nested(_socket.AF_INET6, mode)


def _request(name: str) -> bytes:
    return _struct.pack("16s24x", name.encode("ascii"))  # struct ifreq


def _index(probe: _socket.socket, name: str) -> int:
    (index,) = _struct.unpack_from("=i", fcntl.ioctl(probe, _SIOCGIFINDEX, _request(name)), 16)
    return int(index)


def _address(probe: _socket.socket, name: str) -> tuple[str, int, bool]:
    """(first address, bits of its mask, whether the link is up); ("", 0, False) without link or address."""
    request = _request(name)
    try:
        (flags,) = _struct.unpack_from("=H", fcntl.ioctl(probe, _SIOCGIFFLAGS, request), 16)
        address = fcntl.ioctl(probe, _SIOCGIFADDR, request)[20:24]
        mask = fcntl.ioctl(probe, _SIOCGIFNETMASK, request)[20:24]
    except OSError as error:
        if error.errno in (_errno.ENODEV, _errno.EADDRNOTAVAIL):
            return "", 0, False
        raise
    bits = int.from_bytes(mask, "big").bit_count()
    return _socket.inet_ntop(_socket.AF_INET, address), bits, bool(flags & rt.IFF_UP)


def _refuse_other(there: tuple[str, int, bool], attachment: Attachment) -> None:
    """Raises Conflict if the bridge has another address: two networks would remove each other's rules."""
    address, bits, _ = there
    if address and (address, bits) != (attachment.gateway, attachment.prefix):
        raise Conflict(
            f"network {attachment.bridge}: the bridge has the address {address}/{bits},"
            f" this container's is {attachment.gateway}/{attachment.prefix}",
            hint="in sysbox.conf, give another Subnet= another Bridge=; or, without containers on it,"
            f" `ip link delete {attachment.bridge}`",
        )


def _write_sysctl(name: str, value: str, *, missing_ok: bool) -> None:
    path = f"/proc/sys/{name}"
    try:
        fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
    except FileNotFoundError as error:
        if missing_ok:
            return
        raise KernelError.of("open", path, error) from None
    except OSError as error:
        raise KernelError.of("open", path, error) from None
    try:
        posix.write(fd, value.encode("ascii"))
    except OSError as error:
        raise KernelError.of(f"write {value} to", path, error) from None
    finally:
        posix.close(fd)
