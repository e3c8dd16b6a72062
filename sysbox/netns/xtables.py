"""The tables of legacy iptables, read without a program (linux/netfilter_ipv4/ip_tables.h).

A table exists in the kernel from the first time that a program asks for it: so only those are asked for that
/proc/net/ip_tables_names lists.
"""

from __future__ import annotations

import _socket
import _struct
import errno

from sysbox.base.errors import KernelError
from sysbox.base.frozen import Frozen
from sysbox.host import read_text
from sysbox.linux import _sys

_GET_INFO, _GET_ENTRIES = 64, 65  # IPT_SO_GET_INFO; the same numbers for IPv6
_LEVELS = {4: (_socket.AF_INET, 0), 6: (_socket.AF_INET6, 41)}  # SOL_IP, SOL_IPV6
_NAMES = {4: "/proc/net/ip_tables_names", 6: "/proc/net/ip6_tables_names"}
_INFO = _struct.Struct("=32sI5I5III")  # struct ipt_getinfo
_HOOKS = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")  # NF_INET_*
_ENTRIES_AT = 40  # offset of the entries in struct ipt_get_entries
# of struct ipt_entry and struct ip6t_entry: offset of target_offset, size
_ENTRY = {4: (88, 112), 6: (140, 168)}
_OFFSETS = _struct.Struct("=HH")
_TARGET_NAME_AT, _TARGET_SIZE = 2, 32  # struct xt_entry_target
_ERROR_SIZE = _TARGET_SIZE + 32  # the target before a chain's first rule, with the chain's name
_NF_DROP = -1  # as a verdict: -NF_DROP - 1


class Table(Frozen):
    """A table's rules, as far as sysbox asks."""

    rules: int  # of the built-in chains, without their policies
    drops: bool  # a policy is DROP
    jumps: tuple[tuple[str, str], ...]  # (built-in chain, the chain that a rule of it jumps to)


def tables(family: int) -> tuple[str, ...]:
    """The tables that exist in this network namespace."""
    return tuple(read_text(_NAMES[family]).split())


def read(family: int, name: str) -> Table | None:
    """A table; None where it does not exist. Raises KernelError."""
    if name not in tables(family):
        return None
    kind, level = _LEVELS[family]
    try:
        probe = _socket.socket(kind, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, _socket.IPPROTO_RAW)
    except OSError as error:
        raise KernelError.of("read the table", name, error) from None
    try:
        while True:
            info = _ask(probe.fileno(), level, name)
            size = info[-1]
            head = _struct.pack("=32sI4x", name.encode("ascii"), size)
            try:
                blob = _sys.getsockopt(probe.fileno(), level, _GET_ENTRIES, head + b"\0" * size)[
                    _ENTRIES_AT:
                ]
            except OSError as error:
                if error.errno == errno.EAGAIN:
                    continue  # it was changed meanwhile
                raise
            return _parse(family, info, blob)
    except OSError as error:
        raise KernelError.of("read the table", name, error) from None
    finally:
        probe.close()


def _ask(fd: int, level: int, name: str) -> tuple[int, ...]:
    """The fields of struct ipt_getinfo after the name."""
    value = _INFO.pack(name.encode("ascii"), *([0] * 13))
    return tuple(int(one) for one in _INFO.unpack(_sys.getsockopt(fd, level, _GET_INFO, value))[1:])


def _parse(family: int, info: tuple[int, ...], blob: bytes) -> Table:
    valid, hooks, policies = info[0], info[1:6], info[6:11]
    jumps = []
    drops = False
    count = 0
    for number in (number for number in range(len(_HOOKS)) if valid >> number & 1):
        at = hooks[number]
        while at < policies[number]:
            chain = _jump(family, blob, at)
            if chain:
                jumps.append((_HOOKS[number], chain))
            step = _next(family, blob, at)
            if not step:
                break
            at += step
            count += 1
        drops |= _verdict(family, blob, policies[number]) == _NF_DROP
    return Table(rules=count, drops=drops, jumps=tuple(jumps))


def _next(family: int, blob: bytes, at: int) -> int:
    return int(_OFFSETS.unpack_from(blob, at + _ENTRY[family][0])[1])


def _verdict(family: int, blob: bytes, at: int) -> int | None:
    """The number in a rule's standard target: an offset, or a negative verdict; None for another target."""
    target = at + int(_OFFSETS.unpack_from(blob, at + _ENTRY[family][0])[0])
    if blob[target + _TARGET_NAME_AT] != 0:
        return None
    return int(_struct.unpack_from("=i", blob, target + _TARGET_SIZE)[0])


def _jump(family: int, blob: bytes, at: int) -> str:
    """The name of the chain that the rule jumps to, or ""."""
    goal = _verdict(family, blob, at)
    if goal is None or goal < 0:
        return ""
    name = goal - _ERROR_SIZE + _TARGET_SIZE
    if name < 0:
        return ""
    return blob[name : name + 30].partition(b"\0")[0].decode("ascii", "replace")
