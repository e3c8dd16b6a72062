"""Where a repository is: the server, how to talk to it, and the name of the repository there."""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.base.frozen import Frozen
from sysbox.image.reference import DEFAULT_DOMAIN, DEFAULT_NAMESPACE

_HUB = "registry-1.docker.io"  # the server of docker.io, which itself is a web site


class Endpoint(Frozen):
    """One repository on one server."""

    registry: str  # as names have it, and as the keys of credentials: "docker.io", "localhost:5000"
    host: str  # the server: "registry-1.docker.io", "::1"
    port: int = 0  # 0: the scheme's own
    repository: str = ""  # "library/busybox"; "" where it is about the registry as such
    insecure: bool = False  # plain HTTP and certificates that are not trusted are accepted
    is_mirror: bool = False
    certificates: str = ""  # the directory of them, instead of the host's in certs.d
    scheme: str = ""  # "https" or "http"; "" where the first request has to find out

    def may_be_plain(self) -> bool:
        """Whether HTTP without TLS is accepted: for loopback always, as docker has it."""
        return self.insecure or is_loopback(self.host)

    def name(self) -> str:
        """`docker.io/library/busybox`, for messages."""
        return f"{self.registry}/{self.repository}" if self.repository else self.registry


def is_loopback(host: str) -> bool:
    """Whether a host is `localhost` or a loopback address; names are not looked up."""
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def split_host(text: str, what: str) -> tuple[str, int]:
    """`host`, `host:port`, `[::1]:port` -> (host, port or 0). Raises SpecError, which begins with `what`."""
    address, bracket, rest = text.rpartition("]")
    host, colon, port = rest.partition(":") if bracket else text.partition(":")
    if bracket:
        host = address[1:] if not host and address[:1] == "[" else ""
    if not host or (colon and not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536)):
        raise SpecError(f"{what}: '{text}' is not a host or host:port")
    return host, int(port or 0)


def of_location(
    location: str, what: str, *, insecure: bool = False, is_mirror: bool = False
) -> Endpoint:
    """The endpoint of `host[:port]/repository`. Raises SpecError, which begins with `what`."""
    registry, _, repository = location.partition("/")
    host, port = split_host(registry, what)
    if registry == DEFAULT_DOMAIN:
        host = _HUB
        if repository and "/" not in repository:
            repository = DEFAULT_NAMESPACE + repository
    return Endpoint(
        registry=registry,
        host=host,
        port=port,
        repository=repository,
        insecure=insecure,
        is_mirror=is_mirror,
    )
