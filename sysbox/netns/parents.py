"""Links of the host that links of containers are below: the parents of macvlan and ipvlan.

A VLAN such as eth0.20 that the host lacks is made on eth0 by the network's first container, and goes with the
last. So is, and does, a dummy for an internal network that names no parent. Such a link is known by its alias
(ip-link(8)); a link of another program stays as it is.
"""

from __future__ import annotations

import _socket
import errno as _errno
import time

from sysbox.base.errors import Conflict, KernelError, NotFound, SysboxError, Unsupported
from sysbox.base.files import read_file, unlink, write_file
from sysbox.host import exists, read_text
from sysbox.netns import interfaces, leases
from sysbox.netns import rtnetlink as rt
from sysbox.netns.network import MACVLAN, bridge_name, vlan_of
from sysbox.netns.topology import shares_mac

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.netns.attachment import Attachment
    from sysbox.netns.network import Network

# linux/if_link.h
_MACVLAN = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
_IPVLAN = {"l2": 0, "l3": 1, "l3s": 2}
_STEP, _TRIES = 0.01, 200  # seconds, and how often
_LINKS = "/sys/class/net"


def ensure(one: Attachment) -> int:
    """Make sure that the parent of a container's link is there and up; returns its interface index.

    Raises NotFound, Conflict where it is down, Unsupported, KernelError.
    """
    probe = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        if interfaces.flags(probe, one.parent) < 0:
            with leases.NetworkLock(one.network_id):
                _make(probe, one)
        _need_up(probe, one, one.parent)
        return interfaces.index(probe, one.parent)
    except OSError as error:
        raise KernelError.of("look up the parent", one.parent, error) from None
    finally:
        probe.close()


def _need_up(probe: _socket.socket, one: Attachment, name: str) -> None:
    flags = interfaces.flags(probe, name)
    if flags < 0:
        raise NotFound(
            f"network {one.network}: its parent {one.parent} is not there"
            + (f", nor {name}, which it would be made on" if name != one.parent else ""),
            hint=f"make {name}, or the network again with another --opt parent=",
        )
    if not flags & rt.IFF_UP:
        raise Conflict(
            f"network {one.network}: its parent {name} is down", hint=f"`ip link set {name} up`"
        )


def _make(probe: _socket.socket, one: Attachment) -> None:
    """Make a VLAN or a dummy. The caller holds the network's lock. Raises as `ensure`."""
    if interfaces.flags(probe, one.parent) >= 0:
        return  # another start was faster
    base, number = vlan_of(one.parent)
    if number:
        _need_up(probe, one, base)
        below = rt.u32(rt.IFLA_LINK, interfaces.index(probe, base))
        kind, data = "vlan", rt.nested(rt.IFLA_INFO_DATA, rt.u16(rt.IFLA_VLAN_ID, number))
    elif one.parent == bridge_name(one.network_id):
        kind, below, data = "dummy", b"", b""
    else:
        return
    what = f"make the link {one.parent}"
    body = rt.ifinfo() + rt.text(rt.IFLA_IFNAME, one.parent) + below
    body += rt.nested(rt.IFLA_LINKINFO, rt.text(rt.IFLA_INFO_KIND, kind), data)
    # what the kernel accepts only for an existing link; the host has no address there
    quiet = rt.u8(rt.IFLA_INET6_ADDR_GEN_MODE, rt.IN6_ADDR_GEN_MODE_NONE)
    settings = (
        rt.ifinfo(),
        rt.text(rt.IFLA_IFNAME, one.parent),
        rt.text(rt.IFLA_IFALIAS, _alias(one.network_id)),
        rt.nested(rt.IFLA_AF_SPEC, rt.nested(_socket.AF_INET6, quiet)),
    )
    # by a message of its own: in one that also sets the link up the address comes first
    up = rt.ifinfo(0, rt.IFF_UP, rt.IFF_UP) + rt.text(rt.IFLA_IFNAME, one.parent)
    with rt.Socket() as link:
        made = link.attempt(
            [rt.Message(rt.RTM_NEWLINK, rt.NLM_F_CREATE | rt.NLM_F_EXCL, body, what)]
        )
        if made[0][1] == _errno.EOPNOTSUPP:
            raise lacking(one.network, kind)
        link.check(made)
        what = f"set up {one.parent}"
        link.request(rt.Message(rt.RTM_NEWLINK, 0, body, what) for body in (b"".join(settings), up))


def lacking(network: str, kind: str) -> Unsupported:
    """That the kernel cannot make links of a kind."""
    module = {"vlan": "8021q"}.get(kind, kind)
    return Unsupported(
        f"network {network}: this kernel has no links of the kind {kind}",
        hint=f"load the module {module}, where the kernel has one",
    )


