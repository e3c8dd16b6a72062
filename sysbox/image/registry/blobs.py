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

    Open = Callable[[int], tuple[Answer, int]]

# bytes after which a connection has proved itself, and counts as a first attempt again
_STEADY = 1 << 20
_SKIPPED = 1 << 20  # bytes that are skipped at a time


class BlobStream:
    """The bytes of a blob from `start` on; from a server that cannot begin there, those before are skipped.

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
        """Raises as `read`, and as `open` does."""
        self._descriptor = descriptor
        self._open = open
        self._pause = pause
        self._attempts = attempts
        self._left = attempts
        self._answer: Answer | None = None
        self._since = 0  # bytes since the last cut
        self._at = start
        self._connect()

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
                self._wait()
                self._connect()
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

    def _connect(self) -> None:
        """Ask for the rest, again where the connection is cut before it. Raises Unreachable, FormatError."""
        while True:
            self._answer, begins = self._open(self._at)  # which tries several times itself
            self._check_length(self._answer, begins)
            try:
                self._skip(self._answer, self._at - begins)
            except Cut:
                self._wait()
                continue
            return

    def _wait(self) -> None:
        """Before the next attempt. Raises Cut after the last."""
        self._left = self._attempts if self._since >= _STEADY else self._left - 1
        self._since = 0
        self.close()
        if self._left <= 0:
            often = f" {self._attempts} times" if self._attempts > 1 else ""
            raise Cut(f"blob {self._descriptor.digest}: the connection was cut{often}")
        self._pause(self._left)

    def _check_length(self, answer: Answer, begins: int) -> None:
        length = answer.header("Content-Length")
        expected = self._descriptor.size - begins
        if length and (not length.isdecimal() or int(length) != expected):
            raise self._wrong(f"has {length} bytes where its descriptor says {expected}")

    def _skip(self, answer: Answer, count: int) -> None:
        """Read what is here already. Raises Cut."""
        while count > 0:
            data = answer.read(min(count, _SKIPPED))
            if not data:
                raise Cut(f"blob {self._descriptor.digest}: ends before where it was cut")
            count -= len(data)

    def _finish(self) -> None:
        """At the end there must be no more. Raises FormatError."""
        assert self._answer is not None
        if not self._answer.header("Content-Length"):
            try:
                more = self._answer.read(1)
            except Cut:
                more = b""  # all bytes are there: how the connection ends is nothing to us
            if more:
                raise self._wrong(f"has more than {self._descriptor.size} bytes")
        self._answer.done()
        self._answer = None

    def _wrong(self, why: str) -> FormatError:
        self.close()
        return FormatError(f"blob {self._descriptor.digest}: {why}")
