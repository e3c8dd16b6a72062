"""Who works on a container: its lock, and the doorway through which the directory of each comes and goes."""

from __future__ import annotations

import errno
import fcntl
import posix

from sysbox.errors import Conflict, FormatError, KernelError, NotFound
from sysbox.files import remove_tree
from sysbox.paths import CONTAINERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

_NO_FILE = (
    errno.EISDIR,
    errno.ELOOP,
    errno.ENXIO,
)  # a directory, a link, a socket in a file's place
_FLAGS = posix.O_RDWR | posix.O_CLOEXEC | posix.O_NOFOLLOW


class Lock:
    """An exclusive flock on a container; held while anything about it is being changed.

    Its file is made with the container, and goes with it: whoever waited for it is told then that there is
    no such container. Raises NotFound, FormatError for something else in its place, and Conflict without
    `wait`.
    """

    def __init__(self, container_id: str, *, wait: bool = True, create: bool = False) -> None:
        path = f"{CONTAINERS}/{container_id}/lock"
        try:
            self._fd = posix.open(path, _FLAGS | (posix.O_CREAT if create else 0), 0o600)
        except (FileNotFoundError, NotADirectoryError):
            raise _not_there(container_id) from None
        except OSError as error:
            if error.errno not in _NO_FILE:
                raise KernelError.of("open", path, error) from None
            raise FormatError(
                f"the lock of container {container_id[:12]}: {error.strerror}",
                hint=advice(container_id),
            ) from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            posix.close(self._fd)
            raise Conflict(f"container {container_id[:12]} is in use by another command") from None
        if not posix.fstat(self._fd).st_nlink:
            posix.close(self._fd)
            raise _not_there(container_id)

    def release(self) -> None:
        # unlocked by name: a child that was forked meanwhile has a copy of the descriptor
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        posix.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Doorway:
    """A flock on the directory of all containers: shared by those who add to it or remove from it.

    `alone` in it one sees no directory that is about to be locked, or half removed, by somebody who is
    alive. A container's lock may be held when this is taken, and is never waited for meanwhile. Raises
    NotFound where there is no such directory yet, and Conflict without `wait`.
    """

    def __init__(self, *, alone: bool = False, wait: bool = True) -> None:
        try:
            self._fd = posix.open(CONTAINERS, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound("no containers yet") from None
        kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        try:
            fcntl.flock(self._fd, kind | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            posix.close(self._fd)
            raise Conflict("a container is being made or removed") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        posix.close(self._fd)


def replace(container_id: str, *, wait: bool = True) -> None:
    """Make the file of a lock anew that was lost, or that something else is in the place of.

    What is in its place was never locked by anybody. Raises NotFound where the container is gone, and
    Conflict without `wait`.
    """
    with Doorway(alone=True, wait=wait):
        path = f"{CONTAINERS}/{container_id}/lock"
        try:
            posix.close(posix.open(path, _FLAGS | posix.O_CREAT, 0o600))
        except (FileNotFoundError, NotADirectoryError):
            raise _not_there(container_id) from None
        except OSError as error:
            if error.errno not in _NO_FILE:
                raise KernelError.of("open", path, error) from None
            remove_tree(path)
            posix.close(posix.open(path, _FLAGS | posix.O_CREAT, 0o600))


def advice(container_id: str) -> str:
    """What helps where a file of a container cannot be read."""
    return f"`sysbox rm -f {container_id[:12]}` removes it"


def _not_there(container_id: str) -> NotFound:
    return NotFound(f"no such container: {container_id[:12]}")
