"""Requests: repeated where that is harmless, redirected within limits, with credentials for one server alone.

Redirects are followed here and not by urllib3: at most MAX_REDIRECTS, none twice, never from https to http.
A header `Authorization` is for the origin (scheme, host, port) that the request was made for; after the first
redirect to another it is not sent again.
"""

from __future__ import annotations

import random
import time

from sysbox.base.errors import FormatError, RegistryError, SysboxError
from sysbox.base.frozen import Frozen
from sysbox.image.registry import url as urls
from sysbox.image.registry.connections import Connections, Cut, read
from sysbox.image.registry.endpoint import Endpoint
from sysbox.image.registry.paced import Patience
from sysbox.image.registry.url import Url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import urllib3

    Body = bytes | Callable[[], Iterable[bytes]] | None  # a stream is made anew for each attempt

MAX_REDIRECTS = 10
_OK = 200
_REDIRECTS = (301, 302, 303, 307, 308)
_LITTLE = 64 << 10  # bytes
BUSY = (429, 500, 502, 503, 504)


class Request(Frozen):
    """What is asked of a server."""

    method: str
    url: Url
    headers: dict[str, str] = {}  # noqa: RUF012 (the metaclass makes it a default)
    authorization: str = ""  # for the origin of `url` alone
    body: Body = None
    repeat: bool = True  # whether a second time does no harm
    follow: bool = True  # whether redirects are
    wait: float = 0.0  # seconds until the answer begins; 0: Patience.answer
    # bytes of a document that is read at once, so that a cut in it is repeated too; 0: the caller reads
    limit: int = 0
    what: str = ""  # the document's name, for messages


class Answer:
    """An answer: status and headers; the body is read with `document` or `read`."""

    def __init__(self, raw: urllib3.BaseHTTPResponse, url: Url) -> None:
        self._raw = raw
        self.url = url  # that answered, after redirects
        self.status = raw.status
        self._document: bytes | None = None

    def header(self, name: str) -> str:
        """A header, "" where there is none."""
        return self._raw.headers.get(name, "")

    def headers(self, name: str) -> list[str]:
        """Each header of a name."""
        return list(self._raw.headers.getlist(name))

    def read(self, count: int) -> bytes:
        """Up to `count` bytes; b"" at the end. Raises Cut, Unreachable."""
        return read(self._raw, count, self.url)

    def document(self, limit: int, what: str) -> bytes:
        """The whole body, of at most `limit` bytes, and the connection is free again.

        A second call returns it again. Raises FormatError for more, Cut, Unreachable.
        """
        if self._document is not None:
            return self._document
        length = self.header("Content-Length")
        if length.isdecimal() and int(length) > limit:
            self.close()
            raise FormatError(f"{what}: {length} bytes are over the limit of {limit}")
        if self.header("Content-Encoding").lower() not in ("", "identity"):
            self.close()
            raise FormatError(f"{what}: is sent with a Content-Encoding that was not asked for")
        data = bytearray()
        while part := self.read(min(limit + 1 - len(data), 1 << 16) or 1):
            data += part
            if len(data) > limit:
                self.close()
                raise FormatError(f"{what}: more than {limit} bytes")
        self.done()
        self._document = bytes(data)
        return self._document

    def done(self) -> None:
        """The body was read: give the connection back."""
        self._raw.release_conn()

    def drop(self) -> None:
        """The body is not wanted: the connection is kept where little of it is left."""
        length = self.header("Content-Length")
        if length.isdecimal() and int(length) <= _LITTLE:
            try:
                while self.read(_LITTLE):
                    pass
                self.done()
                return
            except SysboxError:
                pass  # ignoring: what is left of it is nothing to us
        self.close()

    def close(self) -> None:
        """Give up an answer; its connection is closed."""
        self._raw.close()


class Transport:
    """Sends requests of one repository; a process that was forked makes connections of its own."""

    def __init__(self, endpoint: Endpoint, patience: Patience | None = None) -> None:
        self.patience = patience or Patience()
        self._endpoint = endpoint
        self._connections = Connections(self.patience)

    def send(self, request: Request) -> Answer:
        """The answer after redirects, whatever its status.

        A connection that is cut, and 429 and 5xx, are tried again where `repeat` allows it. Raises
        Unreachable, RegistryError for redirects that are not followed.
        """
        for left in reversed(range(self.patience.attempts if request.repeat else 1)):
            try:
                answer = self._follow(request)
                if request.limit and answer.status == _OK:
                    answer.document(request.limit, request.what)
            except Cut:
                if not left:
                    raise
                self.pause(left)
                continue
            if answer.status not in BUSY or not left:
                return answer
            asked = retry_after(answer.header("Retry-After"))
            if asked > self.patience.longest_pause:
                return answer
            answer.drop()
            self.pause(left, asked)
        raise AssertionError("unreachable")

    def pause(self, left: int, asked: float = 0.0) -> None:
        """Wait before the next of the `left` attempts; at least as long as the server has asked."""
        doubled = self.patience.pause * 2 ** (self.patience.attempts - 1 - left)
        # at random, so that many clients do not come back together
        time.sleep(max(asked, doubled * (0.5 + random.random() / 2)))  # noqa: S311

    def close(self) -> None:
        """Close all connections."""
        self._connections.close()

    def _follow(self, request: Request) -> Answer:
        url, authorization = request.url, request.authorization
        seen = {str(url)}
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._once(request, url, authorization)
            if answer.status not in _REDIRECTS or not request.follow:
                return answer
            target = redirected(answer)
            answer.drop()
            if str(target) in seen:
                raise RegistryError(f"{request.url.place()}: the redirects go round in a circle")
            seen.add(str(target))
            if target.origin() != url.origin():
                authorization = ""
            url = target
        raise RegistryError(f"{request.url.place()}: more than {MAX_REDIRECTS} redirects")

    def _once(self, request: Request, url: Url, authorization: str) -> Answer:
        headers = dict(request.headers)
        if authorization:
            headers["Authorization"] = authorization
        body = request.body() if callable(request.body) else request.body
        is_home = url.host == self._endpoint.host.lower()
        raw = self._connections.send(
            request.method,
            url,
            headers,
            body,
            insecure=self._endpoint.insecure and is_home,
            certificates=self._endpoint.certificates if is_home else "",
            wait=request.wait,
        )
        return Answer(raw, url)


def redirected(answer: Answer) -> Url:
    """Where a redirect, or the Location of an upload, leads to.

    Raises RegistryError where that would leave TLS or is not a URL.
    """
    place = answer.url.place()
    location = answer.header("Location")
    if not location:
        answer.close()
        raise RegistryError(f"{place}: refers to another place without naming it")
    try:
        target = urls.parse(location, f"{place}: Location", answer.url)
    except FormatError as error:
        answer.close()
        raise RegistryError(error.message) from None
    if answer.url.scheme == "https" and target.scheme == "http":
        answer.close()
        raise RegistryError(
            f"{place}: refers from https to {target.place()}, without TLS",
            hint="a registry behind a proxy must be told X-Forwarded-Proto, or its own https address",
        )
    return target


def retry_after(text: str) -> float:
    """Seconds, of a number or a date (RFC 9110, 10.2.3); 0 for none."""
    if text.isascii() and text.isdecimal() and len(text) < 10:
        return float(text)
    if not text:
        return 0.0
    from email.utils import parsedate_to_datetime

    try:
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return 0.0
