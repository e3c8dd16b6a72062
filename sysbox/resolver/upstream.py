"""The servers that the host itself uses, from its /etc/resolv.conf."""

from __future__ import annotations

import _socket
import posix
import time

from sysbox.netns.dns import PUBLIC_SERVERS, RESOLV_CONF

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PORT = 53
_FILE_MAX = 1 << 16  # bytes
_SERVERS = 4  # one more than the C library takes
_SHUNNED = 30.0  # seconds: a server that did not answer is asked last for so long


class Upstream:
    """Reads the file anew when it has changed. A loopback server, such as systemd-resolved's stub, is as good
    as any: the resolver is in the host's network.
    """

    def __init__(self, path: str = RESOLV_CONF) -> None:
        self._path = path
        self._read_at: tuple[int, int, int] | None = None
        self._servers: tuple[str, ...] = ()
        self._late: dict[str, float] = {}  # server -> until when it is asked last

    def servers(self) -> tuple[str, ...]:
        """The addresses of the host's servers, in their order."""
        try:
            status = posix.stat(self._path)
            now = (status.st_ino, status.st_mtime_ns, status.st_size)
            if now != self._read_at:
                self._servers = parse(_content(self._path))
                self._read_at = now
        except OSError:
            self._servers, self._read_at = (), None
        return self._servers or PUBLIC_SERVERS

    def in_order(self, servers: tuple[str, ...]) -> tuple[str, ...]:
        """Those that have answered lately before those that have not."""
        now = time.monotonic()
        return tuple(sorted(servers[:_SERVERS], key=lambda one: self._late.get(one, 0.0) > now))

    def was_late(self, server: str) -> None:
        """It has not answered in time."""
        if len(self._late) > 64:
            self._late.clear()
        self._late[server] = time.monotonic() + _SHUNNED

    def has_answered(self, server: str) -> None:
        """It has answered."""
        self._late.pop(server, None)


def parse(text: str) -> tuple[str, ...]:
    """The addresses of its nameserver lines (resolv.conf(5)), each once."""
    found: dict[str, None] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver" and _family(words[1]):
            found[words[1]] = None
    return tuple(found)[:_SERVERS]


def endpoint(server: str) -> tuple[int, Any]:
    """(address family, address for connect(2)) of a server. Raises OSError for one that is not an address.

    An IPv6 address may have a scope, as in fe80::1%eth0.
    """
    # as bytes: text would be encoded by IDNA, whose tables take milliseconds to load
    found = _socket.getaddrinfo(
        server.encode("ascii"), _PORT, 0, _socket.SOCK_DGRAM, 0, _socket.AI_NUMERICHOST
    )
    return found[0][0], found[0][4]


def _family(text: str) -> bool:
    try:
        return bool(endpoint(text))
    except (OSError, UnicodeError):
        return False


def _content(path: str) -> str:
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return posix.read(fd, _FILE_MAX).decode("utf-8", "replace")
    finally:
        posix.close(fd)
