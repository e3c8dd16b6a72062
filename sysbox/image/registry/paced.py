"""How long a server may take, and the reader that notices one that is too slow."""

from __future__ import annotations

import io
import time

from sysbox.base.errors import Unreachable
from sysbox.base.frozen import Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Patience(Frozen):
    """Times in seconds. Only time that is spent waiting for the server counts."""

    connect: float = 10.0  # to connect, and for the handshake of TLS
    answer: float = 30.0  # until a byte comes
    finish: float = (
        300.0  # until the answer to an upload's end comes: the registry moves the blob then
    )
    window: float = 30.0  # of waiting, in which ...
    least: int = 30 << 10  # ... so many bytes must come
    attempts: int = 5  # of a request that may be repeated
    pause: float = 0.5  # before the second attempt; doubled for each further one
    longest_pause: float = 60.0  # that a server may ask for by Retry-After


class Paced(io.RawIOBase):
    """A raw stream that fails when the bytes come too slowly, whatever is read: status, headers or body.

    A timeout of the socket is about one recv(2): a server that sends a byte each second never meets it.
    """

    def __init__(
        self,
        raw: io.RawIOBase,
        patience: Patience,
        what: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._raw = raw
        self._patience = patience
        self._what = what
        self._clock = clock
        self._waited = 0.0
        self._bytes = -1  # before the first byte the timeout of the socket alone counts

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int | None:  # type: ignore[override]
        """As SocketIO. Raises Unreachable for a server that is too slow, OSError."""
        began = self._clock()
        count = self._raw.readinto(buffer)
        if self._bytes < 0:
            self._bytes = 0
            return count
        self._waited += self._clock() - began
        self._bytes += count or 0
        if self._waited >= self._patience.window:
            if count and self._bytes < self._patience.least:
                raise Unreachable(
                    f"{self._what}: too slow: {self._bytes} bytes in {self._waited:.0f} s",
                    hint="try again later, or another mirror",
                )
            self._waited, self._bytes = 0.0, 0
        return count

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()
