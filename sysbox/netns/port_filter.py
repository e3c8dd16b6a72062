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
from sysbox.netns import rtnetlink as rt
from sysbox.netns.rules import packed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sysbox.netns.attachment import Attachment

_RTM_NEWQDISC, _RTM_NEWTFILTER = 36, 44
_TCMSG = _struct.Struct("=BxHiIII")  # struct tcmsg: family, index, handle, parent, info
_CLSACT, _CLSACT_HANDLE, _INGRESS = 0xFFFFFFF1, 0xFFFF0000, 0xFFFFFFF2  # linux/pkt_sched.h
_FIRST = 1 << 16  # priority 1, of all protocols
_ALL_PROTOCOLS = _socket.htons(3)  # ETH_P_ALL
_TCA_KIND, _TCA_OPTIONS = 1, 2
_BPF_LENGTH, _BPF_PROGRAM, _BPF_FLAGS = 4, 5, 8  # linux/pkt_cls.h: TCA_BPF_OPS_LEN, _OPS, _FLAGS
_DIRECT = 1  # TCA_BPF_FLAG_ACT_DIRECT: what the program returns is the verdict
_PASS, _DROP = 0xFFFFFFFF, 2  # TC_ACT_UNSPEC: the next filter decides; TC_ACT_SHOT
_SIOCGIFINDEX = 0x8933
# what the kernel answers where it lacks sch_ingress or cls_bpf
_LACKING = (_errno.ENOENT, _errno.EOPNOTSUPP)

# instructions of classic BPF (linux/filter.h)
_LOAD4, _LOAD2, _LOAD1, _LENGTH = 0x20, 0x28, 0x30, 0x80
_EQUAL, _AT_LEAST, _RETURN = 0x15, 0x35, 0x06
_INSTRUCTION = _struct.Struct("=HBBI")
_VLAN_TAG = 0xFFFFF000 + 48  # SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT
# offsets in an Ethernet frame
_SOURCE_MAC, _TYPE = 6, 12
_IP4, _ARP, _IP6 = 0x0800, 0x0806, 0x86DD
_IP4_SOURCE, _IP4_LEAST = 26, 34
_ARP_SENDER_MAC, _ARP_SENDER, _ARP_LEAST = 22, 28, 42
_IP6_NEXT, _IP6_SOURCE, _IP6_PAYLOAD = 20, 22, 54
_TARGET, _TARGET_END = 62, 78  # of a neighbour advertisement
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _ICMP6, _OPTIONS, _MOBILITY = 0, 43, 44, 58, 60, 135
_ROUTER_ADVERTISEMENT, _NEIGHBOUR_ADVERTISEMENT, _REDIRECT = 134, 136, 137
_LISTENER = (
    130,
    131,
    132,
    143,
)  # multicast listener discovery, behind a hop-by-hop option (RFC 3810)


def install(attached: Iterable[Attachment]) -> bool:
    """Filter what comes from these links of the host's; False where the kernel cannot. Raises KernelError."""
    wanted = [one for one in attached if one.host_link]
    if not wanted:
        return True
    probe = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    found: list[rt.Message] = []
    try:
        for one in wanted:
            index = _index(probe, one.host_link)
            addresses = tuple(filter(None, (one.address, one.address6)))
            found += messages(index, one.host_link, program(one.mac, addresses))
    except OSError as error:
        raise KernelError.of("look up the link of", "a container", error) from None
    finally:
        probe.close()
    with rt.Socket() as link:
        results = link.attempt(found)
    if any(code in _LACKING for _, code, _ in results):
        return False
    # EEXIST: the filter of a port that was set up before is replaced by the second message
    rt.Socket.check(results, ignore=(_errno.EEXIST,))
    return True


def _index(probe: _socket.socket, name: str) -> int:
    import fcntl

    request = _struct.pack("16s24x", name.encode("ascii"))
    (index,) = _struct.unpack_from("=i", fcntl.ioctl(probe, _SIOCGIFINDEX, request), 16)
    return int(index)


