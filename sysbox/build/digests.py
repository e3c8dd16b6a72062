"""Digests of what COPY, ADD and bind mounts read: of a source, and of the copy that was made of it.

A step's key has the digest of its sources, and its layer what was copied of them a moment later. Another
process may have changed them meanwhile, so the copy has a digest too: the cache gets the step only if both
are the same. Holes and blocks of zeros are skipped: they count by their place, however the file has them.
"""

from __future__ import annotations

import _stat
import errno
import posix
import time

from sysbox.base import tree
from sysbox.base.errors import FormatError, KernelError
from sysbox.build.content_sources import Origin, walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sysbox.base.tree import TreeEntry

    Tell = Callable[[str, int, int], object]

_KEPT = ("user.", "security.capability", "system.posix_acl_")
_BLOCK = tree.CHUNK
_ZEROS = bytes(_BLOCK)
_SEEK_DATA = 3  # lseek(2)
_FIRST, _PAUSE = 1.0, 0.5  # seconds before the first word of progress, and between two


class Meter:
    """Counts the files and bytes of one instruction, tells how many so far, and bounds the files."""

    def __init__(self, what: str, tell: Tell, most: int = 0) -> None:
        """`tell` gets `what` ("read", "copied", "fetched"), files and bytes; `most` files, 0 is no bound."""
        self._what = what
        self._tell = tell
        self._most = most
        self._files = 0
        self._size = 0
        self._next = time.monotonic() + _FIRST

    def entry(self) -> None:
        """One more file or directory. Raises FormatError for one too many."""
        self._files += 1
        if 0 < self._most < self._files:
            raise FormatError(
                f"more than {self._most} files are to be copied ({self._size >> 20} MiB so far)",
                hint="is it the right directory? .containerignore leaves files out before they are read, "
                "ContextFiles= of sysbox.conf(5) is the bound",
            )
        self._look()

    def data(self, count: int) -> None:
        """So many more bytes."""
        self._size += count
        self._look()

    def _look(self) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _PAUSE
            self._tell(self._what, self._files, self._size)


class Digest:
    """The digest of sources without their times; with `owners` the ids count too."""

    def __init__(self, *, owners: bool, meter: Meter | None = None) -> None:
        from hashlib import sha256

        self._sha = sha256()
        self._owners = owners
        self._meter = meter or Meter("read", lambda _what, _files, _size: None)

    def add(self, origin: Origin, path: str) -> None:
        """A source and all below it. Raises as `Origin.open`, KernelError, FormatError for too many files."""
        top = origin.entry(path)
        shown = path
        try:
            self.begin(path)
            for name, found in walk(origin, top, path):
                shown = f"{path}/{name}" if path and name else path or name
                self._meter.entry()
                # of the context's own directory nothing is copied but the content
                if name or path or not origin.confined:
                    self._read(name, found)
        except OSError as error:
            raise KernelError.of("read", tree.printable(shown), error) from None
        finally:
            top.close()

    def begin(self, path: str) -> None:
        """A source begins."""
        self._text(path.rpartition("/")[2])

    def entry(self, name: str, found: TreeEntry) -> None:
        """An entry of it that is no regular file; "" is the source itself."""
        self._head(name, found)
        if found.kind == _stat.S_IFLNK:
            self._text(found.link_text())
        elif not found.is_directory:
            self._text(f"{found.status.st_rdev}")

    def file(
        self, name: str, found: TreeEntry, extended: Iterable[tuple[str, bytes]], content: int
    ) -> None:
        """A regular file with these extended attributes, and the content of an open file. Raises OSError."""
        self._head(name, found)
        for key, value in extended:
            if key.startswith(_KEPT):
                self._text(key)
                self._text(value)
        digest, size = of_content(content, self._meter.data)
        self._text(digest)
        self._text(f"={size}")

    def text(self) -> str:
        return self._sha.hexdigest()

    def _read(self, name: str, found: TreeEntry) -> None:
        if found.kind != _stat.S_IFREG:
            self.entry(name, found)
            return
        try:
            fd = found.open()
        except tree.Gone:
            return  # removed since
        try:
            self.file(name, found, tree.attributes(fd), fd)
        finally:
            posix.close(fd)

    def _head(self, name: str, found: TreeEntry) -> None:
        self._text(name)
        self._text(f"{found.status.st_mode:o}")
        if self._owners:
            self._text(f"{found.status.st_uid}:{found.status.st_gid}")

    def _text(self, text: str | bytes) -> None:
        data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
        self._sha.update(b"%d:" % len(data))
        self._sha.update(data)


def of_content(fd: int, tell: Callable[[int], object]) -> tuple[bytes, int]:
    """(digest of an open file's content, its bytes); `tell` gets the bytes that were read. Raises OSError."""
    from hashlib import sha256

    digest = sha256()
    position = 0
    # of a small file no hole is worth a look, and files without a size have no holes
    has_holes = posix.fstat(fd).st_size > _BLOCK
    while True:
        if has_holes:
            position = _data_after(fd, position)
        data = posix.pread(fd, _BLOCK - position % _BLOCK, position)
        if not data:
            return digest.digest(), position
        if data != _ZEROS[: len(data)]:
            digest.update(b"%d:%d:" % (position, len(data)))
            digest.update(data)
        position += len(data)
        tell(len(data))


def _data_after(fd: int, position: int) -> int:
    """The first position of a block with data in it; the end of the file where there is none."""
    try:
        found = posix.lseek(fd, position, _SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return max(position, posix.fstat(fd).st_size)
        return position  # this file system does not report holes
    return max(position, found - found % _BLOCK)
