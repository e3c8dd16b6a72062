"""Sockets that have a place in the file system: unix(7)."""

from __future__ import annotations

import _socket

from sysbox.base.errors import KernelError


def bound(path: str, kind: int) -> _socket.socket:
    """A socket of a kind (SOCK_DGRAM, ...) that others find at `path`. Raises KernelError."""
    socket = _socket.socket(_socket.AF_UNIX, kind | _socket.SOCK_CLOEXEC)
    try:
        socket.bind(path)
    except OSError as error:
        socket.close()
        raise KernelError.of("listen on", path, error) from None
    return socket


def send(address: str, data: bytes, *, wait: bool) -> None:
    """Send one datagram; without `wait` only if there is room for it at once. Raises OSError."""
    socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        socket.setblocking(wait)
        socket.sendto(data, address)
    finally:
        socket.close()
