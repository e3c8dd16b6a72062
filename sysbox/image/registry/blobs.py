"""One blob as a stream: it goes on where its connection was cut, and never exceeds its size."""

from __future__ import annotations

from sysbox.base.errors import FormatError
from sysbox.image.registry.connections import Cut
from sysbox.image.registry.transport import Answer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from sysbox.image.documents import Descriptor

    Open = Callable[[int], tuple[Answer | None, int]]

_STEADY = (
    1 << 20
)  # bytes after which a connection has proved itself, and counts as a first attempt again


class BlobStream:
    """The bytes of a blob from `start` on: `start` is 0 where the server cannot begin elsewhere.

    The digest is the reader's to verify; the size is not exceeded, nor is a stream that ends early taken for
    whole. A context manager. `open(start)` asks the registry, and returns the answer and where it begins.
    """

    def __init__(
        self,
        descriptor: Descriptor,
        start: int,
        open: Open,
        pause: Callable[[int], None],
        attempts: int,
    ) -> None:
        self._descriptor = descriptor
        self._open = open
        self._pause = pause
        self._attempts = attempts
        self._left = attempts
        self._answer: Answer | None = None
        self._since = 0  # bytes since the last cut
        self.start = self._at = start
        self._connect(start)
        self.start = self._at

    def read(self, count: int) -> bytes:
        """Up to `count` bytes, b"" at the end of the blob.

        Raises FormatError for a blob of another size, Unreachable where the connection is cut too often.
        """
        while True:
            wanted = min(count, self._descriptor.size - self._at)
            if self._answer is None:
                return b""
            if not wanted:
                self._finish()
                return b""
            try:
                data = self._answer.read(wanted)
            except Cut:
                self._resume()
                continue
            if not data:
                raise self._wrong(f"ends after {self._at} of {self._descriptor.size} bytes")
            self._at += len(data)
            self._since += len(data)
            return data

    def close(self) -> None:
        """Give it up, wherever it is."""
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connect(self, start: int) -> None:
        """Ask for the rest; bytes that we have and that come again are skipped. Raises Cut, FormatError."""
        self._answer, begins = self._open(start)
        if self._answer is None:
            return
        length = self._answer.header("Content-Length")
        expected = self._descriptor.size - begins
        if length and (not length.isdecimal() or int(length) != expected):
            self.close()
            raise self._wrong(f"has {length} bytes where its descriptor says {expected}")
        self._at = begins

    def _resume(self) -> None:
        """After a cut: connect again at the same place. Raises Unreachable."""
        at = self._at
        while True:
            self._left = self._attempts if self._since >= _STEADY else self._left - 1
            self._since = 0
            self.close()
            if self._left <= 0:
                raise Cut(
                    f"blob {self._descriptor.digest}: the connection was cut {self._attempts} times"
                )
            self._pause(self._left)
            try:
                self._connect(at)
                self._skip(at - self._at)
            except Cut:
                continue
            return

    def _skip(self, count: int) -> None:
        """Read what was read before, from a server that begins at 0. Raises Cut."""
        while count > 0 and self._answer is not None:
            data = self._answer.read(min(count, 1 << 20))
            if not data:
                raise Cut(f"blob {self._descriptor.digest}: ends before where it was cut")
            count -= len(data)
            self._at += len(data)

    def _finish(self) -> None:
        """At the end there must be no more. Raises FormatError."""
        assert self._answer is not None
        if not self._answer.header("Content-Length"):
            try:
                more = self._answer.read(1)
            except Cut:
                more = b""  # all bytes are there: how the connection ends is nothing to us
            if more:
                self.close()
                raise self._wrong(f"has more than {self._descriptor.size} bytes")
        self._answer.done()
        self._answer = None

    def _wrong(self, why: str) -> FormatError:
        self.close()
        return FormatError(f"blob {self._descriptor.digest}: {why}")
