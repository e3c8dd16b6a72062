"""Unix sockets with a path in the file system: unix(7)."""

from __future__ import annotations

import _socket

from sysbox.base.errors import KernelError


def bind(path: str, kind: int) -> _socket.socket:
    """A socket of a kind (SOCK_DGRAM, ...) bound to `path`. Raises KernelError."""
    socket = _socket.socket(_socket.AF_UNIX, kind | _socket.SOCK_CLOEXEC)
    try:
        socket.bind(path)
    except OSError as error:
        socket.close()
        raise KernelError.of("listen on", path, error) from None
    return socket


def send(address: str, data: bytes, *, wait: bool) -> None:
    """Send one datagram. Raises OSError: without `wait`, EAGAIN where the receiver's queue is full."""
    socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        socket.setblocking(wait)
        socket.sendto(data, address)
    finally:
        socket.close()


def notify(address: str, message: str) -> None:
    """sd_notify(3): `address` is that of $NOTIFY_SOCKET. Raises OSError."""
    place = "\0" + address[1:] if address[0] == "@" else address
    send(place, message.encode("utf-8", "surrogateescape"), wait=True)
