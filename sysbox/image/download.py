"""One blob on its way from a registry: hashed and kept while it is read, resumed where a connection is cut.

The bytes that an earlier attempt has left are read and hashed first. No more bytes are taken than the
descriptor names, and the end of the stream is reported only if the digest is the descriptor's.
"""

from __future__ import annotations

import errno
import posix
import time

from sysbox.base.errors import FormatError, KernelError, SysboxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from sysbox.image.documents import Descriptor

    class BlobStream(Protocol):
        """The content of a blob; `read` raises SysboxError or OSError where the connection is lost."""

        start: int  # where in the blob it begins: 0 if the server ignores ranges

        def read(self, count: int, /) -> bytes:
            """At most `count` bytes, b"" at the end."""

        def close(self) -> None:
            """End the connection, or return it."""

    OpenBlob = Callable[[Descriptor, int], BlobStream]

_CHUNK = 1 << 18
_TRIES = 6  # without a byte in between
_PAUSE = 0.2  # seconds before the second try; doubled for each further one


class Download:
    """A reader of one blob. `fd` is the file that keeps its bytes, open for reading and writing.

    `tell` is called with the number of bytes that are here, which falls where a download starts over.
    """

    def __init__(
        self,
        descriptor: Descriptor,
        fd: int,
        open_blob: OpenBlob,
        tell: Callable[[int], object],
    ) -> None:
        from hashlib import sha256

        self._descriptor = descriptor
        self._what = f"the blob {descriptor.digest[:19]}"
        self._fd = fd
        self._open_blob = open_blob
        self._tell = tell
        self._hash = sha256()
        self._position = 0
        self._stream: BlobStream | None = None
        self._tries = 0
        self._verified = False
        self._kept = posix.fstat(fd).st_size  # bytes of an earlier attempt
        if self._kept > descriptor.size:
            posix.ftruncate(fd, 0)
            self._kept = 0

    @property
    def resumed(self) -> bool:
        """Whether it begins with bytes of an earlier attempt."""
        return self._kept > 0

    def read(self, count: int) -> bytes:
        """At most `count` bytes, b"" at the end of a blob whose size and digest are right.

        Raises FormatError for one whose are not, the errors of the stream after several attempts, OSError.
        """
        left = self._descriptor.size - self._position
        if self._position < self._kept:
            piece = posix.pread(self._fd, min(count, self._kept - self._position), self._position)
        elif left:
            piece = self._receive(min(count, left))
            self._keep(piece)
        else:
            self._verify()
            return b""
        self._hash.update(piece)
        self._position += len(piece)
        self._tell(self._position)
        return piece

    def close(self) -> None:
        """End the connection; may be called twice."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def _receive(self, count: int) -> bytes:
        while True:
            failure: Exception | None = None
            piece = b""
            try:
                piece = self._connected().read(min(count, _CHUNK))
            except (OSError, SysboxError) as error:
                failure = error
            if len(piece) > count:
                raise self._wrong("more bytes than were asked for")
            if piece:
                self._tries = 0
                return piece
            self._pause(failure)

    def _connected(self) -> BlobStream:
        """The stream, at the byte that is needed next: a server may begin earlier than asked."""
        if self._stream is None:
            self._stream = self._open_blob(self._descriptor, self._position)
            ahead = self._position - self._stream.start
            if ahead < 0:
                raise self._wrong(f"a part that begins {-ahead} bytes too late")
            while ahead:
                piece = self._stream.read(min(ahead, _CHUNK))
                if not piece:
                    raise ConnectionResetError(errno.ECONNRESET, "the stream ended early")
                ahead -= len(piece)
        return self._stream

    def _pause(self, failure: Exception | None) -> None:
        """Wait before the next attempt; raises the failure after enough of them, or where none would help."""
        try:
            self.close()
        except (OSError, SysboxError):
            pass  # ignoring: the connection is lost already
        self._tries += 1
        if failure is not None and not may_pass(failure):
            raise failure
        if self._tries >= _TRIES:
            if isinstance(failure, OSError):
                raise KernelError.of("receive", self._what, failure)
            raise failure or self._ended()
        time.sleep(_PAUSE * 2 ** (self._tries - 1))

    def _keep(self, piece: bytes) -> None:
        view = memoryview(piece)
        position = self._position
        while view:
            count = posix.pwrite(self._fd, view, position)
            view = view[count:]
            position += count

    def _verify(self) -> None:
        if self._verified:
            return
        if self._stream is not None and self._has_more(self._stream):
            raise self._wrong(f"more than the {self._descriptor.size} bytes of the manifest")
        digest = f"sha256:{self._hash.hexdigest()}"
        if digest != self._descriptor.digest:
            raise FormatError(
                f"{self._what}: the content has the digest {digest}",
                hint="the registry, or a proxy before it, sent something else than the manifest names",
            )
        self._verified = True
        self.close()

    def _has_more(self, stream: BlobStream) -> bool:
        try:
            return bool(stream.read(1))
        except (OSError, SysboxError):
            return False  # all bytes are here, so a connection that ends badly does not matter

    def _wrong(self, what: str) -> FormatError:
        return FormatError(f"{self._what}: the registry sent {what}")

    def _ended(self) -> SysboxError:
        return SysboxError(
            f"{self._what}: the registry sent {self._position} of {self._descriptor.size} bytes",
            hint="try again: it goes on from there",
        )


def may_pass(failure: Exception) -> bool:
    """Whether another attempt may succeed: an error of the connection, not an answer of the registry."""
    return isinstance(failure, OSError) or bool(getattr(failure, "may_pass", False))
