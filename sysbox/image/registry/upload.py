"""Upload one blob: in one PUT, or in pieces where a server in front of the registry takes no large bodies."""

from __future__ import annotations

import os
from functools import partial

from sysbox.base.errors import FormatError, KernelError, SysboxError
from sysbox.image.registry import answers
from sysbox.image.registry.connections import Cut
from sysbox.image.registry.session import Session
from sysbox.image.registry.transport import BUSY, Answer, redirected, retry_after

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sysbox.image.documents import Descriptor

_BLOCK = 256 << 10  # bytes that are read and sent at a time
_PIECE = 16 << 20  # bytes of one PATCH
_TOO_LARGE = 413


class Upload:
    """One blob on its way; a connection that is cut begins it anew."""

    def __init__(
        self,
        session: Session,
        name: str,
        descriptor: Descriptor,
        fd: int,
        tell: Callable[[int], None],
    ) -> None:
        self._session = session
        self._name = name
        self._descriptor = descriptor
        self._fd = fd
        self._tell = tell
        self._told = 0

    def run(self, begun: str = "") -> None:
        """Send it; `begun` is the URL of an upload that was begun already, "" for none.

        Raises AccessDenied, RateLimited, Unreachable, RegistryError; KernelError for the file.
        """
        transport = self._session.transport
        send = self._whole
        for left in reversed(range(transport.patience.attempts)):
            asked = 0.0
            try:
                answer = send(begun or self._begin())
            except Cut:
                if not left:
                    raise
            else:
                if answer.status in (200, 201, 204):
                    answer.drop()
                    return
                if answer.status == _TOO_LARGE and send == self._whole:
                    send = self._pieces
                else:
                    asked = retry_after(answer.header("Retry-After"))
                    patient = left and asked <= transport.patience.longest_pause
                    if answer.status not in BUSY or not patient:
                        raise self._failure(answer)
                answer.drop()
            begun = ""
            self._tell(-self._told)
            self._told = 0
            transport.pause(left, asked)
        raise AssertionError("unreachable")

    def _begin(self) -> str:
        """Ask for an upload (spec, end-4a): its URL."""
        answer = self._session.send(
            "POST", f"/v2/{self._name}/blobs/uploads/", push=True, body=b"", follow=False
        )
        if answer.status != 202:
            raise self._failure(answer)
        return self._location(answer)

    def _whole(self, url: str) -> Answer:
        """All in one PUT (spec, end-6)."""
        return self._session.send(
            "PUT",
            self._closing(url),
            push=True,
            headers=_octets(self._descriptor.size),
            body=partial(self._blocks, 0, self._descriptor.size),
            repeat=False,
            follow=False,
            wait=self._session.transport.patience.finish,
        )

    def _pieces(self, url: str) -> Answer:
        """Piece by piece with PATCH (spec, end-5), and a PUT that ends it."""
        size = self._descriptor.size
        for start in range(0, size, _PIECE):
            end = min(start + _PIECE, size)
            answer = self._session.send(
                "PATCH",
                url,
                push=True,
                headers={**_octets(end - start), "Content-Range": f"{start}-{end - 1}"},
                body=partial(self._blocks, start, end),
                repeat=False,
                follow=False,
            )
            if answer.status not in (202, 204):
                return answer
            url = self._location(answer)
        return self._session.send(
            "PUT",
            self._closing(url),
            push=True,
            headers=_octets(0),
            body=b"",
            repeat=False,
            follow=False,
            wait=self._session.transport.patience.finish,
        )

    def _closing(self, url: str) -> str:
        """The URL that ends an upload: what the registry gave, with the digest."""
        return f"{url}{'&' if '?' in url else '?'}digest={self._descriptor.digest}"

    def _location(self, answer: Answer) -> str:
        """The URL of the next step; relative, or on another server, which gets no authorisation."""
        found = str(redirected(answer))
        answer.drop()
        return found

    def _blocks(self, start: int, end: int) -> Iterator[bytes]:
        """A part of the file. Raises KernelError, and FormatError for a file that is too short."""
        again = self._told - start
        if again > 0:  # the registry asked for credentials first
            self._tell(-again)
            self._told = start
        while start < end:
            try:
                data = os.pread(self._fd, min(_BLOCK, end - start), start)
            except OSError as error:
                raise KernelError.of("read", f"blob {self._descriptor.digest}", error) from None
            if not data:
                raise FormatError(f"blob {self._descriptor.digest}: its file ends at {start} bytes")
            yield data
            start += len(data)
            self._told += len(data)
            self._tell(len(data))

    def _failure(self, answer: Answer) -> SysboxError:
        what = f"{self._session.endpoint.name()}: blob {self._descriptor.digest}"
        return answers.failure(answer, what)


def _octets(length: int) -> dict[str, str]:
    return {"Content-Type": "application/octet-stream", "Content-Length": str(length)}
