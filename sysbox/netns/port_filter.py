"""The filter at a container's end of the bridge: nothing leaves it with an address of another.

A container with NET_RAW could otherwise answer for its neighbours and for the gateway (ARP, neighbour
discovery, router advertisements: CVE-2020-13401), and send in their names. The filter is a program of classic
BPF at the ingress of the host's end (tc-bpf(8)): it needs no rules of a packet filter, works with each of
them, and ends with the link. `program` is pure.
"""

from __future__ import annotations

import _socket
import _struct
import errno as _errno

from sysbox.base.errors import KernelError
from sysbox.netns import classic_bpf as bpf
from sysbox.netns import rtnetlink as rt
from sysbox.netns.rules import packed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sysbox.netns.attachment import Attachment

_RTM_NEWQDISC, _RTM_NEWTFILTER = 36, 44
_TCMSG = _struct.Struct("=BxHiIII")  # struct tcmsg: family, index, handle, parent, info
_CLSACT, _CLSACT_HANDLE = 0xFFFFFFF1, 0xFFFF0000  # linux/pkt_sched.h
# the hooks of the host's end: what a container sends comes in there
INGRESS, EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
_FIRST = 1 << 16  # priority 1, of all protocols
_ALL_PROTOCOLS = _socket.htons(3)  # ETH_P_ALL
_TCA_KIND, _TCA_OPTIONS = 1, 2
_BPF_LENGTH, _BPF_PROGRAM, _BPF_FLAGS = 4, 5, 8  # linux/pkt_cls.h: TCA_BPF_OPS_LEN, _OPS, _FLAGS
_DIRECT = 1  # TCA_BPF_FLAG_ACT_DIRECT: what the program returns is the verdict
_SIOCGIFINDEX = 0x8933
# what the kernel answers where it lacks sch_ingress or cls_bpf
_LACKING = (_errno.ENOENT, _errno.EOPNOTSUPP)

# offsets in an Ethernet frame
_ARP_SENDER_MAC, _ARP_SENDER, _ARP_LEAST = 22, 28, 42
_TARGET, _TARGET_END = 62, 78  # of a neighbour advertisement
_HOP_BY_HOP, _ROUTING, _OPTIONS, _MOBILITY = 0, 43, 60, 135
_ROUTER_ADVERTISEMENT, _NEIGHBOUR_ADVERTISEMENT, _REDIRECT = 134, 136, 137
_LISTENER = (
    130,
    131,
    132,
    143,
)  # multicast listener discovery, behind a hop-by-hop option (RFC 3810)


def install(attached: Iterable[Attachment]) -> bool:
    """Filter what comes from these links of the host's; False where the kernel cannot. Raises KernelError."""
    found: list[rt.Message] = []
    for one, index in indexes(attached):
        addresses = tuple(filter(None, (one.address, one.address6)))
        found += [hooks(index, one.host_link),
                  attach(index, one.host_link, program(one.mac, addresses))]  # fmt: skip
    return carry_out(found)


def carry_out(found: list[rt.Message]) -> bool:
    """Send messages of `hooks` and `attach`; False where the kernel cannot. Raises KernelError."""
    if not found:
        return True
    with rt.Socket() as link:
        results = link.attempt(found)
    if any(code in _LACKING for _, code, _ in results):
        return False
    # EEXIST: the filter of a port that was set up before is replaced
    rt.Socket.check(results, ignore=(_errno.EEXIST,))
    return True


def indexes(attached: Iterable[Attachment]) -> list[tuple[Attachment, int]]:
    """The host's ends of links, with their interface indexes. Raises KernelError."""
    wanted = [one for one in attached if one.host_link]
    if not wanted:
        return []
    probe = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        return [(one, _index(probe, one.host_link)) for one in wanted]
    except OSError as error:
        raise KernelError.of("look up the link of", "a container", error) from None
    finally:
        probe.close()


def _index(probe: _socket.socket, name: str) -> int:
    import fcntl

    request = _struct.pack("16s24x", name.encode("ascii"))
    (index,) = _struct.unpack_from("=i", fcntl.ioctl(probe, _SIOCGIFINDEX, request), 16)
    return int(index)


def hooks(index: int, name: str) -> rt.Message:
    """The message that lets filters be attached to a link."""
    queue = _TCMSG.pack(0, 0, index, _CLSACT_HANDLE, _CLSACT, 0) + rt.text(_TCA_KIND, "clsact")
    flags = rt.NLM_F_CREATE | rt.NLM_F_EXCL
    return rt.Message(_RTM_NEWQDISC, flags, queue, f"prepare {name} for a filter")


