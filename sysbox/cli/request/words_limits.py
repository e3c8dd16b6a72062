"""From Limits to the flags of `run`: the inverse of `request/limits.py`. Pure."""

from __future__ import annotations

from sysbox.units.limits.table import TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sysbox.spec import Limits
    from sysbox.units.quadlet.writer import Flag

_SIZES = (
    "memory", "memory_swap", "memory_reservation", "memory_high", "memory_min",
)  # fmt: skip


def limit_flags(limits: Limits) -> Iterator[Flag]:
    """A flag for each limit that was asked for."""
    for one in TABLE:
        value = getattr(limits, one.field)
        if value is None or value == ():
            continue
        if type(value) is tuple:
            yield from ((one.flag, _entry(one.field, entry)) for entry in value)
        elif type(value) is bool:
            if value:
                yield one.flag, None
        elif one.field == "nano_cpus":
            yield one.flag, _decimal(value)
        elif one.field in _SIZES and value >= 0:
            yield one.flag, size_text(value)
        else:
            yield one.flag, str(value)


def _entry(field: str, entry: str | tuple[str, int]) -> str:
    if isinstance(entry, str):
        return entry
    name, value = entry
    if field == "hugetlb":
        return f"{name}={size_text(int(value))}"
    return f"{name}:{value}"


def _decimal(nano: int) -> str:
    """10^-9 CPUs as a decimal number."""
    whole, rest = divmod(nano, 10**9)
    fraction = f"{rest:09d}".rstrip("0")
    return f"{whole}.{fraction}" if fraction else str(whole)


def size_text(size: int) -> str:
    """Bytes as flags take them, in the largest unit that they are a multiple of."""
    for unit, shift in (("g", 30), ("m", 20), ("k", 10)):
        if size and size % (1 << shift) == 0:
            return f"{size >> shift}{unit}"
    return str(size)
