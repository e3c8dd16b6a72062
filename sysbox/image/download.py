"""One blob on its way from a registry: hashed and kept while it is read.

The bytes that an earlier attempt has left are read and hashed first; the stream gives those after them, and
goes on by itself where its connection is cut. The end is reported only if the digest is the descriptor's.
"""

from __future__ import annotations

import posix

from sysbox.base.errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.image.documents import Descriptor
    from sysbox.image.registry.blobs import BlobStream

    OpenBlob = Callable[[Descriptor, int], BlobStream]


class Download:
    """A reader of one blob. `fd` is the file that keeps its bytes, open for reading and writing.

    `tell` is called with the number of bytes that are here.
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
        self._fd = fd
        self._open_blob = open_blob
        self._tell = tell
        self._hash = sha256()
        self._position = 0
        self._stream: BlobStream | None = None
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

        Raises FormatError for one whose are not, the errors of the stream, OSError.
        """
        if self._position < self._kept:
            piece = posix.pread(self._fd, min(count, self._kept - self._position), self._position)
        else:
            piece = self._receive(count)
            if not piece:
                self._verify()
                return b""
            self._keep(piece)
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
        """From the stream, which ends where the descriptor says; no connection is made for nothing."""
        if self._stream is None:
            if self._position and self._position == self._descriptor.size:
                return b""
            self._stream = self._open_blob(self._descriptor, self._position)
        return self._stream.read(count)

    def _keep(self, piece: bytes) -> None:
        view = memoryview(piece)
        position = self._position
        while view:
            count = posix.pwrite(self._fd, view, position)
            view = view[count:]
            position += count

    def _verify(self) -> None:
        digest = f"sha256:{self._hash.hexdigest()}"
        if digest != self._descriptor.digest:
            raise FormatError(
                f"the blob {self._descriptor.digest[:19]}: the content has the digest {digest}",
                hint="the registry, or a proxy before it, sent something else than the manifest names",
            )
