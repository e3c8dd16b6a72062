"""Published ports of all containers, in one small file under /run; choosing free ports.

`sysbox port` shows this file, a conflict of two containers is found in it, and the rules are restored from
it. A process changes it only while it holds the firewall's lock.
"""

from __future__ import annotations

import _socket
import errno as _errno

from sysbox.base import paths
from sysbox.base.errors import Conflict, FormatError, KernelError
from sysbox.base.files import read_file, write_file
from sysbox.netns.rules import Published
from sysbox.netns.topology import port_text, ports_overlap
from sysbox.spec import Port

FILE = f"{paths.NETWORK}/ports"
_TRIES = 64


def load() -> tuple[Published, ...]:
    """All published ports. Raises FormatError where the file is damaged."""
    return parse((read_file(FILE) or b"").decode("ascii", "replace"))


def store(entries: tuple[Published, ...]) -> None:
    """Replace the file. Raises KernelError."""
    write_file(FILE, render(entries).encode("ascii"))


def parse(text: str) -> tuple[Published, ...]:
    """The published ports in the file's text (pure). Raises FormatError."""
    entries = []
    for line in text.splitlines():
        try:
            container_id, address, protocol, host_ip, host_port, container_port = line.split(" ")
            port = Port(
                container_port=int(container_port),
                host_port=int(host_port),
                host_ip="" if host_ip == "*" else host_ip,
                protocol=protocol,
            )
        except ValueError:
            raise FormatError(f"{FILE}: cannot read the line '{line}'") from None
        entries.append(Published(id=container_id, address=address, port=port))
    return tuple(entries)


def render(entries: tuple[Published, ...]) -> str:
    """The file's text: "ID ADDRESS PROTOCOL HOST_IP|* HOST_PORT CONTAINER_PORT" (pure)."""
    return "".join(
        f"{entry.id} {entry.address} {entry.port.protocol} {entry.port.host_ip or '*'} "
        f"{entry.port.host_port} {entry.port.container_port}\n"
        for entry in entries
    )


def resolve(wanted: tuple[Port, ...], others: tuple[Published, ...]) -> tuple[Port, ...]:
    """The ports with a host port each: as requested, or a free one in place of 0.

    Raises Conflict where another container or program uses the port, KernelError.
    """
    resolved: list[Port] = []
    for port in wanted:
        if port.host_port:
            _check(port, others)
            resolved.append(port)
        else:
            resolved.append(_pick(port, others, resolved))
    return tuple(resolved)


def _check(port: Port, others: tuple[Published, ...]) -> None:
    for entry in others:
        if ports_overlap(entry.port, port):
            raise Conflict(
                f"port {port_text(port)}: already used by container {entry.id[:12]}",
                hint="publish another port, or stop that container",
            )
    try:
        _bind(port)
    except OSError as error:
        if error.errno == _errno.EADDRINUSE:
            raise Conflict(
                f"port {port_text(port)}: another program on this host uses it",
                hint=f"`ss -lnp sport = :{port.host_port}` names it",
            ) from None
        if error.errno == _errno.EADDRNOTAVAIL:
            raise Conflict(
                f"port {port_text(port)}: {port.host_ip} is not an address of this host"
            ) from None
        raise KernelError.of("bind", port_text(port), error) from None


def _pick(port: Port, others: tuple[Published, ...], mine: list[Port]) -> Port:
    for _ in range(_TRIES):
        try:
            candidate = port.replace(host_port=_bind(port))
        except OSError as error:
            raise KernelError.of("find a free port for", port_text(port), error) from None
        taken = [*mine, *(entry.port for entry in others)]
        if not any(ports_overlap(candidate, held) for held in taken):
            return candidate
    raise Conflict(f"port {port_text(port)}: no free port was found")


def _bind(port: Port) -> int:
    """Bind to a host port, or to a free one for 0, and close the socket; returns the number. Raises OSError.

    sysbox has no listener on published ports, so this finds a conflict with other programs only.
    """
    kind = _socket.SOCK_STREAM if port.protocol == "tcp" else _socket.SOCK_DGRAM
    probe = _socket.socket(_socket.AF_INET, kind | _socket.SOCK_CLOEXEC)
    try:
        if kind == _socket.SOCK_STREAM:
            # only a listener is a conflict, not a connection in TIME_WAIT
            probe.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        probe.bind((port.host_ip or "0.0.0.0", port.host_port))
        return int(probe.getsockname()[1])
    finally:
        probe.close()
