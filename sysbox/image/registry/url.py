"""URLs: taken apart strictly, and where a redirect may lead (RFC 3986, RFC 9110)."""

from __future__ import annotations

from sysbox.base.errors import FormatError
from sysbox.base.frozen import Frozen

_PORTS = {"http": 80, "https": 443}
_LONGEST = 8192  # characters


class Url(Frozen):
    """An http or https URL without user information and fragment."""

    scheme: str
    host: str  # without the brackets of an IPv6 address
    port: int
    target: str  # path and query

    def origin(self) -> tuple[str, str, int]:
        """What credentials are bound to (RFC 6454)."""
        return self.scheme, self.host, self.port

    def authority(self) -> str:
        """`host`, or `host:port` where the port is not the scheme's."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority()}{self.target}"

    def place(self) -> str:
        """For messages: without the query, which may hold a signature."""
        return str(self).partition("?")[0]


def make(scheme: str, host: str, port: int, target: str) -> Url:
    """A URL of parts that are known to be right; port 0 is the scheme's."""
    return Url(scheme=scheme, host=host.lower(), port=port or _PORTS[scheme], target=target)


def parse(text: str, what: str, base: Url | None = None) -> Url:
    """Read a URL, or a reference relative to `base`. Raises FormatError, which begins with `what`."""
    from urllib.parse import urljoin, urlsplit

    if len(text) > _LONGEST or not text.isascii() or not text.isprintable() or " " in text:
        # urlsplit drops some control characters without a word
        raise FormatError(f"{what}: a URL that is too long or holds other than printable ASCII")
    try:
        parts = urlsplit(urljoin(str(base), text) if base else text)
        port = parts.port
    except ValueError as error:
        raise FormatError(f"{what}: '{text[:200]}' is not a URL: {error}") from None
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc or "\\" in text:
        raise FormatError(f"{what}: '{text[:200]}' is not a URL of http or https without user name")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return make(parts.scheme, parts.hostname, port or 0, target)
