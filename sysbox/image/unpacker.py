"""What a worker does with one blob: fetch it, verify it and unpack it, in one pass."""

from __future__ import annotations

import errno
import posix

from sysbox.base import files
from sysbox.base.errors import FormatError, KernelError
from sysbox.image import layer
from sysbox.image.decompress import HEAD, compression
from sysbox.image.download import Download
from sysbox.image.ingest import labelled
from sysbox.image.layertree import MOST_HELD
from sysbox.image.source import open_source, open_stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sysbox.image.crew import Report
    from sysbox.image.documents import Descriptor
    from sysbox.image.download import OpenBlob
    from sysbox.image.ingest import Ingest
    from sysbox.image.source import Source
    from sysbox.image.tar import LayerLimits

_IMPLIED = ".implied"  # added to the path of a layer: the directories that its archive only implies
_MOST = 2 * MOST_HELD  # bytes of that file
_STEP = 1 << 20  # bytes between two reports
FULL = (errno.ENOSPC, errno.EDQUOT)


class Unpacker:
    """The work on the blobs of one image; called with a job of `fetch`, in a worker."""

    def __init__(
        self,
        work: Ingest,
        descriptors: Sequence[Descriptor],
        diff_ids: Sequence[str],
        open_blob: OpenBlob,
    ) -> None:
        self._work = work
        self._descriptors = descriptors
        self._diff_ids = diff_ids
        self._open_blob = open_blob

    def __call__(self, job: dict[str, Any], fd: int, report: Report) -> dict[str, Any]:
        """Do one job; returns the bytes of the files of each layer. Raises SysboxError."""
        what = job["what"]
        sizes: dict[str, int] = {}
        try:
            for text, path in job["directories"].items():
                if job["is_fetched"] and not sizes:
                    sizes[text] = self._fetch(int(text), path, fd, what, report)
                else:
                    sizes[text] = self._reread(int(text), path, job["blob"], what)
        except FormatError as error:
            raise labelled(error, what) from None
        except OSError as error:
            raise KernelError.of("unpack", what, error) from None
        return {"sizes": sizes}

    def _fetch(self, index: int, path: str, fd: int, what: str, report: Report) -> int:
        """Through the connection; what an earlier attempt left is thrown away if it leads to an error."""
        told = 0

        def tell(have: int) -> None:
            nonlocal told
            if not told <= have < told + _STEP:
                told = have
                report({"have": have})

        while True:
            descriptor = self._descriptors[index]
            download = Download(descriptor, fd, self._open_blob, tell)
            try:
                source = open_stream(
                    download.read, what, lambda kind: self._limit(index, kind), ahead=True
                )
                return self._unpack(source, index, path, what)
            except FormatError:
                posix.ftruncate(fd, 0)
                if not download.resumed:
                    raise
                files.remove_tree(path)
            except (KernelError, OSError) as error:
                if error.errno in FULL:
                    posix.ftruncate(fd, 0)
                raise
            finally:
                download.close()

    def _reread(self, index: int, path: str, blob: str, what: str) -> int:
        """From a blob that is here already."""
        digest = self._descriptors[index].digest
        fd = posix.open(blob, posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            kind = compression(posix.pread(fd, HEAD, 0))
            source = open_source(fd, kind, what, self._limit(index, kind), digest)
            return self._unpack(source, index, path, what)
        finally:
            posix.close(fd)

    def _limit(self, index: int, kind: str) -> int:
        if kind not in ("", "gzip", "zstd"):
            raise FormatError(f"is compressed with {kind}, which no layer of an image may be")
        return self._work.limit(kind, self._descriptors[index].size)

    def _unpack(self, source: Source, index: int, path: str, what: str) -> int:
        """Unpack into the new directory `path`, only verify if it is ""; the bytes of its files."""
        try:
            found, size = _extract(source, path, self._work.limits) if path else (source.drain(), 0)
        finally:
            source.close()
        if found != self._diff_ids[index]:
            raise FormatError(
                f"{what}: its content is {found}, the image says {self._diff_ids[index]}"
            )
        return size


def _extract(source: Source, path: str, limits: LayerLimits) -> tuple[str, int]:
    implied: list[bytes] = []
    posix.mkdir(path, 0o755)
    root = posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    try:
        posix.fchmod(root, 0o755)
        result = layer.unpack(source, root, limits, implied=implied)
    finally:
        posix.close(root)
    if implied:
        files.write_file(path + _IMPLIED, b"\0".join(implied), limit=_MOST)
    return result


def read_implied(path: str) -> list[bytes]:
    """The directories that the archive of the layer unpacked at `path` only implies, the lowest first."""
    data = files.read_file(path + _IMPLIED, _MOST)
    return data.split(b"\0") if data else []
