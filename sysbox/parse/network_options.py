"""Parse `--opt NAME=VALUE` of a network: docker's and podman's names, and ours."""

from __future__ import annotations

from sysbox.parse.common import ALNUM, bad, parse_int
from sysbox.parse.network import check_link, parse_ip
from sysbox.spec import Route

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

_DOCKER = "com.docker.network."
_YES = ("true", "1", "yes", "on", "strict", "t")
_NO = ("false", "0", "no", "off", "f")
_MTU = (68, 65535)
_VLAN = (1, 4094)  # IEEE 802.1Q
_PREFIX_MAX = 12  # characters: a number of three digits follows


def _boolean(text: str, flag: str) -> bool:
    """Podman's isolate=strict is true here: a network is always isolated from all others."""
    lower = text.lower()
    if lower not in (*_YES, *_NO):
        bad(flag, text, "neither true nor false")
    return lower in _YES


def _mtu(text: str, flag: str) -> int:
    return parse_int(text, flag, *_MTU)


def _mode(text: str, flag: str) -> str:
    if text not in ("nat", "routed"):
        bad(flag, text, "unknown mode", "nat or routed")
    return text


def _address(text: str, flag: str) -> str:
    if ":" in parse_ip(text, flag):
        bad(flag, text, "not an IPv4 address")
    return "" if text == "0.0.0.0" else text


def _prefix(text: str, flag: str) -> str:
    if not ALNUM.issuperset(text) or not text[:1].isalpha() or len(text) > _PREFIX_MAX:
        bad(flag, text, "not the beginning of a link's name", "letters and digits, as in eth")
    return text


def _vlan(text: str, flag: str) -> int:
    return parse_int(text, flag, *_VLAN)


def _one_of(*modes: str) -> Callable[[str, str], str]:
    def parse(text: str, flag: str) -> str:
        if text not in modes:
            from sysbox.base.suggest import suggest

            bad(flag, text, "unknown mode", suggest(text, modes))
        return text

    return parse


_macvlan, _ipvlan = _one_of("bridge", "private", "vepa", "passthru"), _one_of("l2", "l3", "l3s")

# name -> (field of Network, parser)
_LINKS: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "mtu": ("mtu", _mtu),
    f"{_DOCKER}driver.mtu": ("mtu", _mtu),
    f"{_DOCKER}container_iface_prefix": ("interface", _prefix),
}
_BRIDGE: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "isolate": ("isolate", _boolean),
    "icc": ("icc", _boolean),
    "host_access": ("host_access", _boolean),
    "masquerade": ("masquerade", _boolean),
    "gateway_mode_ipv6": ("gateway_mode_ipv6", _mode),
    "host_binding_ipv4": ("host_binding", _address),
    "nic": ("nic", check_link),
    "vlan": ("vlan", _vlan),
    f"{_DOCKER}bridge.name": ("bridge", check_link),
    f"{_DOCKER}bridge.enable_icc": ("icc", _boolean),
    f"{_DOCKER}bridge.enable_ip_masquerade": ("masquerade", _boolean),
    f"{_DOCKER}bridge.gateway_mode_ipv6": ("gateway_mode_ipv6", _mode),
    f"{_DOCKER}bridge.host_binding_ipv4": ("host_binding", _address),
}
_PARENT = ("parent", check_link)
# driver -> its options
BY_DRIVER = {
    "bridge": {**_LINKS, **_BRIDGE},
    "macvlan": {"parent": _PARENT, "mode": ("mode", _macvlan), "macvlan_mode": ("mode", _macvlan), **_LINKS},
    "ipvlan": {"parent": _PARENT, "mode": ("mode", _ipvlan), "ipvlan_mode": ("mode", _ipvlan), **_LINKS},
    "null": {},
}  # fmt: skip


def parse_route(text: str, flag: str) -> Route:
    """A route of a network's containers: "DESTINATION,GATEWAY[,METRIC]"."""
    parts = text.split(",")
    if len(parts) not in (2, 3):
        bad(flag, text, "not DESTINATION,GATEWAY[,METRIC]", "as in 192.168.0.0/16,10.100.0.5")
    metric = parse_int(parts[2], flag, 1, (1 << 32) - 1) if len(parts) == 3 else 0
    return Route(destination=parts[0], gateway=parse_ip(parts[1], flag, text), metric=metric)


def parse_options(
    texts: list[str], flag: str = "--opt", driver: str = "bridge"
) -> tuple[dict[str, str], dict[str, Any]]:
    """(the options as given, the fields of a Network that they set). Raises SpecError."""
    known = BY_DRIVER[driver]
    given: dict[str, str] = {}
    fields: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            bad(flag, text, "not NAME=VALUE", "as in mtu=1400")
        if name not in known:
            _refuse(text, name, flag, driver)
        field, parser = known[name]
        fields[field] = parser(value, f"{flag} {name}=")
        given[name] = value
    return given, fields


def _refuse(text: str, name: str, flag: str, driver: str) -> NoReturn:
    from sysbox.base.suggest import suggest

    having = [one for one in BY_DRIVER if name in BY_DRIVER[one]]
    reason = f"unknown option {name or 'without a name'}"
    if having:
        reason = f"{name} is an option of the driver {' and '.join(having)}, not of {driver}"
    hint = suggest(name, BY_DRIVER[driver]) if BY_DRIVER[driver] else "it has no options"
    bad(flag, text, reason, hint)
