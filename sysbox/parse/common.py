"""Parsers that the others share: sizes, numbers, CPU lists, names and modes.

Each function of parse/ takes the text and its flag (or key), returns the value in base units, and raises
SpecError, which names flag, value, reason and what would be valid.
"""

from __future__ import annotations

import posix

from sysbox.base.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

ALNUM = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
NAME = ALNUM | frozenset("_.-")
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
NAME_MAX = 128
_DIGITS_MAX = 20  # of a whole number, with its sign: one of 64 bits has no more


def bad(flag: str, text: str, reason: str, hint: str = "") -> NoReturn:
    """Raise the SpecError for one value; `hint` says what would be valid."""
    raise SpecError(f"{flag} {text}: {reason}" if text else f"{flag}: {reason}", hint=hint)


def is_digits(text: str) -> bool:
    """Whether the text is ASCII digits only; str.isdigit alone accepts those of other scripts."""
    return text.isascii() and text.isdigit()


def parse_int(text: str, flag: str, low: int, high: int) -> int:
    """A decimal integer within [low, high]."""
    if not is_digits(text.removeprefix("-")):
        bad(flag, text, "not a whole number")
    # int() of thousands of digits takes long, and has a limit of its own
    number = int(text) if len(text) <= _DIGITS_MAX else None
    if number is None or not low <= number <= high:
        bad(flag, text, "out of range", f"from {low} to {high}")
    return number


def _billionths(number: str) -> int | None:
    """`number` times 10**9, exactly; None if it is not a decimal with at most 9 places."""
    whole, dot, fraction = number.partition(".")
    if not is_digits(whole or "0") or (dot and not is_digits(fraction)):
        return None
    if not (whole or fraction) or len(whole) > 15 or len(fraction.rstrip("0")) > 9:
        return None
    return int((whole or "0") + fraction.rstrip("0").ljust(9, "0"))


def parse_size(text: str, flag: str) -> int:
    """Bytes from "128m", "1.5g", "64KiB", "4096"; units are powers of 1024, as in docker."""
    lower = text.strip().lower()
    number = lower.rstrip("abcdefghijklmnopqrstuvwxyz ")
    unit = lower[len(number) :].strip()
    if unit not in _UNITS:
        unit = unit.removesuffix("ib") if unit.endswith("ib") else unit.removesuffix("b")
    scaled = _billionths(number)
    if unit not in _UNITS or scaled is None:
        bad(flag, text, "not a size", "a number with b, k, m, g or t: 512m, 1.5g")
    size = scaled * _UNITS[unit] // 10**9
    if size >= 1 << 63:
        bad(flag, text, "too large")
    return size


def parse_bytes_rate(text: str, flag: str) -> tuple[str, int]:
    """(device path, bytes per second) from "/dev/sda:1m"; the path may contain colons itself."""
    device, colon, rate = text.rpartition(":")
    if not colon or not device.startswith("/"):
        bad(flag, text, "not DEVICE:RATE", "as in /dev/sda:1m")
    speed = parse_size(rate, flag)
    if speed <= 0:
        bad(flag, text, "the rate must be above zero")
    return device, speed


def parse_cpus(text: str, flag: str) -> int:
    """10^-9 CPUs from "1.5"."""
    nano = _billionths(text)
    if nano is None:
        bad(flag, text, "not a number of CPUs", "as in 0.5 or 2")
    if nano < 10**7:
        bad(flag, text, "out of range", "at least 0.01: the kernel's shortest quota is 1 ms")
    return nano


def parse_cpuset(text: str, flag: str) -> str:
    """A list of CPUs or memory nodes, "0-2,5"; only its form: the planner knows which the host has."""
    for part in text.split(","):
        first, dash, last = part.partition("-")
        numbers = [first, last] if dash else [first]
        if not all(is_digits(number) and len(number) < 6 for number in numbers):
            bad(flag, text, "not a list of numbers", "as in 0-2,5")
        if dash and int(first) > int(last):
            bad(flag, text, f"{part} is backwards")
    return text


def absolute(path: str) -> str:
    """The absolute path, relative to the working directory; "." and ".." are resolved lexically."""
    return clean_path(path if path.startswith("/") else f"{posix.getcwd()}/{path}")


def clean_path(path: str) -> str:
    """An absolute path without "//", "." and ".."; lexical only, as Go's path.Clean."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def parse_mode(text: str, flag: str, allowed: tuple[str, ...]) -> str:
    """A namespace mode: one of `allowed`, "container:NAME" or "ns:PATH" (absolute)."""
    if text in allowed:
        return text
    kind, _, rest = text.partition(":")
    if kind == "container" and rest:
        return text
    if kind == "ns":
        if not rest.startswith("/"):
            bad(flag, text, "the path must be absolute")
        return text
    choices = (*allowed, "container:NAME", "ns:PATH")
    bad(flag, text, "unknown mode", f"valid: {', '.join(choices)}")


def check_name(text: str, flag: str, shortest: int = 2) -> str:
    """A container's or volume's name: [a-zA-Z0-9][a-zA-Z0-9_.-]+, at most NAME_MAX characters.

    As in docker, one of a network may have a single character (`shortest`).
    """
    if len(text) < shortest or text[0] not in ALNUM or not NAME.issuperset(text):
        least = ", at least two" if shortest == 2 else ""
        bad(flag, text, "not a valid name", f"letters, digits, _ . and -{least}, not led by _ . -")
    if len(text) > NAME_MAX:
        bad(flag, text[:20] + "...", f"longer than {NAME_MAX} characters")
    return text
