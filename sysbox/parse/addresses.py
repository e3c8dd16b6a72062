"""Networks in the syntax of IPAddressAllow= and IPAddressDeny= (systemd.resource-control(5))."""

from __future__ import annotations

import _socket

from sysbox.parse.common import bad, is_digits, parse_int

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Network = tuple[
        int, bytes, int
    ]  # address family, address, bits of the prefix: systemd's (iayu)

NAMES = {
    "any": (("0.0.0.0", 0), ("::", 0)),
    "localhost": (("127.0.0.0", 8), ("::1", 128)),
    "link-local": (("169.254.0.0", 16), ("fe80::", 64)),
    "multicast": (("224.0.0.0", 4), ("ff00::", 8)),
}
_AS_IN = f"as in 192.0.2.0/24, 2001:db8::/32, {', '.join(NAMES)}"


def parse_networks(text: str, flag: str) -> list[Network]:
    """The networks that words separated by spaces name, each once, without bits beyond the prefix.

    Raises SpecError for what is no network, or if there is none.
    """
    found = [
        _network(address, bits, word, flag)
        for word in text.split()
        for address, bits in NAMES.get(word) or (_split(word, flag),)
    ]
    if not found:
        bad(flag, text, "no address", _AS_IN)
    return list(dict.fromkeys(found))


def parse_network(text: str, flag: str) -> str:
    """One word of `parse_networks` in its normal form: a name, or ADDRESS/BITS. Raises SpecError."""
    if any(char.isspace() for char in text):
        bad(flag, text, "not an address", "give the flag once for each")
    found = parse_networks(text, flag)
    return text if text in NAMES else network_text(found[0])


def network_text(network: Network) -> str:
    """ "192.0.2.0/24" """
    family, address, bits = network
    return f"{_socket.inet_ntop(family, bytes(address))}/{bits}"


def reduce(networks: Iterable[Network]) -> list[Network]:
    """The networks in order, without those that another one contains: systemd keeps no others."""
    kept: list[Network] = []
    for family, address, bits in sorted(
        ((one[0], bytes(one[1]), one[2]) for one in networks), key=lambda one: one[2]
    ):
        if not any(
            family == other and bits >= short and _masked(address, short) == start
            for other, start, short in kept
        ):
            kept.append((family, address, bits))
    return sorted(kept)


def _split(word: str, flag: str) -> tuple[str, int]:
    address, slash, bits = word.partition("/")
    if slash and not is_digits(bits):
        bad(flag, word, "not an address", _AS_IN)
    return address, parse_int(bits, flag, 0, 128) if slash else -1


def _network(address: str, bits: int, word: str, flag: str) -> Network:
    family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
    try:
        packed = _socket.inet_pton(family, address)
    except (OSError, ValueError):  # ValueError: a NUL, or a character without an encoding
        bad(flag, word, "not an address", _AS_IN)
    whole = len(packed) * 8
    if bits > whole:
        bad(flag, word, "out of range", f"a prefix of at most {whole}")
    bits = whole if bits < 0 else bits
    return int(family), _masked(packed, bits), bits


def _masked(address: bytes, bits: int) -> bytes:
    rest = len(address) * 8 - bits
    return (int.from_bytes(address, "big") >> rest << rest).to_bytes(len(address), "big")
