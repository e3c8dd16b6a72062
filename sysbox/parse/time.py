"""Parse durations, points in time and signals; see `parse/common.py`."""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.parse.common import bad, is_digits

# microseconds -> unit names of Go and systemd.time(7)
_SPANS = {
    1: ("us", "usec", "µs"),
    1000: ("ms", "msec"),
    10**6: ("s", "sec", "second", "seconds"),
    60 * 10**6: ("m", "min", "minute", "minutes"),
    3600 * 10**6: ("h", "hr", "hour", "hours"),
    86400 * 10**6: ("d", "day", "days"),
    7 * 86400 * 10**6: ("w", "week", "weeks"),
}
_UNITS = {name: span for span, names in _SPANS.items() for name in names}
_SECONDS = 11  # digits of seconds since 1970: the year 5138


def parse_duration(text: str, flag: str) -> int:
    """Microseconds from Go's "1h2m3.5s" or systemd's "1min 30s"; a bare number is seconds."""
    total = 0
    rest = text.strip()
    if not rest:
        bad(flag, text, "empty", "as in 90s, 1m30s or 10")
    while rest:
        number = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(number) :].lstrip(" ")
        unit = rest[: len(rest) - len(rest.lstrip("abcdefghijklmnopqrstuvwxyzµ"))]
        rest = rest[len(unit) :].lstrip(" ")
        whole, _, fraction = number.partition(".")
        if not is_digits(whole + fraction) or len(number) > 15 or (unit or "s") not in _UNITS:
            bad(flag, text, "not a duration", "as in 90s, 1m30s or 10")
        total += int(whole + fraction) * _UNITS[unit or "s"] // 10 ** len(fraction)
    if total >> 63:
        bad(flag, text, "too long", "systemd and the kernel count microseconds in 63 bits")
    return total


_CLOCKS = ("monotonic", "boottime")
_CENTURY = 36525 * 86400 * 10**6  # microseconds; the kernel allows 146 years since boot


def parse_time_offset(text: str, flag: str) -> dict[str, int]:
    """Clock -> nanoseconds, from "monotonic=1h,boottime=-30s"; one clock or both."""
    found: dict[str, int] = {}
    for part in text.split(","):
        clock, equals, offset = part.partition("=")
        if not equals:
            bad(flag, text, "not CLOCK=OFFSET", "as in monotonic=1h,boottime=-30s")
        if clock not in _CLOCKS:
            bad(flag, text, f"unknown clock '{clock}'", "monotonic or boottime")
        if clock in found:
            bad(flag, text, f"{clock} is given twice")
        sign = -1 if offset[:1] == "-" else 1
        span = parse_duration(offset[1:] if offset[:1] in ("-", "+") else offset, f"{flag} {clock}")
        if span > _CENTURY:
            bad(flag, text, f"{offset} is too long", "at most 36525d, a hundred years")
        found[clock] = sign * span * 1000
    return found


def parse_seconds(text: str, flag: str) -> int:
    """Whole seconds below 2**32, rounded up; "-1" is -1, docker's "without limit"."""
    if text == "-1":
        return -1
    seconds = -(-parse_duration(text, flag) // 10**6)
    if seconds >= 1 << 32:
        bad(flag, text, "too long", f"at most {(1 << 32) - 1} seconds; -1 is without limit")
    return seconds


def parse_moment(text: str, flag: str, now: float) -> float:
    """Seconds since 1970 from an RFC 3339 time, from seconds since 1970, or from a duration before `now`.

    A time without a zone is local, as in docker.
    """
    if is_digits(text.replace(".", "", 1)):
        if len(text.partition(".")[0]) > _SECONDS:
            bad(flag, text, "not a time", "seconds since 1970, as in 1700000000")
        return float(text)
    if len(text) >= 10 and text[4] == "-" and is_digits(text[:4]):
        from datetime import datetime

        try:
            return datetime.fromisoformat(text).timestamp()
        except (ValueError, OverflowError):
            bad(flag, text, "not a time", "as in 2026-11-22T20:00:00Z")
    try:
        return max(now - parse_duration(text, flag) / 10**6, 0.0)
    except SpecError:
        bad(flag, text, "not a time", "RFC 3339, seconds since 1970, or a duration such as 10m")


def parse_signal(text: str, flag: str) -> int:
    """A signal's number from "TERM", "SIGTERM", "15", "SIGRTMIN+3" (signal(7))."""
    import _signal

    if is_digits(text):
        number = int(text) if len(text) < 4 else 0
        if not 1 <= number <= 64:
            bad(flag, text, "not a signal", "from 1 to 64")
        return number
    # the upper case of a non-ASCII letter may be an ASCII letter
    name = text.upper().removeprefix("SIG") if text.isascii() else "_"
    base, sign, offset = name.partition("+") if "+" in name else name.partition("-")
    found = getattr(_signal, f"SIG{base}", None)
    if not isinstance(found, int) or base.startswith("_"):
        bad(flag, text, "not a signal", "a number or a name such as TERM, KILL, RTMIN+3")
    if not sign:
        return int(found)
    number = int(found) + int(sign + offset) if is_digits(offset) and len(offset) < 4 else 0
    low, high = int(_signal.SIGRTMIN), int(_signal.SIGRTMAX)
    if base not in ("RTMIN", "RTMAX") or not low <= number <= high:
        bad(flag, text, "not a real-time signal")
    return number