def messages(index: int, name: str, code: bytes) -> list[rt.Message]:
    """The two messages that make a program the filter of a link."""
    queue = _TCMSG.pack(0, 0, index, _CLSACT_HANDLE, _CLSACT, 0) + rt.text(_TCA_KIND, "clsact")
    options = rt.nested(
        _TCA_OPTIONS,
        rt.attribute(_BPF_LENGTH, _struct.pack("=H", len(code) // _INSTRUCTION.size)),
        rt.attribute(_BPF_PROGRAM, code),
        rt.u32(_BPF_FLAGS, _DIRECT),
    )
    head = _TCMSG.pack(0, 0, index, 1, _INGRESS, _FIRST | _ALL_PROTOCOLS)
    flags = rt.NLM_F_CREATE
    what = f"filter what comes from {name}"
    return [
        rt.Message(_RTM_NEWQDISC, flags | rt.NLM_F_EXCL, queue, what),
        rt.Message(_RTM_NEWTFILTER, flags, head + rt.text(_TCA_KIND, "bpf") + options, what),
    ]


def program(mac: str, addresses: tuple[str, ...]) -> bytes:
    """What lets only frames pass that this container may send: by its MAC, its addresses, their protocols."""
    hardware = bytes.fromhex(mac.replace(":", ""))
    four = [packed(one) for one in addresses if ":" not in one]
    six = [packed(one) for one in addresses if ":" in one]
    code = _Code()
    code.load(_LOAD4, _VLAN_TAG)
    code.unless(0, "drop")  # a tagged frame would reach others' VLANs
    code.equal_bytes(_SOURCE_MAC, hardware, otherwise="drop")
    code.load(_LOAD2, _TYPE)
    code.when(_IP4, "ip4")
    code.when(_ARP, "arp")
    if six:
        code.when(_IP6, "ip6")
    code.give(_DROP)

    code.label("ip4")
    code.at_least(_IP4_LEAST)
    code.any_of(_IP4_SOURCE, four, then="pass")
    code.give(_DROP)

    code.label("arp")
    code.at_least(_ARP_LEAST)
    code.equal_bytes(_ARP_SENDER_MAC, hardware, otherwise="drop")
    # the sender of a probe has no address yet (RFC 5227)
    code.any_of(_ARP_SENDER, [*four, bytes(4)], then="pass")
    code.give(_DROP)

    if six:
        _ip6(code, [*six, _link_local(hardware)])
    code.label("pass")
    code.give(_PASS)
    code.label("drop")
    code.give(_DROP)
    return code.assemble()


def _ip6(code: _Code, own: list[bytes]) -> None:
    code.label("ip6")
    code.at_least(_IP6_PAYLOAD)
    # a multicast listener may have no address yet (RFC 3590)
    code.any_of(_IP6_SOURCE, [*own, bytes(16)], then="sender")
    code.give(_DROP)
    code.label("sender")
    code.load(_LOAD1, _IP6_NEXT)
    code.when(_ICMP6, "icmp6")
    code.when(_HOP_BY_HOP, "hop")
    # behind these headers neighbour discovery could hide; fragments of it are ignored (RFC 6980)
    for header in (_ROUTING, _OPTIONS, _MOBILITY):
        code.when(header, "drop")
    code.give(_PASS)
    code.label("icmp6")
    code.load(_LOAD1, _IP6_PAYLOAD)
    code.when(_ROUTER_ADVERTISEMENT, "drop")
    code.when(_REDIRECT, "drop")
    code.unless(_NEIGHBOUR_ADVERTISEMENT, "pass")
    code.at_least(_TARGET_END)
    code.any_of(_TARGET, own, then="pass")
    code.give(_DROP)
    code.label("hop")
    code.load(_LOAD1, _IP6_PAYLOAD)
    code.unless(_ICMP6, "drop")
    code.load(_LOAD1, _IP6_PAYLOAD + 1)
    code.unless(0, "drop")  # its length: 8 bytes
    code.load(_LOAD1, _IP6_PAYLOAD + 8)
    for kind in _LISTENER:
        code.when(kind, "pass")
    code.give(_DROP)


def _link_local(hardware: bytes) -> bytes:
    """The link-local address of a MAC (RFC 4291, appendix A)."""
    flipped = bytes((hardware[0] ^ 2,)) + hardware[1:3] + b"\xff\xfe" + hardware[3:]
    return b"\xfe\x80" + bytes(6) + flipped


class _Code:
    """Instructions with named targets, which are all further down."""

    def __init__(self) -> None:
        self._made: list[tuple[int, str, str, int]] = []  # code, target if true, if not, operand
        self._labels: dict[str, int] = {}
        self._names = 0

    def label(self, name: str) -> None:
        self._labels[name] = len(self._made)

    def load(self, size: int, offset: int) -> None:
        """Load from the frame; beyond its end the program ends, and the frame passes: see `at_least`."""
        self._made.append((size, "", "", offset))

    def when(self, value: int, target: str) -> None:
        self._made.append((_EQUAL, target, "", value))

    def unless(self, value: int, target: str) -> None:
        self._made.append((_EQUAL, "", target, value))

    def at_least(self, length: int) -> None:
        """Drop a shorter frame."""
        self._made.append((_LENGTH, "", "", 0))
        self._made.append((_AT_LEAST, "", "drop", length))

    def give(self, verdict: int) -> None:
        self._made.append((_RETURN, "", "", verdict))

    def equal_bytes(self, offset: int, value: bytes, otherwise: str) -> None:
        """Go on if the frame has these bytes, of which there are a multiple of two."""
        at = 0
        while at < len(value):
            size = 4 if len(value) - at >= 4 else 2
            self.load(_LOAD4 if size == 4 else _LOAD2, offset + at)
            self.unless(int.from_bytes(value[at : at + size], "big"), otherwise)
            at += size

    def any_of(self, offset: int, values: list[bytes], then: str) -> None:
        """Go to `then` if the frame has one of these values."""
        for value in values:
            self._names += 1
            other = f"other {self._names}"
            *most, last = [value[at : at + 4] for at in range(0, len(value), 4)]
            for number, word in enumerate(most):
                self.load(_LOAD4, offset + number * 4)
                self.unless(int.from_bytes(word, "big"), other)
            self.load(_LOAD4, offset + len(most) * 4)
            self.when(int.from_bytes(last, "big"), then)
            self.label(other)

    def assemble(self) -> bytes:
        def distance(at: int, target: str) -> int:
            return self._labels[target] - at - 1 if target else 0

        return b"".join(
            _INSTRUCTION.pack(code, distance(at, yes), distance(at, no), operand)
            for at, (code, yes, no, operand) in enumerate(self._made)
        )
