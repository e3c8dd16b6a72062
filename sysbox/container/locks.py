"""Locks: one per container, and one on the directory of all containers (shared to add or remove one,
exclusive for gc).
"""

from __future__ import annotations

import errno
import posix

from sysbox.base.errors import Conflict, FormatError, Gone, KernelError, NotFound
from sysbox.base.files import remove_at, remove_tree
from sysbox.base.flock import Held
from sysbox.base.paths import CONTAINERS, RUN_CONTAINERS

REMOVED = ".old-"  # before the id: a container's directory while it is removed
_FLAGS = posix.O_RDWR | posix.O_CLOEXEC | posix.O_NOFOLLOW
# a directory, a symbolic link or a socket has the name of the lock
_NO_FILE = (
    errno.EISDIR,
    errno.ELOOP,
    errno.ENXIO,
)


class Lock(Held):
    """An exclusive flock(2) on a container; held while anything about it is being changed.

    A container's directory appears with its file in it, and is renamed before that is removed: a file that is
    missing was lost, and is made again. A process that waited for a container that was removed gets NotFound.
    Raises NotFound, FormatError where the lock is no file, and Conflict without `wait`.
    """

    def __init__(self, container_id: str, *, wait: bool = True, create: bool = False) -> None:
        while True:
            fd = _open(container_id, create=create)
            try:
                super().__init__(fd, wait=wait)
            except BlockingIOError:
                raise Conflict(
                    f"container {container_id[:12]} is in use by another command"
                ) from None
            if posix.fstat(fd).st_nlink:
                return
            posix.close(fd)


class ContainersLock(Held):
    """A flock(2) on the directory of all containers: shared to add or remove one, exclusive to judge it.

    While it is held exclusively, a directory without a lock, or half removed, was left by a dead process. It
    may be taken with a container's lock held; with it held, do not wait for a container's lock. Raises
    NotFound where the directory does not exist yet, and Conflict without `wait`.
    """

    def __init__(self, *, exclusive: bool = False, wait: bool = True) -> None:
        try:
            fd = posix.open(CONTAINERS, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound("no containers yet") from None
        try:
            super().__init__(fd, shared=not exclusive, wait=wait)
        except BlockingIOError:
            raise Conflict("a container is being made or removed") from None

    def remove(self, container_id: str) -> None:
        """Remove a container's directory, which first gets another name; an absent one is success.

        The caller holds the container's lock. Raises KernelError.
        """
        removed = f"{REMOVED}{container_id}"
        try:
            try:
                posix.rename(container_id, removed, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            except FileNotFoundError:
                return
            remove_at(self._fd, removed)
        except OSError as error:
            raise KernelError.of("remove", f"{CONTAINERS}/{container_id}", error) from None


def replace_lock(container_id: str) -> Lock:
    """Take the lock of a container, where something else has the name of its file.

    Raises NotFound where the container is gone.
    """
    with ContainersLock(exclusive=True):
        try:
            posix.close(_open(container_id))
        except FormatError:
            remove_tree(_path(container_id))
    return Lock(container_id)


def _open(container_id: str, *, create: bool = False) -> int:
    """Open the file; a missing one is made, if the directory is there. Raises Gone, FormatError, KernelError.

    With `create` it is known to be missing.
    """
    try:
        try:
            flags = _FLAGS | (posix.O_CREAT if create else 0)
            return posix.open(_path(container_id), flags, 0o600)
        except FileNotFoundError:
            return posix.open(_path(container_id), _FLAGS | posix.O_CREAT, 0o600)
    except (FileNotFoundError, NotADirectoryError):
        raise Gone(container_id) from None
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise KernelError.of("open", _path(container_id), error) from None
        raise FormatError(
            f"the lock of container {container_id[:12]}: {error.strerror}",
            hint=advice(container_id),
        ) from None


def begin_removal(container_id: str) -> Held | None:
    """Tell the service of a container that this process records the container's end and removes it.

    The launcher waits for this lock in place of starting an interpreter for `_cleanup`, and starts that only
    where the container is still there (src/launcher.c). None where the container does not run, or another
    process removes it.
    """
    try:
        fd = posix.open(f"{RUN_CONTAINERS}/{container_id}/removal", _FLAGS | posix.O_CREAT, 0o600)
        return Held(fd, wait=False)
    except OSError:
        return None  # ignoring: `_cleanup` is executed then


def _path(container_id: str) -> str:
    return f"{CONTAINERS}/{container_id}/lock"


def advice(container_id: str) -> str:
    """The hint for a file of a container that cannot be read."""
    return f"`sysbox rm -f {container_id[:12]}` removes it"