def connect(below: list[tuple[Attachment, int]], place: bytes) -> None:
    """Make links below parents, (what it is for, index of the parent), each in its namespace at once.

    `place` is `links.namespace`. Raises Conflict, NotFound, Unsupported, KernelError.
    """
    left = [(one, message(one, index, place)) for one, index in below]
    with rt.Socket() as link:
        for again in range(_TRIES - 1, -1, -1):
            results = link.attempt([made for _, made in left])
            failed = [
                (one, made, code, text)
                for (one, made), (_, code, text) in zip(left, results, strict=True)
                if code
            ]
            for one, made, code, text in failed:
                # the kernel may still be removing the network namespace of an earlier start
                if not again or one.mode != "passthru" or code != _errno.EINVAL:
                    raise _refusal(one, made, code, text)
            if not failed:
                return
            left = [(one, made) for one, made, _, _ in failed]
            time.sleep(_STEP)


def message(one: Attachment, index: int, place: bytes) -> rt.Message:
    """The message that makes a link below the parent with this index, in the container's namespace."""
    if one.driver == MACVLAN:
        mode = rt.u32(rt.IFLA_MACVLAN_MODE, _MACVLAN[one.mode])
    else:
        mode = rt.u16(rt.IFLA_IPVLAN_MODE, _IPVLAN[one.mode])
    body = (
        rt.ifinfo(),
        rt.text(rt.IFLA_IFNAME, one.interface),
        rt.u32(rt.IFLA_LINK, index),
        rt.u32(rt.IFLA_MTU, one.mtu) if one.mtu else b"",
        b"" if shares_mac(one) else rt.mac(rt.IFLA_ADDRESS, one.mac),
        place,
        rt.nested(
            rt.IFLA_LINKINFO,
            rt.text(rt.IFLA_INFO_KIND, one.driver),
            rt.nested(rt.IFLA_INFO_DATA, mode),
        ),
    )
    flags = rt.NLM_F_CREATE | rt.NLM_F_EXCL
    what = f"make a {one.driver} link below {one.parent}"
    return rt.Message(rt.RTM_NEWLINK, flags, b"".join(body), what)


def _refusal(one: Attachment, made: rt.Message, code: int, text: str) -> SysboxError:
    if code == _errno.EOPNOTSUPP:
        return lacking(one.network, one.driver)
    if code == _errno.ENODEV:
        return NotFound(
            f"network {one.network}: its parent {one.parent} is not there any more",
            hint=f"make {one.parent}, or the network again with another --opt parent=",
        )
    if code == _errno.EEXIST:
        return Conflict(
            f"network {one.network}: the container has a link {one.interface} already",
            hint="choose another name with interface_name=",
        )
    if code == _errno.EBUSY:
        return Conflict(
            f"network {one.network}: {one.parent} is a port of a bridge or a bond, or has links of another"
            " driver below it",
            hint=f"`ip -d link` tells; use another parent than {one.parent}",
        )
    if code == _errno.EINVAL and one.driver == MACVLAN:
        return Conflict(
            f"network {one.network}: {one.parent} has a macvlan link that allows no other, or any where this"
            " one allows none (passthru)",
            hint="only one link can be below a parent in the mode passthru",
        )
    return KernelError(made.what, "", code, hint=f"the kernel says: {text}" if text else "")


def mac_of(parent: str) -> str:
    """The MAC of a link of the host."""
    return read_text(f"{_LINKS}/{parent}/address").strip()


def host_addresses() -> set[str]:
    """The addresses of this host, of both families: no container on its wire can have one of them.

    The local routes of /proc/net/fib_trie have a line with the address before each that says so.
    """
    found: set[str] = set()
    before = ""
    for line in read_text("/proc/net/fib_trie", 16 << 20).splitlines():
        if line.endswith("/32 host LOCAL"):
            found.add(before.rpartition(" ")[2])
        before = line
    for line in read_text("/proc/net/if_inet6").splitlines():
        found.add(_socket.inet_ntop(_socket.AF_INET6, bytes.fromhex(line[:32])))
    return found


def note(one: Attachment) -> None:
    """Keep the parent's name for the end if it is to be made, or was. The caller holds the network's lock."""
    path = _file(one.network_id)
    if read_file(path) is not None:
        return
    if not exists(f"{_LINKS}/{one.parent}") or is_ours(one.parent, one.network_id):
        write_file(path, one.parent.encode("ascii"))


def noted(network_id: str) -> str:
    """The parent that goes with the last container of a network, or ""; no more after this.

    The caller holds the network's lock, and removes the link.
    """
    path = _file(network_id)
    name = (read_file(path) or b"").decode("ascii", "replace")
    unlink(path)
    return name if name and is_ours(name, network_id) else ""


def is_ours(name: str, network_id: str) -> bool:
    """Whether a link of the host was made for a network."""
    return read_text(f"{_LINKS}/{name}/ifalias").strip() == _alias(network_id)


def problem(network: Network) -> str:
    """What keeps containers of a network from reaching others, or "". Raises nothing."""
    probe = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        flags = interfaces.flags(probe, network.parent)
    finally:
        probe.close()
    if flags < 0:
        return f"its parent {network.parent} is missing"
    return "" if flags & rt.IFF_UP else f"its parent {network.parent} is down"


def _alias(network_id: str) -> str:
    return f"sysbox network {network_id[:12]}"


def _file(network_id: str) -> str:
    return f"{leases.directory(network_id)}/parent"
