"""Lists of CPUs and memory nodes: as the kernel writes them, and as the bits of a D-Bus property. Pure."""

from __future__ import annotations

from sysbox.base.errors import SpecError

_MAX_CPU = 8191  # CONFIG_NR_CPUS never exceeds 8192


def parse_list(flag: str, text: str) -> list[int]:
    """The numbers of a kernel list such as "0-2,5", sorted, each once. Raises SpecError, naming `flag`."""
    numbers: set[int] = set()
    for part in text.split(","):
        low, dash, high = part.strip(" ").partition("-")
        if not _is_number(low) or (dash and not _is_number(high)):
            raise SpecError(f"{flag} {text!r}: must be a list such as 0-2,5")
        first, last = int(low), int(high or low)
        if first > last or last > _MAX_CPU:
            raise SpecError(f"{flag} {text!r}: {part.strip()} is not a range up to {_MAX_CPU}")
        numbers.update(range(first, last + 1))
    return sorted(numbers)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5


def format_list(numbers: list[int]) -> str:
    """The kernel's own spelling of a list: "0-2,5"."""
    parts: list[str] = []
    index = 0
    while index < len(numbers):
        end = index
        while end + 1 < len(numbers) and numbers[end + 1] == numbers[end] + 1:
            end += 1
        first, last = numbers[index], numbers[end]
        parts.append(str(first) if first == last else f"{first}-{last}")
        index = end + 1
    return ",".join(parts)


def bitmask(numbers: list[int]) -> bytes:
    """The value of AllowedCPUs on D-Bus: number n is bit n%8 of byte n/8; no trailing zero bytes."""
    mask = 0
    for number in numbers:
        mask |= 1 << number
    return mask.to_bytes((mask.bit_length() + 7) // 8, "little")
