"""Published ports of all containers, in one small file under /run; choosing free ports.

`sysbox port` shows this file, a conflict of two containers is found in it, and the rules are restored from
it. A process changes it only while it holds the firewall's lock.
"""

from __future__ import annotations

import _socket
import errno as _errno

from sysbox.base import paths
from sysbox.base.errors import Conflict, FormatError, KernelError, SysboxError, Unsupported
from sysbox.base.files import read_file, write_file
from sysbox.netns.rules import Published
from sysbox.netns.topology import port_text, ports_overlap
from sysbox.spec import Port

FILE = f"{paths.NETWORK}/ports"
_TRIES = 64
_SCTP = 132  # IPPROTO_SCTP


def load() -> tuple[Published, ...]:
    """All published ports. Raises FormatError where the file is damaged."""
    return parse(lines())


def lines() -> list[str]:
    """The file's lines, one for each published port; most commands read few of them.

    Raises FormatError where one of them is none.
    """
    text = (read_file(FILE) or b"").decode("ascii", "replace")
    found = text.splitlines()
    for line in found:
        if line.count(" ") != 5:
            raise _damaged(line)
    return found


def has(container_id: str) -> bool:
    """Whether a container has published ports. Raises FormatError where the file cannot be read."""
    return container_id.encode("ascii") in (read_file(FILE) or b"")


def owner(line: str) -> str:
    """The container's id in a line."""
    return line.partition(" ")[0]


def store(found: list[str]) -> None:
    """Replace the file's lines. Raises KernelError."""
    write_file(FILE, "".join(f"{line}\n" for line in found).encode("ascii"))


def parse(found: list[str]) -> tuple[Published, ...]:
    """The published ports in some of the file's lines (pure). Raises FormatError."""
    entries = []
    for line in found:
        try:
            container_id, address, protocol, host_ip, host_port, container_port = line.split(" ")
            port = Port(
                container_port=int(container_port),
                host_port=int(host_port),
                host_ip="" if host_ip == "*" else host_ip,
                protocol=protocol,
            )
        except ValueError:
            raise _damaged(line) from None
        entries.append(Published(id=container_id, address=address, port=port))
    return tuple(entries)


def _damaged(line: str) -> FormatError:
    return FormatError(f"{FILE}: cannot read the line '{line}'")


def render(entries: tuple[Published, ...]) -> list[str]:
    """The file's lines: "ID ADDRESS PROTOCOL HOST_IP|* HOST_PORT CONTAINER_PORT" (pure)."""
    made = []
    for entry in entries:
        port = entry.port
        ends = f"{port.protocol} {port.host_ip or '*'} {port.host_port} {port.container_port}"
        made.append(f"{entry.id} {entry.address} {ends}")
    return made


class _Held:
    """The ports that others have, by protocol and number: each is looked up, none compared with all."""

    def __init__(self, found: list[str]) -> None:
        self._lines: dict[tuple[str, str], list[str]] = {}
        for line in found:
            fields = line.split(" ")
            self._lines.setdefault((fields[2], fields[4]), []).append(line)

    def by(self, port: Port) -> Published | None:
        """Who has a port that applies to the same packets."""
        same = self._lines.get((port.protocol, str(port.host_port)), [])
        return next((one for one in parse(same) if ports_overlap(one.port, port)), None)

    def add(self, port: Port) -> None:
        self._lines.setdefault((port.protocol, str(port.host_port)), []).extend(
            render((Published(id="", address="", port=port),))
        )


def resolve(
    wanted: tuple[Port, ...], others: list[str], addresses: tuple[str, ...]
) -> tuple[Port, ...]:
    """The ports with a host port each: as requested, or a free one in place of 0 or of a range.

    `others` are the file's lines of what is published already, `addresses` the container's. Raises Conflict
    where another container or program uses the port, or the container has no address of the host address's
    family, Unsupported for sctp without it in the kernel, KernelError.
    """
    six = any(":" in address for address in addresses)
    held = _Held(others)
    for port in wanted:
        if ":" in port.host_ip and not six:
            raise Conflict(
                f"port {port_text(port)}: the container has no IPv6 address",
                hint="publish it on an IPv4 address, or connect the container to a network with IPv6",
            )
    # all that name a port before those that take what is left
    for port in wanted:
        if port.is_chosen:
            _check(port, held, both=six)
    for port in wanted:
        if port.is_chosen:
            held.add(port)
    resolved: list[Port] = []
    for port in wanted:
        if port.host_last:
            port = _pick_of_range(port, held, both=six)
            held.add(port)
        elif not port.host_port:
            port = _pick(port, held, both=six)
            held.add(port)
        resolved.append(port)
    return tuple(resolved)


