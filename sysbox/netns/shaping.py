"""`--network-bandwidth`: what a container sends, and what it receives, goes through a queue of limited rate.

A filter on the host's end of each of its links redirects every frame to an ifb device of this container and
direction, whose token bucket lets it go on at the rate: tc-mirred(8), tc-tbf(8). So the limit is that of all
its links together, and nothing of it is in the container's own network namespace. The filter is tc-u32(8)
without a key: it matches frames of every protocol and length, and every kernel has it.
"""

from __future__ import annotations

import _struct
import errno as _errno
import posix

from sysbox.base.errors import KernelError, Unsupported
from sysbox.host import exists
from sysbox.netns import interfaces
from sysbox.netns import rtnetlink as rt
from sysbox.netns.topology import host_link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sysbox.netns.attachment import Attachment
    from sysbox.spec import Bandwidth

# linux/rtnetlink.h, linux/pkt_sched.h, linux/pkt_cls.h, linux/tc_act/tc_mirred.h
_RTM_NEWQDISC, _RTM_NEWTFILTER, _RTM_DELTFILTER = 36, 44, 45
_NLM_F_REPLACE = 0x100
_TCA_KIND, _TCA_OPTIONS = 1, 2
_ROOT, _CLSACT = 0xFFFFFFFF, 0xFFFFFFF1
_TCA_TBF_PARMS, _TCA_TBF_BURST = 1, 6
_LINKLAYER_ETHERNET = 1
_TCA_U32_SEL, _TCA_U32_ACT = 5, 7
_U32_TERMINAL = 1
_TCA_ACT_KIND, _TCA_ACT_OPTIONS, _TCA_MIRRED_PARMS = 1, 2, 2
_EGRESS_REDIRECT, _ACT_STOLEN = 1, 4
_TCMSG = _struct.Struct("=BxxxiIII")  # struct tcmsg: family, index, handle, parent, info
_RATESPEC = _struct.Struct("=BBHhHI")  # cell_log, linklayer, overhead, cell_align, mpu, rate
_U32_SEL = _struct.Struct("=BBBxHHhhI")  # struct tc_u32_sel without keys
_MIRRED = _struct.Struct("=IIiiiiI")  # struct tc_mirred
_EVERYTHING = 0x0300  # ETH_P_ALL in network order
_TICK = 64  # nanoseconds: PSCHED_SHIFT

_DIGITS = 10  # of the container's id, as in the names of its links
# direction -> start of the device's name, hook on the host's end (what a container sends comes in there), and
# the filter's priority: after that of port_filter.py; of one priority u32 would show each at both hooks
_DIRECTIONS = {"up": ("sbup", 0xFFFFFFF2, 2), "down": ("sbdn", 0xFFFFFFF3, 3)}
_BURST_MS, _QUEUE_MS = 4, 50  # a wait in the queue of at most 50 ms
_LEAST_BURST = 16 << 10  # bytes; more than a frame
_KIND = "ifb"
_MODULE = f"/sys/module/{_KIND}"
_PROGRAM = "/sbin/modprobe"


def device(container_id: str, direction: str) -> str:
    """The name of the device whose queue limits a container's direction: `up` or `down`."""
    return _DIRECTIONS[direction][0] + container_id[:_DIGITS]


def ends(container_id: str, attachments: Iterable[Attachment]) -> tuple[tuple[str, int], ...]:
    """The host's ends of a container's links, with their MTU in bytes."""
    return tuple((one.host_link or host_link(container_id), one.mtu) for one in attachments)


def limit(
    container_id: str, near: tuple[tuple[str, int], ...], now: Bandwidth, before: Bandwidth
) -> None:
    """Change the limits of a container from `before` to `now`.

    `near` is `ends` of its links: those that have just been made have no limit `before`. Raises KernelError,
    and Unsupported where the kernel lacks what it needs.
    """
    try:
        _limit(container_id, near, now, before)
    except KernelError as error:
        # unknown kinds: of a link, of a queue or a filter
        if error.errno not in (_errno.EOPNOTSUPP, _errno.ENOENT):
            raise
        raise Unsupported(
            f"--network-bandwidth: cannot {error.op}: this kernel lacks a part of it",
            hint="load the modules ifb, sch_ingress, sch_tbf, cls_u32 and act_mirred",
        ) from None


def _limit(
    container_id: str, near: tuple[tuple[str, int], ...], now: Bandwidth, before: Bandwidth
) -> None:
    mtu = max((mtu for _, mtu in near), default=0)
    for direction in _DIRECTIONS:
        rate, had = getattr(now, direction), getattr(before, direction)
        if rate:
            _set_rate(device(container_id, direction), rate, mtu)
        for name, _ in near:
            if rate and not had:
                _redirect(name, device(container_id, direction), direction)
            elif had and not rate:
                _release(name, direction)
        if had and not rate:
            _remove((device(container_id, direction),))


def remove(container_id: str) -> None:
    """Remove a container's devices; absent ones are success. Raises KernelError."""
    _remove(device(container_id, direction) for direction in _DIRECTIONS)


def _remove(names: Iterable[str]) -> None:
    messages = [
        rt.Message(
            rt.RTM_DELLINK,
            0,
            rt.ifinfo() + rt.text(rt.IFLA_IFNAME, name),
            f"remove the device {name}",
        )
        for name in names
    ]
    with rt.Socket() as link:
        link.check(link.attempt(messages), ignore=(_errno.ENODEV,))


