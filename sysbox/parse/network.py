"""Parse network values: addresses, ports, host names."""

from __future__ import annotations

from sysbox.parse.common import ALNUM, bad, is_digits
from sysbox.spec import Port

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
    """The ports of "[HOST_IP:][HOST_PORT:]CONTAINER_PORT[/PROTOCOL]"; both ports may be ranges A-B."""
    rest, slash, protocol = text.partition("/")
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
    host_first, host_last = _port_range(host, flag, text) if host else (0, 0)
    if host and host_last - host_first != last - first:
        bad(flag, text, "the two ranges differ in length")
    return tuple(
        Port(
            container_port=first + step,
            host_port=host_first + step if host else 0,
            host_ip=host_ip,
            protocol=protocol or "tcp",
        )
        for step in range(last - first + 1)
    )


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
