"""Locks by flock(2). The kernel releases a lock when the process that holds it ends."""

from __future__ import annotations

import fcntl
import posix

from sysbox.base.errors import Conflict, KernelError
from sysbox.base.files import make_private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

BRIEFLY = 30.0  # seconds: a timeout for locks that are held only for moments
_STEP = 0.002  # seconds between two tries
_FLAGS = posix.O_RDWR | posix.O_CREAT | posix.O_CLOEXEC | posix.O_NOFOLLOW


class Held:
    """A lock on an open file; a context manager. Releasing it closes the descriptor.

    Raises OSError; BlockingIOError where another process has the lock and `wait` is off.
    """

    def __init__(self, fd: int, *, shared: bool = False, wait: bool = True) -> None:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(fd, kind | (0 if wait else fcntl.LOCK_NB))
        except BaseException:
            posix.close(fd)
            raise
        self._fd = fd

    def release(self) -> None:
        """Unlock the file and close the descriptor."""
        try:
            # explicitly: closing does not unlock while a forked child has a copy of the descriptor
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        finally:
            # even after an error: an open descriptor would keep the lock, and this process block on it
            posix.close(self._fd)

    def leave_to_child(self) -> None:
        """Close the descriptor only: a forked child that has a copy holds the lock until it ends."""
        posix.close(self._fd)

    def fileno(self) -> int:
        return self._fd

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Lock(Held):
    """A lock on a lock file, which is created, with its directory, where it does not exist.

    If the previous holder has removed the file, it is created again. Raises KernelError, and Conflict where
    another process has the lock: at once without `wait`, else after `timeout` seconds.
    """

    def __init__(
        self, path: str, *, shared: bool = False, wait: bool = True, timeout: float | None = None
    ) -> None:
        self.path = path
        self._shared = shared
        try:
            if timeout is None:
                while not self._take(wait=wait):
                    if not wait:
                        raise Conflict(f"{path} is locked by another process")
            elif not self._take_within(timeout):
                raise Conflict(
                    f"{path} has been locked by another process for {timeout:.0f} s",
                    hint=f"`fuser {path}` names it",
                )
        except OSError as error:
            raise KernelError.of("lock", path, error) from None

    def _take_within(self, seconds: float) -> bool:
        from sysbox.base.wait import until  # most locks have no timeout

        return until(lambda: self._take(wait=False), seconds, _STEP)

    def _take(self, *, wait: bool) -> bool:
        """False where another process has the lock, or the path names another file by now."""
        try:
            super().__init__(self._open(), shared=self._shared, wait=wait)
        except BlockingIOError:
            return False
        try:
            now = posix.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            now = None
        own = posix.fstat(self._fd)
        if now and (now.st_dev, now.st_ino) == (own.st_dev, own.st_ino):
            return True
        posix.close(self._fd)
        return False

    def _open(self) -> int:
        while True:
            try:
                return posix.open(self.path, _FLAGS, 0o600)
            except FileNotFoundError:
                make_private(self.path.rpartition("/")[0])
