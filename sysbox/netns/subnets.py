"""Subnets and addresses of both families as numbers. Pure.

A subnet is (network address as a number, bits of the mask); which family it has, its text tells.
"""

from __future__ import annotations

import _socket

from sysbox.base.errors import SpecError

BITS = {4: 32, 6: 128}
_MASKS = {4: (8, 30), 6: (8, 126)}  # the shortest and the longest mask of a network with containers

_SPECIAL = (
    ("0.0.0.0/8", "which no link can have"),
    ("127.0.0.0/8", "the loopback addresses"),
    ("224.0.0.0/4", "the multicast addresses"),
    ("255.255.255.0/24", "with the broadcast address"),
    ("::/8", "with the loopback address and IPv4's"),
    ("fe80::/10", "the link-local addresses"),
    ("ff00::/8", "the multicast addresses"),
)


def family_of(text: str) -> int:
    """4 or 6, of an address or a subnet; which of them a malformed text is meant to be."""
    return 6 if ":" in text else 4


def number_of(address: str) -> int:
    """An address as a number. Raises SpecError for any other text."""
    family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
    try:
        return int.from_bytes(_socket.inet_pton(family, address), "big")
    except (OSError, ValueError):
        raise SpecError(f"'{address}' is not an IP address") from None


def text_of(number: int, family: int) -> str:
    """An address as text, in its usual form (RFC 5952)."""
    kind = _socket.AF_INET6 if family == 6 else _socket.AF_INET
    return _socket.inet_ntop(kind, number.to_bytes(BITS[family] // 8, "big"))


def split(subnet: str) -> tuple[int, int]:
    """The subnet of a text such as "10.90.0.0/16" or "fd00::/64".

    Raises SpecError for host bits, or a mask that no network can have.
    """
    base, slash, bits = subnet.partition("/")
    number, family = number_of(base), family_of(base)
    low, high = _MASKS[family]
    if not slash or not bits.isascii() or not bits.isdigit() or not low <= int(bits[:4]) <= high:
        raise SpecError(f"subnet '{subnet}': the mask must be /{low} to /{high}")
    if number & ((1 << (BITS[family] - int(bits))) - 1):
        raise SpecError(
            f"subnet '{subnet}': has bits set beyond its mask",
            hint=f"as in {text_of(_base(number, int(bits), family), family)}/{bits}",
        )
    return number, int(bits)


def unusable(subnet: str) -> str:
    """Why no link of a container can have addresses of this subnet (RFC 6890, RFC 4291), or ""."""
    return next((f"overlaps {one}, {what}" for one, what in _SPECIAL if overlap(subnet, one)), "")


def check_destination(text: str) -> tuple[int, int]:
    """The destination of a route, as `split`, with any mask but /0. Raises SpecError."""
    base, slash, bits = text.partition("/")
    number, most = number_of(base), BITS[family_of(base)]
    if not slash or not bits.isascii() or not bits.isdigit() or not 0 < int(bits[:4]) <= most:
        raise SpecError(f"route {text}: the mask must be /1 to /{most}")
    if number & ((1 << (most - int(bits))) - 1):
        raise SpecError(f"route {text}: has bits set beyond its mask")
    return number, int(bits)


def _base(number: int, bits: int, family: int) -> int:
    rest = BITS[family] - bits
    return number >> rest << rest


def contains(subnet: str, address: str) -> bool:
    """Whether an address is in a subnet; one of the other family is not."""
    if family_of(subnet) != family_of(address):
        return False
    base, bits = split(subnet)
    return _base(number_of(address), bits, family_of(subnet)) == base


def first(subnet: str) -> str:
    """The first address after the subnet's own: where no gateway is given, the gateway."""
    return text_of(split(subnet)[0] + 1, family_of(subnet))


def hosts(subnet: str) -> tuple[int, int]:
    """(first, last) address that a link can have, as numbers: neither the subnet's own nor the broadcast
    address. IPv6 has no broadcast; its first address is that of all routers (RFC 4291, 2.6.1).
    """
    base, bits = split(subnet)
    size = 1 << (BITS[family_of(subnet)] - bits)
    return base + 1, base + size - (2 if family_of(subnet) == 4 else 1)


def routes(v4: str, v6: str) -> list[tuple[str, str]]:
    """(subnet, link) of the host's routes but the default ones: the texts of /proc/net/route and ipv6_route.

    Routes of the kernel's own for IPv6 (link-local, multicast, single addresses) are left out.
    """
    found = []
    for line in v4.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8:
            continue
        bits = int.from_bytes(bytes.fromhex(fields[7]), "little").bit_count()
        number = int.from_bytes(bytes.fromhex(fields[1]), "little")
        if bits:
            found.append((f"{text_of(number, 4)}/{bits}", fields[0]))
    for line in v6.splitlines():
        fields = line.split()
        if len(fields) < 10 or fields[0].startswith(("fe80", "ff")):
            continue
        bits = int(fields[1], 16)
        if 0 < bits < 128 and fields[9] != "lo":
            found.append((f"{text_of(int(fields[0], 16), 6)}/{bits}", fields[9]))
    return found


def taken(subnet: str, by: list[tuple[str, str]], own: str = "") -> str:
    """The first of `by`, (subnet, who has it), that overlaps a subnet: "10.1.0.0/16 on eth0"; else "".

    `own` is the name of the network's link, whose routes do not count. Routes may have any mask.
    """
    return next(
        (f"{other} on {who}" for other, who in by if who != own and overlap(subnet, other)), ""
    )


def overlap(subnet: str, other: str) -> bool:
    """Whether a subnet and one with any mask have an address in common."""
    family = family_of(subnet)
    if family_of(other) != family:
        return False
    base, bits = split(subnet)
    address, _, mask = other.partition("/")
    return (number_of(address) ^ base) >> (BITS[family] - min(bits, int(mask))) == 0
