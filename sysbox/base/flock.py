"""flock(2): who works on something. A lock goes with the process that holds it."""

from __future__ import annotations

import fcntl
import posix

from sysbox.base.errors import Conflict, KernelError
from sysbox.base.files import make_private
from sysbox.base.wait import until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

BRIEFLY = 30.0  # seconds: a timeout for what nobody holds for long
_STEP = 0.002  # seconds between two tries
_FLAGS = posix.O_RDWR | posix.O_CREAT | posix.O_CLOEXEC | posix.O_NOFOLLOW


class Held:
    """The lock of an open file, which is closed with it; a context manager.

    Raises BlockingIOError where another has it and `wait` is off, OSError.
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
        """Unlock and close it."""
        try:
            # unlocked by name: a child that was forked meanwhile has a copy of the descriptor
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        finally:
            # or this process would wait for itself
            posix.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Lock(Held):
    """The lock of a file that is there for that, and is made, with its directory, where it is missing.

    Whoever held it before may have removed the file: then it is made anew. Raises Conflict without `wait`, or
    where another has it for longer than `timeout` seconds; KernelError.
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
            elif not until(lambda: self._take(wait=False), timeout, _STEP):
                raise Conflict(
                    f"{path} has been locked by another process for {timeout:.0f} s",
                    hint=f"`fuser {path}` names it",
                )
        except OSError as error:
            raise KernelError.of("lock", path, error) from None

    def _take(self, *, wait: bool) -> bool:
        """False where another has it, or the path leads to another file by now."""
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