def _set_rate(name: str, rate: int, mtu: int) -> None:
    _load_module()
    with rt.Socket() as link:
        link.check(link.attempt([_ifb(name)]), ignore=(_errno.EEXIST,))
        link.request([bucket(interfaces.index_of(name), name, rate, mtu)])


def _load_module() -> None:
    """Load the module of the devices as needed: loaded by the kernel it would make two of its own."""
    if exists(_MODULE):
        return
    try:
        pid = posix.posix_spawn(_PROGRAM, [_PROGRAM, "-q", _KIND, "numifbs=0"], {})
        posix.waitpid(pid, 0)
    except OSError:
        pass  # ignoring: it may be built in, or the kernel loads it; else making the device fails


def _ifb(name: str) -> rt.Message:
    body = (
        rt.ifinfo(0, rt.IFF_UP, rt.IFF_UP),
        rt.text(rt.IFLA_IFNAME, name),
        rt.u32(rt.IFLA_NUM_TX_QUEUES, 1),
        rt.u32(rt.IFLA_NUM_RX_QUEUES, 1),
        rt.nested(rt.IFLA_LINKINFO, rt.text(rt.IFLA_INFO_KIND, _KIND)),
    )
    flags = rt.NLM_F_CREATE | rt.NLM_F_EXCL
    return rt.Message(rt.RTM_NEWLINK, flags, b"".join(body), f"make the device {name} (ifb)")


def bucket(index: int, name: str, rate: int, mtu: int) -> rt.Message:
    """The message that makes or changes the token bucket of a device; `rate` in bytes per second."""
    burst = max(_LEAST_BURST, mtu + 100, rate * _BURST_MS // 1000)
    size = burst + rate * _QUEUE_MS // 1000
    ticks = min(burst * 10**9 // rate // _TICK, (1 << 32) - 1)
    parameters = b"".join(
        (
            _RATESPEC.pack(0, _LINKLAYER_ETHERNET, 0, 0, 0, rate),
            bytes(_RATESPEC.size),  # no peak rate
            _struct.pack("=III", size, ticks, 0),
        )
    )
    options = rt.nested(
        _TCA_OPTIONS, rt.attribute(_TCA_TBF_PARMS, parameters), rt.u32(_TCA_TBF_BURST, burst)
    )
    body = _TCMSG.pack(0, index, 0x10000, _ROOT, 0) + rt.text(_TCA_KIND, "tbf") + options
    flags = rt.NLM_F_CREATE | _NLM_F_REPLACE
    return rt.Message(_RTM_NEWQDISC, flags, body, f"limit the rate of {name} (tbf)")


def _redirect(name: str, to: str, direction: str) -> None:
    index, target = interfaces.index_of(name), interfaces.index_of(to)
    with rt.Socket() as link:
        link.check(link.attempt([hooks(index, name)]), ignore=(_errno.EEXIST,))
        link.request([redirection(index, name, target, direction)])


def hooks(index: int, name: str) -> rt.Message:
    """The message that lets filters be attached to a link, in both directions (clsact, tc(8))."""
    body = _TCMSG.pack(0, index, 0xFFFF0000, _CLSACT, 0) + rt.text(_TCA_KIND, "clsact")
    flags = rt.NLM_F_CREATE | rt.NLM_F_EXCL
    return rt.Message(_RTM_NEWQDISC, flags, body, f"prepare {name} for filters (clsact)")


def _filter(index: int, direction: str) -> bytes:
    """struct tcmsg of the filter of a link and a direction."""
    _, hook, priority = _DIRECTIONS[direction]
    return _TCMSG.pack(0, index, 0, hook, priority << 16 | _EVERYTHING)


def redirection(index: int, name: str, target: int, direction: str) -> rt.Message:
    """The message that sends all frames of a link's direction through the device `target`."""
    mirred = _MIRRED.pack(0, 0, _ACT_STOLEN, 0, 0, _EGRESS_REDIRECT, target)
    action = rt.nested(
        1,
        rt.text(_TCA_ACT_KIND, "mirred"),
        rt.nested(_TCA_ACT_OPTIONS, rt.attribute(_TCA_MIRRED_PARMS, mirred)),
    )
    selector = _U32_SEL.pack(_U32_TERMINAL, 0, 0, 0, 0, 0, 0, 0)
    options = rt.nested(
        _TCA_OPTIONS, rt.attribute(_TCA_U32_SEL, selector), rt.nested(_TCA_U32_ACT, action)
    )
    head = _filter(index, direction)
    flags = rt.NLM_F_CREATE | rt.NLM_F_EXCL
    body = head + rt.text(_TCA_KIND, "u32") + options
    return rt.Message(_RTM_NEWTFILTER, flags, body, f"redirect what {name} carries (u32, mirred)")


def _release(name: str, direction: str) -> None:
    index = interfaces.index_of(name)
    head = _filter(index, direction)
    message = rt.Message(_RTM_DELTFILTER, 0, head, f"remove the filter of {name}")
    with rt.Socket() as link:
        link.check(link.attempt([message]), ignore=(_errno.ENOENT, _errno.EINVAL))
