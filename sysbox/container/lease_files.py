"""A directory of leases: each is an empty file whose name ends with the id of its container or pod.

The words before the id say what is leased: one open(2) takes a lease, and there is no content to damage.
"""

from __future__ import annotations

import posix

from sysbox.base import paths
from sysbox.base.errors import Conflict, KernelError
from sysbox.base.files import is_directory, unlink
from sysbox.base.flock import BRIEFLY, Lock
from sysbox.host import exists

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sysbox.container.records import Record

_LOCK = "lock"  # held while a lease is chosen
_USE = "use.lock"  # held, shared, from a lease until its container is there
_ID = 64  # characters of a full id
_MOST = 100  # characters of a name; three numbers and an id have 97


def hold(directory: str) -> Lock:
    """A lock that keeps `reclaim` from releasing the lease of a container that is being made."""
    return Lock(f"{directory}/{_USE}", shared=True)


class Leased:
    """A context for the making of a container: `record` is what `decide` returns, which leases for it.

    Until it ends `reclaim` releases nothing; if the block fails, the container's leases are released. Raises
    what `decide` raises, KernelError.
    """

    def __init__(self, directory: str, decide: Callable[[], Record]) -> None:
        self._directory = directory
        self._lock = hold(directory)
        try:
            self.record = decide()
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Record:
        return self.record

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        with self._lock:
            if error is not None:
                release(self._directory, self.record.id)


def choosing(directory: str) -> Lock:
    """The lock under which leases are chosen. Raises Conflict where it is held too long, KernelError."""
    return Lock(f"{directory}/{_LOCK}", timeout=BRIEFLY)


def entries(directory: str) -> Iterator[tuple[list[str], str]]:
    """(the words that say what is leased, the full id of its owner); it takes no lock. Raises KernelError."""
    for name in _names(directory):
        *words, owner = name.split("-")
        # of an id the length only: a start goes through all of them
        if len(owner) == _ID and len(name) < _MOST:
            yield words, owner


def _names(directory: str) -> list[str]:
    try:
        return posix.listdir(directory)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise KernelError.of("list", directory, error) from None


def write(path: str) -> None:
    """Write a lease that is not there yet. Raises KernelError."""
    try:
        flags = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC
        posix.close(posix.open(path, flags, 0o600))
    except OSError as error:
        raise KernelError.of("write", path, error) from None


def release(directory: str, container_id: str) -> None:
    """Remove the leases of a container or pod; none is success. Raises KernelError."""
    for name in _names(directory):
        if name.endswith(f"-{container_id}"):
            unlink(f"{directory}/{name}")


def reclaim(directory: str) -> list[str]:
    """Release the leases of containers and pods that do not exist; returns their ids. Raises KernelError.

    None while a container is being made.
    """
    if not is_directory(directory):
        return []
    try:
        with Lock(f"{directory}/{_USE}", wait=False):
            absent = {owner for _, owner in entries(directory) if not _exists(owner)}
            # looked at again: who removes a container releases its lease before its directory goes
            owners = dict.fromkeys(owner for _, owner in entries(directory))
            gone = [one for one in owners if one in absent]
            for container_id in gone:
                release(directory, container_id)
    except Conflict:
        return []
    return gone


def _exists(owner: str) -> bool:
    return is_directory(f"{paths.CONTAINERS}/{owner}") or exists(f"{paths.PODS}/.ids/{owner}")
