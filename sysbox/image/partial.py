"""Blobs that are not complete yet: blobs/.partial/<hex>, each locked by the process that fetches it.

A command that was killed or lost its connection leaves the part that it has, and the next one goes on from
there. Several commands that want one blob wait for each other here, so it is fetched once. A part is only as
good as the process that wrote it: its bytes are hashed again, and a part that leads to a wrong digest is
thrown away. gc removes a part that has not grown for a day, as image tools of other make keep theirs until a
daemon restarts, which sysbox has not.
"""

from __future__ import annotations

import posix
import time

from sysbox.base import files
from sysbox.base.errors import Conflict, FormatError
from sysbox.base.flock import Lock
from sysbox.image.catalog import Catalog
from sysbox.image.reference import is_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

KEPT = 24 * 3600  # seconds since the last byte
_STEP = 0.05  # seconds between two tries for a lock


def directory(store: Catalog) -> str:
    """Where a store keeps them."""
    return f"{store.root}/blobs/.partial"


class Partial(Lock):
    """The part of one blob, locked; its descriptor is open for reading and writing.

    The lock belongs to the open file: a worker that has a copy of the descriptor keeps it as well, so that no
    other process writes here before that worker has ended. Raises Conflict where another process has it,
    FormatError for a malformed digest, KernelError.
    """

    def __init__(self, store: Catalog, digest: str) -> None:
        if not is_digest(digest):
            raise FormatError(f"{digest!r} is not a sha256 digest")
        super().__init__(f"{directory(store)}/{digest[7:]}", wait=False)

    @property
    def fd(self) -> int:
        """The descriptor; it stays this object's."""
        return self._fd

    def empty(self) -> None:
        """Throw the bytes away. Raises OSError."""
        posix.ftruncate(self._fd, 0)

    def release(self) -> None:
        """Unlock; a part without bytes is removed before, unless it has become a blob of the store."""
        if not posix.fstat(self._fd).st_size and self._is_named():
            files.unlink(self.path)
        super().release()

    def _is_named(self) -> bool:
        try:
            return posix.stat(self.path).st_ino == posix.fstat(self._fd).st_ino
        except FileNotFoundError:
            return False


def acquire(store: Catalog, digest: str, waiting: Callable[[], object]) -> Partial:
    """Lock the part of a blob; calls `waiting` again and again while another process has it."""
    while True:
        try:
            return Partial(store, digest)
        except Conflict:
            waiting()
            time.sleep(_STEP)


def remove_stale(store: Catalog, now: float) -> list[str]:
    """Remove the parts that have not grown for a day; a line for each. `now` is in seconds since 1970.

    The caller holds the lock of the store exclusively, so that none is in use.
    """
    done = []
    for name in files.names(directory(store)):
        path = f"{directory(store)}/{name}"
        status = posix.stat(path, follow_symlinks=False)
        if status.st_mtime + KEPT < now or not status.st_size:
            files.unlink(path)
            done.append(f"removed blobs/.partial/{name}")
    return done