def owners(wanted: tuple[Port, ...]) -> set[str]:
    """The ids of the containers that have one of them. Raises FormatError."""
    held = _Held(lines())
    return {entry.id for port in wanted if port.is_chosen and (entry := held.by(port))}


def check_others(wanted: tuple[Port, ...], without: str) -> None:
    """Raise Conflict where a container other than the one of id `without` has one of them, FormatError."""
    held = _Held([line for line in lines() if owner(line) != without])
    for port in wanted:
        if port.is_chosen:
            _check_held(port, held)


def _check_held(port: Port, held: _Held) -> None:
    entry = held.by(port)
    if entry is not None:
        raise Conflict(
            f"port {port_text(port)}: already used by container {entry.id[:12] or 'itself'}",
            hint="publish another port, or stop that container",
        )


def _check(port: Port, held: _Held, *, both: bool) -> None:
    _check_held(port, held)
    try:
        _bind(port, both=both)
    except OSError as error:
        if error.errno == _errno.EADDRINUSE:
            from sysbox.netns import listeners

            program = listeners.owner(port.protocol, port.host_port)
            raise Conflict(
                f"port {port_text(port)}: {program or 'another program on this host'} uses it",
                hint="publish another port, or stop that program",
            ) from None
        if error.errno == _errno.EADDRNOTAVAIL:
            raise _not_of_this_host(port) from None
        raise _other(port, error) from None


def _pick(port: Port, held: _Held, *, both: bool) -> Port:
    for _ in range(_TRIES):
        try:
            candidate = port.replace(host_port=_bind(port, both=False))
            if both:
                _bind(candidate, both=True)
        except OSError as error:
            if error.errno == _errno.EADDRINUSE:
                continue  # in one of the families
            if error.errno == _errno.EADDRNOTAVAIL:
                raise _not_of_this_host(port) from None
            raise _other(port, error) from None
        if held.by(candidate) is None:
            return candidate
    raise Conflict(f"port {port_text(port)}: no free port was found")


def _pick_of_range(port: Port, held: _Held, *, both: bool) -> Port:
    """The lowest free one."""
    for number in range(port.host_port, port.host_last + 1):
        candidate = port.replace(host_port=number, host_last=0)
        if held.by(candidate) is not None:
            continue
        try:
            _bind(candidate, both=both)
        except OSError as error:
            if error.errno == _errno.EADDRINUSE:
                continue
            if error.errno == _errno.EADDRNOTAVAIL:
                raise _not_of_this_host(port) from None
            raise _other(port, error) from None
        return candidate
    raise Conflict(
        f"port {port_text(port)}: none of these ports of the host is free",
        hint="give a larger range, or leave it out for any free port",
    )


def _not_of_this_host(port: Port) -> Conflict:
    return Conflict(f"port {port_text(port)}: {port.host_ip} is not an address of this host")


def _other(port: Port, error: OSError) -> SysboxError:
    if error.errno in (_errno.EPROTONOSUPPORT, _errno.ESOCKTNOSUPPORT):
        return Unsupported(
            f"port {port_text(port)}: this kernel has no {port.protocol}",
            hint="load the module `sctp`, or publish tcp or udp",
        )
    return KernelError.of("bind", port_text(port), error)


def _bind(port: Port, *, both: bool) -> int:
    """Bind to a host port, or to a free one for 0, and close the socket; returns the number. Raises OSError.

    sysbox has no listener on published ports, so this finds a conflict with other programs only. `both`: a
    port on every address of the host is one of both families.
    """
    addresses = [port.host_ip or "0.0.0.0"]
    if both and port.host_ip == "":
        addresses.append("::")
    number = port.host_port
    for address in addresses:
        number = _bind_one(port.protocol, address, number)
    return number


def _bind_one(protocol: str, address: str, number: int) -> int:
    kind = _socket.SOCK_DGRAM if protocol == "udp" else _socket.SOCK_STREAM
    family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
    which = _SCTP if protocol == "sctp" else 0
    probe = _socket.socket(family, kind | _socket.SOCK_CLOEXEC, which)
    try:
        if family == _socket.AF_INET6:
            probe.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 1)
        if kind == _socket.SOCK_STREAM:
            # only a listener is a conflict, not a connection in TIME_WAIT
            probe.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        probe.bind((address, number))
        return int(probe.getsockname()[1])
    finally:
        probe.close()
