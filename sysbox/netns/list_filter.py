"""The networks with which a container's links may exchange packets: --ip-allow and --ip-deny, at the links.

systemd's programs on the scope's cgroup do it for its sockets (units/cgroup/packets.py). At the host's end of
each link these programs of classic BPF do it for everything else that comes by: whole frames of a packet(7)
socket, and all packets where systemd can attach no programs. `program` is pure.
"""

from __future__ import annotations

import _socket
import errno as _errno

from sysbox.base.errors import Unsupported
from sysbox.netns import classic_bpf as bpf
from sysbox.netns import port_filter
from sysbox.netns import rtnetlink as rt
from sysbox.netns.rules import packed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sysbox.netns.attachment import Attachment
    from sysbox.parse.addresses import Network

_RTM_DELTFILTER, _RTM_GETTFILTER = 45, 46
_HANDLE = 2  # beside that of port_filter.py, with which it is asked in turn
_HOOKS = (port_filter.INGRESS, port_filter.EGRESS)
_ABSENT = (_errno.ENOENT, _errno.EINVAL)  # no such filter; no hook for any
_SOLICITATION, _ADVERTISEMENT = 135, 136  # neighbour discovery (RFC 4861): IPv6's ARP
_ON_LINK = 255  # its hop limit, with which no packet comes from elsewhere
# where neighbour discovery goes: of the link alone, so no packet of it leaves the network
_NEAR = (("ff02::", 16), ("fe80::", 10))


class Lists:
    """What a scope allows, and what it denies: networks as systemd has them."""

    __slots__ = ("allow", "deny")

    def __init__(self, allow: list[Network], deny: list[Network]) -> None:
        self.allow = allow
        self.deny = deny


def install(attached: Iterable[Attachment], lists: Lists) -> None:
    """Filter what comes by these links, in place of earlier lists; without a denied network nothing is.

    Raises Unsupported where the kernel cannot, or the lists are too long for it; KernelError.
    """
    if not lists.deny:
        remove(attached)
        return
    found: list[rt.Message] = []
    for one, index in port_filter.indexes(attached):
        found.append(port_filter.hooks(index, one.host_link))
        for hook in _HOOKS:
            code = program(lists, sent=hook == port_filter.INGRESS, gateway6=one.gateway6)
            found.append(port_filter.attach(index, one.host_link, code, hook, _HANDLE))
    if not port_filter.carry_out(found):
        raise Unsupported(
            "--ip-deny: this kernel cannot filter with BPF at a link",
            hint="load the modules sch_ingress and cls_bpf",
        )


def remove(attached: Iterable[Attachment]) -> None:
    """Filter nothing at these links any more; no filter is success. Raises KernelError."""
    messages = _about(attached, _RTM_DELTFILTER, "remove the filter of")
    if messages:
        with rt.Socket() as link:
            link.check(link.attempt(messages), ignore=_ABSENT)


def in_place(attached: Iterable[Attachment]) -> bool:
    """Whether each of these links has its filters; a container without links has all. Raises KernelError."""
    messages = _about(attached, _RTM_GETTFILTER, "look for the filter of")
    if not messages:
        return True
    with rt.Socket() as link:
        results = link.attempt(messages)
    link.check(results, ignore=_ABSENT)
    return not any(code for _, code, _ in results)


def _about(attached: Iterable[Attachment], kind: int, what: str) -> list[rt.Message]:
    return [
        rt.Message(kind, 0, port_filter.head(index, hook, _HANDLE), f"{what} {one.host_link}")
        for one, index in port_filter.indexes(attached)
        for hook in _HOOKS
    ]


def program(lists: Lists, *, sent: bool, gateway6: str = "") -> bytes:
    """What lets only the packets pass that the lists let pass: by the destination of what the container
    sends, by the source of what it receives.

    ARP passes, and so does neighbour discovery; other protocols than IP, and tagged frames, do not. Raises
    Unsupported.
    """
    code = bpf.Code()
    code.load(bpf.LOAD4, bpf.VLAN_TAG)
    code.unless(0, "tagged")
    code.load(bpf.LOAD2, bpf.TYPE)
    code.when(bpf.ARP, "arp")
    code.when(bpf.IP4, "ip4")
    code.when(bpf.IP6, "ip6")
    code.label("tagged")
    code.give(bpf.DROP)
    code.label("arp")
    code.give(bpf.PASS)
    code.label("ip6")
    code.goto("far ip6")

    code.label("ip4")
    code.at_least(bpf.IP4_LEAST)
    offset = bpf.IP4_DESTINATION if sent else bpf.IP4_SOURCE
    _decide(code, lists, _socket.AF_INET, offset)

    code.label("far ip6")
    code.at_least(bpf.IP6_PAYLOAD)
    _neighbours(code, gateway6, sent=sent)
    offset = bpf.IP6_DESTINATION if sent else bpf.IP6_SOURCE
    _decide(code, lists, _socket.AF_INET6, offset)
    if code.length > bpf.MOST:
        raise Unsupported(
            f"--ip-deny: {len(lists.allow) + len(lists.deny)} networks are too many for a filter of a link",
            hint="give fewer and larger networks",
        )
    return code.assemble()


def _decide(code: bpf.Code, lists: Lists, family: int, offset: int) -> None:
    for networks, verdict in ((lists.allow, bpf.PASS), (lists.deny, bpf.DROP)):
        for one, address, bits in networks:
            if one == family:
                code.within(offset, bytes(address), bits, verdict)
    code.give(bpf.PASS)


def _neighbours(code: bpf.Code, gateway6: str, *, sent: bool) -> None:
    """Let neighbour discovery pass: what the container sends of it only on its link."""
    code.load(bpf.LOAD1, bpf.IP6_NEXT)
    code.unless(bpf.ICMP6, "no neighbour")
    code.load(bpf.LOAD1, bpf.IP6_HOPS)
    code.unless(_ON_LINK, "no neighbour")
    code.load(bpf.LOAD1, bpf.IP6_PAYLOAD)
    code.when(_SOLICITATION, "neighbour")
    code.unless(_ADVERTISEMENT, "no neighbour")
    code.label("neighbour")
    if sent:
        for base, bits in (*_NEAR, *([(gateway6, 128)] if gateway6 else [])):
            code.within(bpf.IP6_DESTINATION, packed(base), bits, bpf.PASS)
    else:
        code.give(bpf.PASS)
    code.label("no neighbour")
