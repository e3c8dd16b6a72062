"""urllib3's connections: one pool for each server, with its certificates and proxy."""

from __future__ import annotations

import os

from sysbox.base import program
from sysbox.base.errors import RegistryError, SysboxError, Unreachable
from sysbox.image.registry import proxies, tls
from sysbox.image.registry.paced import Paced, Patience
from sysbox.image.registry.url import Url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    import urllib3

_BUFFER = 64 << 10  # bytes
_USUAL = {"User-Agent": f"sysbox/{program.VERSION}", "Accept-Encoding": "identity"}


# what OpenSSL says of a server that answers something else, or ends the connection
_NOT_TLS = (
    "WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER", "record layer", "EOF",
)  # fmt: skip


class Cut(Unreachable):
    """The connection ended before the answer did, or no byte came in time: worth another attempt."""


class NotTls(Unreachable):
    """The server does not speak TLS on this port."""


class Connections:
    """Sends one request at a time, following and repeating nothing."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._pools: dict[tuple[str, str, int, str, bool], urllib3.PoolManager] = {}
        self._owner = os.getpid()

    def send(
        self,
        method: str,
        url: Url,
        headers: dict[str, str],
        body: bytes | Iterable[bytes] | None = None,
        *,
        insecure: bool = False,
        certificates: str = "",
        wait: float = 0.0,
    ) -> urllib3.BaseHTTPResponse:
        """The answer, its body unread. `wait` is the time until its first byte, in seconds.

        `certificates` is a directory of them, "" for that of the host in certs.d. Raises Unreachable, of
        which NotTls and Cut mean what they say; FormatError for bad certificates.
        """
        pool = self._pool(url, certificates, insecure=insecure)
        import urllib3  # the one file that knows it

        known = self._patience
        try:
            answer = pool.urlopen(
                method,
                str(url),
                body=body,
                headers=_USUAL | headers,
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
                timeout=urllib3.Timeout(connect=known.connect, read=wait or known.answer),
            )
        except urllib3.exceptions.HTTPError as error:
            raise explained(error, url) from None
        except OSError as error:
            # while the body is sent
            raise Cut(f"{url.place()}: {error.strerror or error}") from None
        if method == "HEAD":
            answer.drain_conn()  # nothing comes, but the next request would find the connection busy
        return answer

    def close(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            pool.clear()
        self._pools.clear()

    def _pool(self, url: Url, certificates: str, *, insecure: bool) -> urllib3.PoolManager:
        if self._owner != os.getpid():
            # the parent goes on with the sockets that a fork has copied: leave them alone
            self._owner = os.getpid()
            self._pools = {}
        key = (*url.origin(), certificates, insecure)
        if key not in self._pools:
            self._pools[key] = _make_pool(url, self._patience, certificates, insecure=insecure)
        return self._pools[key]


def _make_pool(
    url: Url, patience: Patience, certificates: str, *, insecure: bool
) -> urllib3.PoolManager:
    program.load_site()
    import urllib3

    options: dict[str, Any] = {"maxsize": 4, "blocksize": _BUFFER}
    if url.scheme == "https":
        options["ssl_context"] = tls.context(url.host, url.port, certificates, insecure=insecure)
        if insecure:
            options |= {"cert_reqs": "CERT_NONE", "assert_hostname": False}
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    proxy = proxies.choose(url, os.environ)
    pool: urllib3.PoolManager
    if proxy:
        address, login = _proxy_login(proxy)
        headers = urllib3.make_headers(proxy_basic_auth=login) if login else None
        pool = urllib3.ProxyManager(address, proxy_headers=headers, **options)
    else:
        pool = urllib3.PoolManager(**options)
    pool.pool_classes_by_scheme = _paced_classes(patience, url.authority())
    return pool


def read(answer: urllib3.BaseHTTPResponse, count: int, url: Url) -> bytes:
    """Up to `count` bytes of a body, b"" at its end. Raises Cut, Unreachable."""
    from urllib3.exceptions import HTTPError

    try:
        return answer.read(count)
    except HTTPError as error:
        raise explained(error, url) from None
    except OSError as error:
        raise Cut(f"{url.place()}: {error.strerror or error}") from None


def _proxy_login(proxy: str) -> tuple[str, str]:
    """The URL of a proxy without user information, and that, decoded."""
    from urllib.parse import unquote

    scheme, _, rest = proxy.partition("://")
    login, at, address = rest.rpartition("@")
    return f"{scheme}://{address}", unquote(login) if at else ""


def _paced_classes(patience: Patience, what: str) -> dict[str, Any]:
    """urllib3's pools with connections whose every answer is read through Paced."""
    import http.client
    import io

    import urllib3

    class Response(http.client.HTTPResponse):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            raw = self.fp.detach()
            self.fp = io.BufferedReader(Paced(raw, patience, what), _BUFFER)

    class Plain(urllib3.connection.HTTPConnection):
        response_class = Response

    class Secure(urllib3.connection.HTTPSConnection):
        response_class = Response

    class PlainPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


def explained(error: Exception, url: Url) -> RegistryError:
    """The error for one of urllib3's, in one line."""
    import urllib3

    kinds = urllib3.exceptions
    place = url.authority()
    while isinstance(error, kinds.MaxRetryError) and error.reason is not None:
        error = error.reason
    if isinstance(error, kinds.SSLError):
        return _of_tls(error, url)
    if isinstance(error, kinds.ProxyError):
        return Unreachable(
            f"{place}: the proxy does not answer: {_reason(error)}",
            hint=f"see {url.scheme.upper()}_PROXY and NO_PROXY",
        )
    if isinstance(error, kinds.ConnectTimeoutError) and not isinstance(
        error, kinds.NewConnectionError
    ):
        return Unreachable(f"{place}: no connection: it does not answer")
    if isinstance(error, kinds.NameResolutionError):
        return Unreachable(
            f"{place}: no such host", hint="check its name, and the resolver's servers"
        )
    if isinstance(error, kinds.NewConnectionError):
        return Unreachable(f"{place}: no connection: {_reason(error)}")
    if isinstance(error, kinds.ReadTimeoutError):
        return Cut(f"{place}: no answer in time")
    return Cut(f"{place}: the connection was cut: {_reason(error)}")


def _of_tls(error: Exception, url: Url) -> RegistryError:
    text = str(error)
    place = url.authority()
    if any(sign in text for sign in _NOT_TLS):
        return NotTls(
            f"{place}: does not speak TLS",
            hint="for a registry without it say `insecure = true` in registries.conf",
        )
    if "CERTIFICATE_VERIFY_FAILED" in text or "doesn't match" in text:
        reason = text.partition("certificate verify failed: ")[2].partition(" (_ssl")[0]
        return Unreachable(
            f"{place}: its certificate is not trusted: {reason or text}",
            hint=f"put the authority's certificate into {tls.DIRECTORIES[0]}/{place}/ca.crt",
        )
    return Unreachable(f"{place}: TLS failed: {_reason(error)}")


def _reason(error: BaseException) -> str:
    """The innermost reason, in one line."""
    inner: BaseException = error
    while True:
        below = inner.__cause__ or inner.__context__
        nested = next((arg for arg in inner.args if isinstance(arg, BaseException)), None)
        following = nested or below
        # what was being handled when the connection was made, as that the image is not here, is no reason
        if following is None or following is inner or isinstance(following, SysboxError):
            break
        inner = following
    text = (
        (inner.strerror if isinstance(inner, OSError) else "") or str(inner) or type(inner).__name__
    )
    return " ".join(text.split())[:200]
