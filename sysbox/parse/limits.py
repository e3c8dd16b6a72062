"""Parse the values of resource limits; see `parse/common.py`."""

from __future__ import annotations

from sysbox.parse.common import bad, is_digits, parse_int, parse_size

_CLASS_MAX = (1 << 32) - 1
_HEX = frozenset("0123456789abcdefABCDEF")
_KINDS = ("char-", "block-")
_NUMBER_MAX = (1 << 20) - 1  # a device's minor number has 20 bits, its major 12


def parse_device_number(text: str, flag: str, low: int, high: int) -> tuple[str, int]:
    """(device path, number) from "/dev/sda:300"; the path may contain colons itself."""
    device, colon, number = text.rpartition(":")
    if not colon or not device.startswith("/"):
        bad(flag, text, "not DEVICE:NUMBER", "as in /dev/sda:300")
    return device, parse_int(number, f"{flag} {device}:", low, high)


def parse_pids(text: str, flag: str) -> int:
    """The greatest number of tasks; -1 for "-1" and "0", which are no limit. Raises SpecError."""
    return parse_int(text, flag, -1, 1 << 22) or -1


def parse_class_id(text: str, flag: str) -> int:
    """A class id 0xAAAABBBB from "0x10001", "65537", or "1:1" as tc(8) writes it, in hexadecimal."""
    major, colon, minor = text.partition(":")
    if colon:
        halves = [part or "0" for part in (major, minor)]
        if not all(len(half) <= 4 and set(half) <= _HEX for half in halves):
            bad(flag, text, "not MAJOR:MINOR", "two hexadecimal numbers up to ffff, as in 10:1")
        number = (int(halves[0], 16) << 16) | int(halves[1], 16)
    elif text[:2].lower() == "0x" and text[2:] and set(text[2:]) <= _HEX:
        number = int(text[2:], 16)
    elif is_digits(text) and len(text) <= 10:
        number = int(text)
    else:
        bad(flag, text, "not a class id", "as in 0x100001, 1048577 or 10:1")
    if not 1 <= number <= _CLASS_MAX:
        bad(flag, text, "out of range", "from 0x1 to 0xffffffff")
    return number


def parse_huge_pages(text: str, flag: str) -> tuple[str, int]:
    """(page size as in the kernel's file names, limit in bytes) from "2MB=64m"."""
    name, equals, limit = text.partition("=")
    if not equals or not name:
        bad(flag, text, "not SIZE=BYTES", "as in 2MB=64m")
    size = parse_size(name, flag)
    if size < 4096 or size & (size - 1):
        bad(flag, text, f"{name} is not a page size", "as in 2MB or 1GB")
    return page_size_name(size), parse_size(limit, flag)


def page_size_name(size: int) -> str:
    """A huge page's size in bytes as the kernel writes it in file names: 64KB, 2MB, 1GB."""
    for shift, unit in ((30, "GB"), (20, "MB")):
        if size >> shift:
            return f"{size >> shift}{unit}"
    return f"{size >> 10}KB"


def page_size(name: str) -> int:
    """The reverse of `page_size_name`: a huge page's size in bytes. Raises SpecError."""
    return parse_size(name, "page size")


def parse_device_rule(text: str, flag: str) -> str:
    """Normalise a device rule: "c 1:3 rwm", "b 8:* r", "a *:* rwm", "char-pts rw".

    Kind, numbers and access are docker's; a group of /proc/devices may replace kind and numbers.
    """
    words = text.split()
    if len(words) == 2 and words[0].startswith(_KINDS):
        what = words[0]
        if not what.isprintable() or what in _KINDS:
            bad(flag, text, f"{what} is not a group", "as in char-pts or block-loop")
    elif len(words) == 1 and words[0] == "a":
        what, words = "a *:*", ["a", "*:*", "rwm"]
    elif len(words) == 3 and words[0] in ("a", "b", "c"):
        what = f"{words[0]} {_numbers(words[1], flag, text)}"
        if words[0] == "a" and words[1] != "*:*":
            bad(flag, text, "all devices have no numbers", "'a *:* rwm', or c or b for a kind")
    else:
        bad(flag, text, "not KIND MAJOR:MINOR ACCESS", "as in 'c 1:3 rwm' or 'b 8:* r'")
    access = words[-1]
    if not access or not set(access) <= set("rwm") or len(set(access)) != len(access):
        bad(flag, text, f"the access {access} must be made of r, w and m")
    return f"{what} {access}"


def _numbers(text: str, flag: str, whole: str) -> str:
    major, colon, minor = text.partition(":")
    for part in (major, minor):
        valid = part == "*" or (is_digits(part) and len(part) <= 7 and int(part) <= _NUMBER_MAX)
        if not colon or not valid:
            bad(flag, whole, f"{text} is not MAJOR:MINOR", "numbers, or * for all")
    return text