def attach(index: int, name: str, code: bytes, hook: int = INGRESS, handle: int = 1) -> rt.Message:
    """The message that makes a program a filter of a link, in place of one of the same hook and handle."""
    options = rt.nested(
        _TCA_OPTIONS,
        rt.attribute(_BPF_LENGTH, _struct.pack("=H", len(code) // bpf.SIZE)),
        rt.attribute(_BPF_PROGRAM, code),
        rt.u32(_BPF_FLAGS, _DIRECT),
    )
    body = head(index, hook, handle) + options
    return rt.Message(_RTM_NEWTFILTER, rt.NLM_F_CREATE, body, f"filter what {name} carries")


def head(index: int, hook: int, handle: int) -> bytes:
    """What names a filter of a link: the beginning of each message about it."""
    named = _TCMSG.pack(0, 0, index, handle, hook, _FIRST | _ALL_PROTOCOLS)
    return named + rt.text(_TCA_KIND, "bpf")


def program(mac: str, addresses: tuple[str, ...]) -> bytes:
    """What lets only frames pass that this container may send: by its MAC, its addresses, their protocols."""
    hardware = bytes.fromhex(mac.replace(":", ""))
    four = [packed(one) for one in addresses if ":" not in one]
    six = [packed(one) for one in addresses if ":" in one]
    code = bpf.Code()
    code.load(bpf.LOAD4, bpf.VLAN_TAG)
    code.unless(0, "drop")  # a tagged frame would reach others' VLANs
    code.equal_bytes(bpf.SOURCE_MAC, hardware, otherwise="drop")
    code.load(bpf.LOAD2, bpf.TYPE)
    code.when(bpf.IP4, "ip4")
    code.when(bpf.ARP, "arp")
    if six:
        code.when(bpf.IP6, "ip6")
    code.give(bpf.DROP)

    code.label("ip4")
    code.at_least(bpf.IP4_LEAST)
    code.any_of(bpf.IP4_SOURCE, four, then="pass")
    code.give(bpf.DROP)

    code.label("arp")
    code.at_least(_ARP_LEAST)
    code.equal_bytes(_ARP_SENDER_MAC, hardware, otherwise="drop")
    # the sender of a probe has no address yet (RFC 5227)
    code.any_of(_ARP_SENDER, [*four, bytes(4)], then="pass")
    code.give(bpf.DROP)

    if six:
        _ip6(code, [*six, _link_local(hardware)])
    code.label("pass")
    code.give(bpf.PASS)
    code.label("drop")
    code.give(bpf.DROP)
    return code.assemble()


def _ip6(code: bpf.Code, own: list[bytes]) -> None:
    code.label("ip6")
    code.at_least(bpf.IP6_PAYLOAD)
    # a multicast listener may have no address yet (RFC 3590)
    code.any_of(bpf.IP6_SOURCE, [*own, bytes(16)], then="sender")
    code.give(bpf.DROP)
    code.label("sender")
    code.load(bpf.LOAD1, bpf.IP6_NEXT)
    code.when(bpf.ICMP6, "icmp6")
    code.when(_HOP_BY_HOP, "hop")
    # behind these headers neighbour discovery could hide; fragments of it are ignored (RFC 6980)
    for header in (_ROUTING, _OPTIONS, _MOBILITY):
        code.when(header, "drop")
    code.give(bpf.PASS)
    code.label("icmp6")
    code.load(bpf.LOAD1, bpf.IP6_PAYLOAD)
    code.when(_ROUTER_ADVERTISEMENT, "drop")
    code.when(_REDIRECT, "drop")
    code.unless(_NEIGHBOUR_ADVERTISEMENT, "pass")
    code.at_least(_TARGET_END)
    code.any_of(_TARGET, own, then="pass")
    code.give(bpf.DROP)
    code.label("hop")
    code.load(bpf.LOAD1, bpf.IP6_PAYLOAD)
    code.unless(bpf.ICMP6, "drop")
    code.load(bpf.LOAD1, bpf.IP6_PAYLOAD + 1)
    code.unless(0, "drop")  # its length: 8 bytes
    code.load(bpf.LOAD1, bpf.IP6_PAYLOAD + 8)
    for kind in _LISTENER:
        code.when(kind, "pass")
    code.give(bpf.DROP)


def _link_local(hardware: bytes) -> bytes:
    """The link-local address of a MAC (RFC 4291, appendix A)."""
    flipped = bytes((hardware[0] ^ 2,)) + hardware[1:3] + b"\xff\xfe" + hardware[3:]
    return b"\xfe\x80" + bytes(6) + flipped
