"""`--property KEY=VALUE`: the resource properties that may be set, each with its type and range. Pure.

An allowlist, since a scope's other properties start programs, choose its slice or lift its device
rules (CVE-2024-3154). Values are parsed here and sent as D-Bus types, never as text for systemd to parse.
Keys are those of systemd.resource-control(5), old and new. An old one is sent under its new name on v2,
and a new one under its old name on v1: where one unit has both, systemd ignores one of them.
"""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.base.numbers import bitmask, parse_list
from sysbox.base.suggest import suggest
from sysbox.parse.addresses import parse_networks
from sysbox.parse.common import bad, is_digits, parse_int, parse_size
from sysbox.parse.time import parse_duration
from sysbox.units.limits.properties import (
    INFINITY,
    NETWORKS,
    Property,
    blkio_weight_of_io,
    io_weight_of_blkio,
    shares_of_weight,
    weight_of_shares,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sysbox.host import HostFacts

    Typed = tuple[str, str, Any]  # suffix of the property's name, signature, value
    Parser = Callable[[str, str], Typed]  # text, key

_U32 = (1 << 32) - 1
_THOUSANDS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BOOLEANS = {"yes": True, "true": True, "on": True, "1": True,
             "no": False, "false": False, "off": False, "0": False}  # fmt: skip


def _number(low: int, high: int) -> Parser:
    return lambda text, key: ("", "t", parse_int(text, key, low, high))


def _cpu_weight(text: str, key: str) -> Typed:
    return ("", "t", 0 if text == "idle" else parse_int(text, key, 1, 10000))


def _size(text: str, key: str) -> Typed:
    if text == "infinity":
        return ("", "t", INFINITY)
    return _scale(text, key) if text.endswith("%") else ("", "t", parse_size(text, key))


def _tasks(text: str, key: str) -> Typed:
    if text == "infinity":
        return ("", "t", INFINITY)
    return _scale(text, key) if text.endswith("%") else ("", "t", parse_int(text, key, 1, 1 << 22))


def _scale(text: str, key: str) -> Typed:
    """A share of the host's memory or tasks as systemd carries it: 2^32-1 is all of it."""
    return ("Scale", "u", _share(text, key))


def _share(text: str, key: str) -> int:
    return (_hundredths(text, key, 10000) * _U32 + 5000) // 10000


def _pressure(text: str, key: str) -> Typed:
    return ("", "u", _share(text, key))


def _quota(text: str, key: str) -> Typed:
    if text == "infinity":
        return ("", "t", INFINITY)
    return ("", "t", _hundredths(text, key, 10**7) * 100)


def _hundredths(text: str, key: str, high: int) -> int:
    """Hundredths of a percent, from "12.5%"."""
    whole, _, fraction = text.removesuffix("%").partition(".")
    if (
        not text.endswith("%")
        or not is_digits(whole + fraction)
        or len(whole) > 8
        or len(fraction) > 2
    ):
        bad(key, text, "not a percentage", "as in 50% or 12.5%")
    value = int(whole or "0") * 100 + int(fraction.ljust(2, "0"))
    if not 0 < value <= high:
        bad(key, text, "out of range", f"above 0% and up to {high // 100}%")
    return value


def _time(low: int, high: int) -> Parser:
    def parse(text: str, key: str) -> Typed:
        if text == "infinity" and high == INFINITY:
            return ("", "t", INFINITY)
        value = parse_duration(text, key)
        if not low <= value <= high:
            bad(key, text, "out of range", f"from {low} to {high} microseconds")
        return ("", "t", value)

    return parse


def _boolean(text: str, key: str) -> Typed:
    if text.lower() not in _BOOLEANS:
        bad(key, text, "not a boolean", "yes or no")
    return ("", "b", _BOOLEANS[text.lower()])


def _choice(*choices: str) -> Parser:
    def parse(text: str, key: str) -> Typed:
        if text not in choices:
            bad(key, text, "not one of its values", f"one of {', '.join(choices)}")
        return ("", "s", text)

    return parse


def _numbers(text: str, key: str) -> Typed:
    return ("", "ay", bitmask(parse_list(key, text.replace(" ", ","))))


def _per_device(parse_value: Callable[[str, str], int]) -> Parser:
    def parse(text: str, key: str) -> Typed:
        device, space, value = text.partition(" ")
        if not space or not device.startswith("/") or not device.isprintable():
            bad(key, text, "not a device and a value", "as in '/dev/sda 10M'")
        return ("", "a(st)", [(device, parse_value(value.strip(), key))])

    return parse


def _rate(text: str, key: str) -> int:
    """Bytes or operations per second; K, M, G and T are powers of 1000, as in systemd's bandwidths."""
    number = text[:-1] if text[-1:].lower() in "kmgt" and text else text
    unit = text[len(number) :].lower()
    if not is_digits(number) or len(number) > 15 or int(number) == 0:
        bad(key, text, "not a rate above 0", "a number with K, M or G: 10M is 10000000")
    return int(number) * _THOUSANDS[unit]


def _networks(text: str, key: str) -> Typed:
    return ("", NETWORKS, parse_networks(text, key))


def _pair(old: str, new: str, parser: Parser, new_parser: Parser) -> dict[str, Any]:
    """An old (v1) and a new (v2) spelling of one property."""
    return {old: (parser, old, new), new: (new_parser, old, new)}


def _both(parser: Parser, *keys: str) -> dict[str, Any]:
    return {key: (parser, key, key) for key in keys}


def _unified(parser: Parser, *keys: str) -> dict[str, Any]:
    return {key: (parser, "", key) for key in keys}


_SHARES, _BLOCK_WEIGHT, _WEIGHT = _number(2, 262144), _number(10, 1000), _number(1, 10000)
_RATES = _per_device(_rate)

# of a service itself, not of what it limits
OF_THE_SERVICE = frozenset(("CollectMode", "OOMPolicy", "RuntimeMaxSec", "TimeoutStopSec"))
# key -> (parser, D-Bus name with v1 controllers ("" for none), D-Bus name on v2)
KEYS: dict[str, tuple[Parser, str, str]] = {
    **_pair("CPUShares", "CPUWeight", _SHARES, _cpu_weight),
    **_pair("StartupCPUShares", "StartupCPUWeight", _SHARES, _cpu_weight),
    **_pair("MemoryLimit", "MemoryMax", _size, _size),
    **_pair("BlockIOWeight", "IOWeight", _BLOCK_WEIGHT, _WEIGHT),
    **_pair("StartupBlockIOWeight", "StartupIOWeight", _BLOCK_WEIGHT, _WEIGHT),
    # none on v1: systemd writes only the file of CFQ, which Linux 5.0 removed
    "BlockIODeviceWeight": (_per_device(lambda text, key: parse_int(text, key, 10, 1000)),
                            "", "IODeviceWeight"),
    "IODeviceWeight": (_per_device(lambda text, key: parse_int(text, key, 1, 10000)),
                       "", "IODeviceWeight"),
    **_pair("BlockIOReadBandwidth", "IOReadBandwidthMax", _RATES, _RATES),
    **_pair("BlockIOWriteBandwidth", "IOWriteBandwidthMax", _RATES, _RATES),
    **_pair("BlockIOAccounting", "IOAccounting", _boolean, _boolean),
    "CPUQuota": (_quota, "CPUQuotaPerSecUSec", "CPUQuotaPerSecUSec"),
    "CPUQuotaPeriodSec": (_time(1000, 1_000_000), "CPUQuotaPeriodUSec", "CPUQuotaPeriodUSec"),
    "TimeoutStopSec": (_time(1000, INFINITY), "TimeoutStopUSec", "TimeoutStopUSec"),
    "RuntimeMaxSec": (_time(1000, INFINITY), "RuntimeMaxUSec", "RuntimeMaxUSec"),
    **_both(_tasks, "TasksMax"),
    **_both(_boolean, "CPUAccounting", "MemoryAccounting", "TasksAccounting", "IPAccounting"),
    **_both(_networks, "IPAddressAllow", "IPAddressDeny"),
    **_both(_choice("continue", "stop", "kill"), "OOMPolicy"),
    **_both(_choice("inactive", "inactive-or-failed"), "CollectMode"),
    **_unified(_numbers, "AllowedCPUs", "StartupAllowedCPUs",
               "AllowedMemoryNodes", "StartupAllowedMemoryNodes"),
    **_unified(_size, "MemoryHigh", "MemoryLow", "MemoryMin", "MemorySwapMax"),
    **_unified(_RATES, "IOReadIOPSMax", "IOWriteIOPSMax"),
    **_unified(_choice("auto", "kill"), "ManagedOOMSwap", "ManagedOOMMemoryPressure"),
    **_unified(_choice("none", "avoid", "omit"), "ManagedOOMPreference"),
    **_unified(_pressure, "ManagedOOMMemoryPressureLimit"),
    "IODeviceLatencyTargetSec": (_per_device(parse_duration), "", "IODeviceLatencyTargetUSec"),
}  # fmt: skip

_FLAGS = {  # what to use instead
    "Delegate": "a container's scope is always delegated",
    "Description": "it is made from --name",
    "DeviceAllow": "use --device, or --device-cgroup-rule",
    "DevicePolicy": "use --device, or --privileged",
    "KillSignal": "use --stop-signal",
    "Slice": "use --slice",
}
_BOTH = "which works on both"
_V1_INSTEAD = {
    "AllowedCPUs": f"use --cpuset-cpus, {_BOTH}",
    "AllowedMemoryNodes": f"use --cpuset-mems, {_BOTH}",
    "StartupAllowedCPUs": f"use --cpuset-cpus, {_BOTH}",
    "StartupAllowedMemoryNodes": f"use --cpuset-mems, {_BOTH}",
    "MemoryHigh": "use --memory, or --memory-reservation to be reclaimed first",
    "MemoryLow": f"use --memory-reservation, {_BOTH}",
    "MemoryMin": "use --memory-reservation",
    "MemorySwapMax": f"use --memory-swap, {_BOTH}",
    "BlockIODeviceWeight": f"use --blkio-weight-device, {_BOTH}",
    "IODeviceWeight": f"use --blkio-weight-device, {_BOTH}",
    "IOReadIOPSMax": f"use --device-read-iops, {_BOTH}",
    "IOWriteIOPSMax": f"use --device-write-iops, {_BOTH}",
    "IODeviceLatencyTargetSec": "limit what disturbs it: --device-read-bps, --device-write-bps",
    "ManagedOOMSwap": "use --memory-swap; systemd-oomd needs cgroup v2",
    "ManagedOOMMemoryPressure": "use --memory; systemd-oomd needs cgroup v2",
    "ManagedOOMMemoryPressureLimit": "use --memory; systemd-oomd needs cgroup v2",
    "ManagedOOMPreference": "use --memory; systemd-oomd needs cgroup v2",
}


_CONVERSIONS: dict[tuple[str, str], Callable[[int], int]] = {
    ("CPUShares", "CPUWeight"): weight_of_shares,
    ("CPUWeight", "CPUShares"): shares_of_weight,
    ("BlockIOWeight", "IOWeight"): io_weight_of_blkio,
    ("IOWeight", "BlockIOWeight"): blkio_weight_of_io,
}


def parse_property(text: str, facts: HostFacts) -> Property:
    """`KEY=VALUE` of `--property`, typed and checked against `KEYS`.

    Raises SpecError that says what is valid. No other property reaches systemd (CVE-2024-3154).
    """
    key, equals, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not equals or not value:
        raise SpecError(f"--property {text!r}: must be KEY=VALUE")
    if key not in KEYS:
        raise SpecError(
            f"--property {key!r}: not a resource property that may be set",
            hint=_FLAGS.get(key) or suggest(key, KEYS),
        )
    parser, old, new = KEYS[key]
    name = new if facts.cgroup_mode == "v2" else old
    if not name:
        raise SpecError(
            f"--property {key}: this host's controllers are cgroup v1, it needs v2",
            hint=_V1_INSTEAD.get(key, ""),
        )
    suffix, signature, typed = parser(value, f"--property {key}")
    if name != key:
        typed = convert(key, name, signature, typed)
    return Property(name=name + suffix, signature=signature, value=typed)


def convert(key: str, name: str, signature: str, value: Any) -> Any:
    """Convert a value of the property `key` to its other spelling, `name`. Raises SpecError."""
    if key == "CPUWeight" and value == 0:
        raise SpecError(
            "--property CPUWeight=idle: needs cgroup v2", hint=f"use --cpu-idle, {_BOTH}"
        )
    family = (key.removeprefix("Startup"), name.removeprefix("Startup"))
    per_device = signature == "a(st)"
    if per_device:
        family = (family[0].replace("Device", ""), family[1].replace("Device", ""))
    change = _CONVERSIONS.get(family)
    if change is None:
        return value
    return [(path, change(one)) for path, one in value] if per_device else change(value)
