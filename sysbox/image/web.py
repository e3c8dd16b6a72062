"""Read a file of a web server, as `docker import URL` does."""

from __future__ import annotations

from sysbox.base.errors import FormatError, NotFound, RegistryError
from sysbox.image.registry import url as urls
from sysbox.image.registry.endpoint import Endpoint
from sysbox.image.registry.transport import Request, Transport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from sysbox.image.registry.paced import Patience

MOST = 64 << 30  # bytes


def is_url(text: str) -> bool:
    """Whether a file is one of a web server."""
    return text.startswith(("http://", "https://"))


class WebFile:
    """A file that is read once, from its beginning; a context manager.

    Redirects are followed, never from https to http. Proxies and certificates are those of registries.
    """

    def __init__(self, text: str, patience: Patience | None = None, most: int = MOST) -> None:
        """Raises FormatError for what is not a URL of http or https without a user name."""
        self._url = urls.parse(text, "import")
        self._most = most
        self._transport = Transport(
            Endpoint(
                registry=self._url.authority(),
                host=self._url.host,
                port=self._url.port,
                scheme=self._url.scheme,
            ),
            patience,
        )
        self.name = self._url.place()
        self.size = 0  # bytes so far
        self.modified = ""  # the header Last-Modified, "" without one

    def __enter__(self) -> Self:
        """Raises Unreachable, RegistryError, NotFound, FormatError for a file that is too large."""
        answer = self._transport.send(Request(method="GET", url=self._url))
        if answer.status != 200:
            answer.close()
            self._transport.close()
            error = NotFound if answer.status in (404, 410) else RegistryError
            raise error(f"{self.name}: the server answers {answer.status}")
        self._answer = answer
        self.modified = answer.header("Last-Modified")
        length = answer.header("Content-Length")
        if length.isdecimal() and int(length) > self._most:
            self.__exit__(None, None, None)
            raise FormatError(f"{self.name}: {length} bytes are over the limit of {self._most}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._answer.close()
        self._transport.close()

    def read(self, count: int) -> bytes:
        """Up to `count` bytes, b"" at the end. Raises Unreachable, FormatError for too many bytes."""
        data = self._answer.read(count)
        self.size += len(data)
        if self.size > self._most:
            raise FormatError(f"{self.name}: more than {self._most} bytes")
        return data
