"""Rates of packets, as tc(8) writes them."""

from __future__ import annotations

from sysbox.parse.common import bad, is_digits
from sysbox.spec import Bandwidth

# bits per second: tc(8), PARAMETERS
_UNITS = {
    "": 1,
    **{
        f"{prefix}{unit}": factor * bits
        for prefix, factor in {
            "": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
            "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40,
        }.items()
        for unit, bits in (("bit", 1), ("bps", 8))
    },
}  # fmt: skip
_LEAST, _MOST = 8_000, 32_000_000_000  # bits per second
_DIRECTIONS = ("up", "down")
_AS_IN = "as in up=10mbit,down=50mbit; units are those of tc(8): kbit, mbit, kbps, mbps"
UNSET = "unset"


def parse_rate(text: str, flag: str) -> int:
    """Bytes per second. Raises SpecError."""
    lower = text.lower()
    number = lower.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = lower[len(number) :]
    whole, dot, fraction = number.partition(".")
    digits = whole + fraction
    if unit not in _UNITS or not is_digits(digits) or len(digits) > 15 or (dot and not fraction):
        bad(flag, text, "not a rate", _AS_IN)
    bits = int(digits) * _UNITS[unit] // int(10 ** len(fraction))
    if not _LEAST <= bits <= _MOST:
        bad(flag, text, "out of range", "from 8kbit to 32gbit")
    return bits // 8


def parse_bandwidth(text: str, flag: str) -> Bandwidth:
    """From "up=10mbit,down=1mbps", or one of them. Raises SpecError."""
    return Bandwidth(**_pairs(text, flag))


def parse_change(text: str, flag: str) -> dict[str, int]:
    """What is to change: a direction -> bytes per second; 0 removes the limit (`unset`). Raises SpecError."""
    if text == UNSET:
        return dict.fromkeys(_DIRECTIONS, 0)
    return _pairs(text, flag, unset=True)


def rate_text(rate: int) -> str:
    """Bytes per second in the largest unit of bits that it is a multiple of."""
    for unit, factor in (("gbit", 10**9), ("mbit", 10**6), ("kbit", 10**3)):
        if rate * 8 % factor == 0:
            return f"{rate * 8 // factor}{unit}"
    return f"{rate * 8}bit"


def _pairs(text: str, flag: str, *, unset: bool = False) -> dict[str, int]:
    found: dict[str, int] = {}
    for part in text.split(","):
        direction, equals, rate = part.partition("=")
        if not equals or direction not in _DIRECTIONS:
            bad(flag, text, "not up=RATE, down=RATE", _AS_IN)
        if direction in found:
            bad(flag, text, f"{direction} is given twice")
        found[direction] = 0 if unset and rate == UNSET else parse_rate(rate, flag)
    return found
