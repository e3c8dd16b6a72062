"""Parse network values: addresses, ports, host names."""

from __future__ import annotations

from sysbox.parse.common import ALNUM, bad, check_name, is_digits
from sysbox.spec import Endpoint, Port

# what podman has for ordinary users, who cannot make bridges; a network may have such a name
OF_USERS = ("pasta", "slirp4netns")
OF_USERS_HINT = (
    "leave it out: the default bridge leads out too; or write `host`, or a network's name"
)
LINK_MAX = 15  # IFNAMSIZ - 1, netdevice(7)
HOSTNAME_MAX = 64  # HOST_NAME_MAX, hostname(7)


def parse_ip(text: str, flag: str, whole: str = "") -> str:
    """Check an IPv4 or IPv6 address; returned as given. `whole` is the text for the error message."""
    import _socket

    family = _socket.AF_INET6 if ":" in text else _socket.AF_INET
    try:
        _socket.inet_pton(family, text)
    except (OSError, ValueError):
        bad(flag, whole or text, f"{text or 'nothing'} is not an IP address")
    return text


def _port_range(text: str, flag: str, whole: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    ends = (first, last) if dash else (first, first)
    for end in ends:
        if not is_digits(end) or len(end) > 5 or not 1 <= int(end) <= 65535:
            bad(flag, whole, f"{end or 'nothing'} is not a port", "from 1 to 65535")
    low, high = int(ends[0]), int(ends[1])
    if low > high:
        bad(flag, whole, f"{text} is backwards")
    return low, high


def parse_port(text: str, flag: str) -> tuple[Port, ...]:
    """The ports of "[HOST_IP:][HOST_PORT:]CONTAINER_PORT[/PROTOCOL]"; both ports may be ranges A-B.

    Ranges of one length pair up; a range for one port of the container is a choice of the host's ports. The
    host's port 0 is any free one, as if it were left out.
    """
    rest, slash, protocol = text.partition("/")
    protocol = protocol.lower()
    if slash and protocol not in ("tcp", "udp", "sctp"):
        bad(flag, text, f"{protocol or 'nothing'} is not a protocol", "tcp, udp or sctp")
    host_ip = ""
    if rest.startswith("["):
        host_ip, bracket, rest = rest[1:].partition("]:")
        if not bracket:
            bad(flag, text, "not [IPV6]:HOST_PORT:CONTAINER_PORT")
    elif rest.count(":") == 2:
        host_ip, _, rest = rest.partition(":")
    if host_ip:
        parse_ip(host_ip, flag, text)
    host, colon, container = rest.rpartition(":")
    if ":" in host or (not colon and not container):
        bad(flag, text, "not a port", "[HOST_IP:][HOST_PORT:]CONTAINER_PORT[/PROTOCOL]")
    first, last = _port_range(container, flag, text)
    if first == last and is_digits(host) and not host.strip("0"):
        host = ""  # docker's 0
    host_first, host_last = _port_range(host, flag, text) if host else (0, 0)
    asked = Port(container_port=first, host_ip=host_ip, protocol=protocol or "tcp")
    if host and first == last and host_first != host_last:
        return (asked.replace(host_port=host_first, host_last=host_last),)
    if host and host_last - host_first != last - first:
        counts = f"{host_last - host_first + 1} and {last - first + 1} ports"
        reason = f"the two ranges differ in length: {counts}"
        bad(flag, text, reason, "two of one length, or one port of the container")
    return tuple(
        asked.replace(container_port=first + step, host_port=host_first + step if host else 0)
        for step in range(last - first + 1)
    )


def parse_host_port(text: str, flag: str) -> tuple[Port, ...]:
    """What `unpublish` takes: a port of the host, "[HOST_IP:]HOST_PORT[:CONTAINER_PORT][/PROTOCOL]".

    The container's port is 0 where it was not given. A range is one Port with `host_last`, or pairs with a
    range of the container's.
    """
    rest, slash, protocol = text.partition("/")
    protocol = protocol.lower()
    if rest.startswith("["):
        address, bracket, ports = rest.partition("]:")
        address += bracket
    else:
        head, _, tail = rest.partition(":")
        address, ports = (f"{head}:", tail) if "." in head else ("", rest)
    if ":" in ports:
        return parse_port(text, flag)
    # no port of the container: parsed with one, which is then left out
    found = parse_port(f"{address}{ports}:1{slash}{protocol}", flag)
    if not found[0].host_port:
        bad(flag, text, f"{ports or 'nothing'} is not a port", "from 1 to 65535")
    return tuple(port.replace(container_port=0) for port in found)


def check_link(text: str, flag: str) -> str:
    """Check the name of a network link: only characters that ip-link(8) and iptables(8) both accept.

    Raises SpecError.
    """
    allowed = ALNUM | frozenset("-._")
    if not text or not allowed.issuperset(text) or text[0] in "-." or is_digits(text):
        bad(flag, text, "not the name of a link", "letters, digits, - . and _, as in br0")
    if len(text) > LINK_MAX:
        bad(flag, text, f"longer than {LINK_MAX} characters")
    if text in ("all", "default", "lo"):
        bad(flag, text, "has a meaning of its own in the kernel", "as in br0")
    return text


def check_hostname(text: str, flag: str) -> str:
    """Check a host name: only characters that sethostname(2) and common tools accept."""
    allowed = ALNUM | frozenset("-._")
    if len(text) > HOSTNAME_MAX:
        bad(flag, text, f"longer than {HOSTNAME_MAX} characters")
    if not text or not allowed.issuperset(text) or text[0] in "-." or text[-1] in "-.":
        bad(flag, text, "not a host name", "letters, digits, - and .")
    return text


def parse_add_host(text: str, flag: str) -> str:
    """ "name:ip" from "name:ip" or "name=ip"; the address may be IPv6 or `host-gateway`."""
    separator = "=" if "=" in text else ":"
    name, _, address = text.partition(separator)
    check_hostname(name, flag) if name and address else bad(flag, text, "not NAME:IP")
    address = address.removeprefix("[").removesuffix("]")
    if address != "host-gateway":
        parse_ip(address, flag, text)
    return f"{name}:{address}"


_ENDPOINT_KEYS = {
    "ip": "address",
    "ip6": "address6",
    "mac": "mac",
    "mac-address": "mac",
    "mac_address": "mac",
    "alias": "aliases",
    "interface_name": "interface",
    "interface-name": "interface",
}


def parse_endpoint(text: str, flag: str) -> Endpoint:
    """A network and what is asked of the container's end: "NAME", "NAME:ip=...,alias=..." or docker's
    "name=NAME,ip=...".
    """
    if "=" in text.partition(":")[0]:
        name, settings = "", text
    else:
        name, _, settings = text.partition(":")
    values: dict[str, str] = {}
    aliases: list[str] = []
    for part in settings.split(",") if settings else ():
        key, equals, value = part.partition("=")
        if key == "name" and not name and value:
            name = value
        elif key not in _ENDPOINT_KEYS or not equals or not value:
            from sysbox.base.suggest import suggest

            if name in OF_USERS:
                bad(flag, text, f"{name} is podman's mode for users other than root", OF_USERS_HINT)
            reason = f"unknown option {key}"
            if key in _ENDPOINT_KEYS or not equals:
                reason = f"{part or 'nothing'} is not OPTION=VALUE"
            bad(flag, text, reason, suggest(key, ("ip", "ip6", "mac", "alias", "interface_name")))
        elif key == "alias":
            aliases.append(check_alias(value, flag))
        elif _ENDPOINT_KEYS[key] in values:
            bad(flag, text, f"{key} is given twice")
        else:
            values[_ENDPOINT_KEYS[key]] = value
    if not name:
        bad(flag, text, "names no network", "NAME[:OPTION=VALUE,...]")
    if name in ("host", "none"):
        bad(flag, text, f"{name} has no options", f"as in --network {name}")
    check_name(name, flag, shortest=1)
    return complete(Endpoint(network=name, aliases=tuple(dict.fromkeys(aliases))), values, flag)


def complete(endpoint: Endpoint, values: dict[str, str], flag: str) -> Endpoint:
    """The endpoint with texts for `address`, `address6`, `mac` and `interface`, each checked."""
    for field in ("address", "address6"):
        if field in values:
            endpoint = _with_address(endpoint, values[field], flag, v6=field == "address6")
    if "mac" in values:
        endpoint = endpoint.replace(mac=parse_mac(values["mac"], flag))
    if "interface" in values:
        endpoint = endpoint.replace(interface=check_link(values["interface"], flag))
    return endpoint


def _with_address(endpoint: Endpoint, text: str, flag: str, *, v6: bool) -> Endpoint:
    # podman's ip= takes both families
    parse_ip(text, flag)
    if v6 and ":" not in text:
        bad(flag, text, "not an IPv6 address")
    field = "address6" if ":" in text else "address"
    if getattr(endpoint, field):
        bad(flag, text, "a second address of the same family on one network")
    return endpoint.replace(**{field: text})


def parse_mac(text: str, flag: str) -> str:
    """The MAC of one link, as 02:00:00:00:00:01 or with dashes; lower case and colons are returned."""
    parts = text.lower().replace("-", ":").split(":")
    digits = frozenset("0123456789abcdef")
    if len(parts) != 6 or not all(len(one) == 2 and digits.issuperset(one) for one in parts):
        bad(flag, text, "not a MAC address", "as in 02:42:ac:11:00:02")
    if int(parts[0], 16) & 1 or not any(int(one, 16) for one in parts):
        bad(flag, text, "not the address of one link", "the first number must be even: 02:...")
    return ":".join(parts)


def check_alias(text: str, flag: str) -> str:
    """A further name of a container on a network: as a host name, in lower case."""
    return check_hostname(text, flag).lower()
