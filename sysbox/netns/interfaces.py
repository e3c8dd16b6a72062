"""What netdevice(7)'s ioctls tell of a link: four of them are cheaper than an answer of rtnetlink.

`probe` is any socket of the network namespace that is meant.
"""

from __future__ import annotations

import _socket
import _struct
import errno as _errno
import fcntl

from sysbox.base.errors import KernelError
from sysbox.netns import rtnetlink as rt

_SIOCGIFFLAGS = 0x8913
_SIOCGIFADDR = 0x8915
_SIOCGIFNETMASK = 0x891B
_SIOCGIFINDEX = 0x8933


def _request(name: str) -> bytes:
    return _struct.pack("16s24x", name.encode("ascii"))  # struct ifreq


def index(probe: _socket.socket, name: str) -> int:
    """The interface index of a link. Raises OSError."""
    (number,) = _struct.unpack_from("=i", fcntl.ioctl(probe, _SIOCGIFINDEX, _request(name)), 16)
    return int(number)


def index_of(name: str) -> int:
    """The index of a link of this process's network namespace. Raises KernelError."""
    probe = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        return index(probe, name)
    except OSError as error:
        raise KernelError.of("look up", name, error) from None
    finally:
        probe.close()


def flags(probe: _socket.socket, name: str) -> int:
    """The flags of a link (netdevice(7)), -1 where there is none. Raises OSError."""
    try:
        answer = fcntl.ioctl(probe, _SIOCGIFFLAGS, _request(name))
    except OSError as error:
        if error.errno == _errno.ENODEV:
            return -1
        raise
    return int(_struct.unpack_from("=H", answer, 16)[0])


def address(probe: _socket.socket, name: str) -> tuple[str, int, bool]:
    """(first address, bits of its mask, whether the link is up); ("", 0, False) without link or address.

    Raises OSError.
    """
    request = _request(name)
    try:
        (flags,) = _struct.unpack_from("=H", fcntl.ioctl(probe, _SIOCGIFFLAGS, request), 16)
        found = fcntl.ioctl(probe, _SIOCGIFADDR, request)[20:24]
        mask = fcntl.ioctl(probe, _SIOCGIFNETMASK, request)[20:24]
    except OSError as error:
        if error.errno in (_errno.ENODEV, _errno.EADDRNOTAVAIL):
            return "", 0, False
        raise
    bits = int.from_bytes(mask, "big").bit_count()
    return _socket.inet_ntop(_socket.AF_INET, found), bits, bool(flags & rt.IFF_UP)
