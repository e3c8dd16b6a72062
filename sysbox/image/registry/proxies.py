"""Proxies, by the variables HTTP_PROXY, HTTPS_PROXY and NO_PROXY (or lower case), as docker reads them.

The rules are those of Go's golang.org/x/net/http/httpproxy: NO_PROXY lists hosts with all that is below them,
`.domain` for what is below alone, addresses, networks in CIDR notation, each perhaps with `:port`, or `*`.
Loopback is never asked for through a proxy.
"""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.image.registry.endpoint import is_loopback
from sysbox.image.registry.url import Url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def choose(url: Url, environment: Mapping[str, str]) -> str:
    """The URL of the proxy for a request, "" for none. Raises SpecError for one of an unknown kind."""
    name = f"{url.scheme.upper()}_PROXY"
    found = _variable(environment, name)
    if not found or is_loopback(url.host) or excluded(url, _variable(environment, "NO_PROXY")):
        return ""
    if "://" not in found:
        found = f"http://{found}"
    if found.partition("://")[0] not in ("http", "https"):
        raise SpecError(
            f"{name}: a proxy of the kind '{found.partition('://')[0]}' is not supported",
            hint="give the URL of an http or https proxy",
        )
    return found


def excluded(url: Url, no_proxy: str) -> bool:
    """Whether NO_PROXY lists the host of a URL."""
    return any(_lists(entry.strip().lower(), url) for entry in no_proxy.split(",") if entry.strip())


def _lists(entry: str, url: Url) -> bool:
    if entry == "*":
        return True
    if _in_network(entry, url.host):
        return True
    host, port = entry, ""
    if entry.count(":") == 1 or entry.startswith("["):
        host, _, port = entry.rpartition(":") if not entry.endswith("]") else (entry, "", "")
        host = host.strip("[]")
    if port and port != str(url.port):
        return False
    if host.startswith("*."):
        host = host[1:]
    if host.startswith("."):
        return url.host.endswith(host)
    return url.host == host or url.host.endswith(f".{host}")


def _in_network(entry: str, host: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False


def _variable(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name) or environment.get(name.lower()) or ""
