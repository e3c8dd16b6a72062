"""Tell systemd-resolved which server knows the names of a network: the host itself then resolves NAME.sysbox.

The settings are those of one link, the network's bridge (org.freedesktop.resolve1(5)), and resolved drops
them with it. It keeps them over a restart of its own, in a file for each link that it was told about. A host
without systemd-resolved, such as an embedded one, pays for one look at a path.
"""

from __future__ import annotations

import _socket
import time

from sysbox.base.errors import SystemdError
from sysbox.base.frozen import Frozen
from sysbox.host import exists
from sysbox.units.bus import Bus
from sysbox.units.wire import NO_AUTO_START

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DOMAIN = "sysbox"
_SERVICE = "org.freedesktop.resolve1"
_PATH = "/org/freedesktop/resolve1"
_MANAGER = f"{_SERVICE}.Manager"
_UNKNOWN_LINK = f"{_SERVICE}.NoSuchLink"
_SOCKET = "/run/systemd/resolve/io.systemd.Resolve"  # there since its first start
_TOLD = "/run/systemd/resolve/netif"  # has a file for each link with settings, by its index
_AT_MOST = 0.1  # seconds that a broker may delay a start
_PATIENCE = 1.0  # seconds for all answers
_STEP = 0.002  # seconds


class Told(Frozen):
    """What resolved was told, and the connection on which it answers."""

    bus: Bus
    calls: tuple[tuple[str, str, Any], ...]  # member, signature, arguments
    serials: tuple[int, ...]


def begin(bridge: str, servers: tuple[str, ...]) -> Told | None:
    """Tell resolved of the servers of a link, without waiting; None where it does not run or knows already.

    `servers` are addresses. It is not started for this.
    """
    if not servers or not exists(_SOCKET):
        return None
    try:
        index = _socket.if_nametoindex(bridge)
        if exists(f"{_TOLD}/{index}"):
            return None
        calls, bus = settings(index, servers), Bus.broker(_AT_MOST)
    except (OSError, SystemdError):
        return None  # ignoring: containers have their names all the same
    try:
        return Told(bus=bus, calls=calls, serials=_send(bus, calls))
    except SystemdError:
        bus.close()
        return None  # ignoring: as above


def finish(told: Told) -> None:
    """Return once resolved has taken the settings, or has refused them, which is ignored."""
    deadline = time.monotonic() + _PATIENCE
    with told.bus as bus:
        serials = told.serials
        while _is_unknown(bus, serials, deadline) and time.monotonic() < deadline:
            # the kernel has yet to tell it of the link
            time.sleep(_STEP)
            try:
                serials = _send(bus, told.calls)
            except SystemdError:
                return  # ignoring: it has just ended


def settings(index: int, servers: tuple[str, ...]) -> tuple[tuple[str, str, Any], ...]:
    """The calls for a link, as (member, signature, arguments): pure.

    The server comes last: before it is known what is asked of it, it would be asked for names of others. The
    domain is a route ("~sysbox"), which no name is completed with. DNS over TLS, DNSSEC, LLMNR and multicast
    DNS are off: the network's resolver has the first two as little as the domain is signed, and containers
    are not asked which names they have.
    """
    addresses = [
        (_socket.AF_INET6 if ":" in one else _socket.AF_INET, _packed(one)) for one in servers
    ]
    return (
        ("SetLinkDefaultRoute", "ib", (index, False)),
        ("SetLinkDomains", "ia(sb)", (index, [(DOMAIN, True)])),
        *(
            (f"SetLink{what}", "is", (index, "no"))
            for what in ("DNSOverTLS", "DNSSEC", "LLMNR", "MulticastDNS")
        ),
        ("SetLinkDNS", "ia(iay)", (index, addresses)),
    )


def _packed(address: str) -> bytes:
    return _socket.inet_pton(_socket.AF_INET6 if ":" in address else _socket.AF_INET, address)


def _send(bus: Bus, calls: tuple[tuple[str, str, Any], ...]) -> tuple[int, ...]:
    return tuple(
        bus.send(_PATH, _MANAGER, member, signature, args, to=_SERVICE, flags=NO_AUTO_START)
        for member, signature, args in calls
    )


def _is_unknown(bus: Bus, serials: tuple[int, ...], deadline: float) -> bool:
    """Whether resolved has answered that there is no such link."""
    unknown = False
    for serial in serials:
        try:
            bus.reply(serial, deadline - time.monotonic())
        except SystemdError as error:
            # ignoring all others: one that does not know a setting takes the others
            unknown = unknown or error.dbus_name == _UNKNOWN_LINK
    return unknown
