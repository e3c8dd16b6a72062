"""What a bridge is made of, and why it is not made: for the first container of a network."""

from __future__ import annotations

from sysbox.base.errors import Conflict, Unsupported
from sysbox.host import read_text
from sysbox.netns import rtnetlink as rt
from sysbox.netns import subnets
from sysbox.netns.topology import bridge_mac

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.netns.attachment import Attachment


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
                _vlan(attachment.vlan),
            ),
        ),
    )
    flags = rt.NLM_F_CREATE | rt.NLM_F_EXCL
    return rt.Message(rt.RTM_NEWLINK, flags, b"".join(body), f"make the bridge {attachment.bridge}")


def _vlan(number: int) -> bytes:
    """The attributes of a bridge with VLANs: it and each new port are untagged members of this one."""
    if not number:
        return b""
    return rt.u8(rt.IFLA_BR_VLAN_FILTERING, 1) + rt.u16(rt.IFLA_BR_VLAN_DEFAULT_PVID, number)


def check_vlan(attachment: Attachment) -> None:
    """Raises Unsupported if the bridge looks at no tags: a kernel without VLANs ignores the attributes."""
    if read_text(f"/sys/class/net/{attachment.bridge}/bridge/vlan_filtering").strip() != "1":
        raise Unsupported(
            f"network {attachment.network}: this kernel's bridges have no VLANs",
            hint="make the network again without --opt vlan=",
        )


def refuse_overlap(attachment: Attachment) -> None:
    """Raises Conflict if another link of this host has a route to the network's subnets."""
    here = subnets.routes(read_text("/proc/net/route"), "")
    taken = subnets.taken(attachment.subnet, here, attachment.bridge)
    if taken and not attachment.network_id:
        raise Conflict(
            f"network {attachment.bridge}: its subnet {attachment.subnet} overlaps the route {taken}",
            hint="remove the route, choose another Subnet= in sysbox.conf, or use --network host or none",
        )
    if not taken and attachment.subnet6:
        here = subnets.routes("", read_text("/proc/net/ipv6_route"))
        taken = subnets.taken(attachment.subnet6, here, attachment.bridge)
    if taken:
        raise Conflict(
            f"network {attachment.network}: one of its subnets overlaps the route {taken}",
            hint="remove the route, or make the network again with another --subnet",
        )


def refuse_other(there: tuple[str, int, bool], attachment: Attachment) -> None:
    """Raises Conflict if the bridge has another address: two networks would remove each other's rules."""
    address, bits, _ = there
    if address and (address, bits) != (attachment.gateway, attachment.prefix):
        raise Conflict(
            f"network {attachment.bridge}: the bridge has the address {address}/{bits},"
            f" this container's is {attachment.gateway}/{attachment.prefix}",
            hint="make the network again with another --interface-name"
            if attachment.network_id
            else "in sysbox.conf, give another Subnet= another Bridge=; or, without containers on it,"
            f" `ip link delete {attachment.bridge}`",
        )
