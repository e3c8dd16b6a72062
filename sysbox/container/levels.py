"""Leases of pairs of categories of SELinux (lease_files).

FIRST-SECOND-ID below /var/lib/sysbox/levels: the container's level has the categories FIRST and SECOND. No
two containers have the same, but those of a pod, and those that share a pid or IPC namespace. A lease goes
with its container.
"""

from __future__ import annotations

import posix

from sysbox.base import paths
from sysbox.base.errors import Conflict
from sysbox.container import lease_files
from sysbox.security.labels import CATEGORIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.base.flock import Lock

    Pair = tuple[int, int]

DIRECTORY = paths.LEVELS
_TRIES = 64  # at random; then the free pairs are listed


def hold() -> Lock:
    """A lock that keeps gc from freeing the lease of a container that is being made."""
    return lease_files.hold(DIRECTORY)


def acquire(container_id: str, share: str = "", given: Pair | None = None) -> Pair:
    """The container's pair; one is leased if it has none yet.

    `share` is the id of a container or pod whose pair it has too, `given` a pair that was asked for. The
    caller holds `hold()` until the container's directory exists. Raises Conflict where no pair is free or the
    lock is held too long, KernelError.
    """
    with lease_files.choosing(DIRECTORY):
        held = leases()
        if container_id in held:
            return held[container_id]
        pair = given or held.get(share) or _choose(set(held.values()))
        if share and share not in held:
            _write(pair, share)
        _write(pair, container_id)
    return pair


def preview(container_id: str, share: str = "") -> Pair:
    """What `acquire` might return; nothing is leased. Raises as `acquire`."""
    held = leases()
    return held.get(container_id) or held.get(share) or _choose(set(held.values()))


def _choose(taken: set[Pair]) -> Pair:
    for _ in range(_TRIES):
        drawn = int.from_bytes(posix.urandom(4), "little")
        first, second = sorted((drawn % CATEGORIES, (drawn >> 16) % CATEGORIES))
        if first < second and (first, second) not in taken:
            return first, second
    for first in range(CATEGORIES):
        for second in range(first + 1, CATEGORIES):
            if (first, second) not in taken:
                return first, second
    raise Conflict(
        "every pair of categories of SELinux is a container's",
        hint="remove containers, or give one a level with --security-opt label=level:",
    )


def release(container_id: str) -> None:
    """Release the container's pair; a container without one is success. Raises KernelError."""
    lease_files.release(DIRECTORY, container_id)


def reclaim() -> list[str]:
    """Release the leases of containers and pods that do not exist; their ids. Raises KernelError."""
    return lease_files.reclaim(DIRECTORY)


def leases() -> dict[str, Pair]:
    """Container's full id -> its pair; it takes no lock. Raises KernelError."""
    found = {}
    for words, container_id in lease_files.entries(DIRECTORY):
        if len(words) == 2 and all(one.isdecimal() for one in words):
            found[container_id] = int(words[0]), int(words[1])
    return found


def _write(pair: Pair, container_id: str) -> None:
    lease_files.write(f"{DIRECTORY}/{pair[0]}-{pair[1]}-{container_id}")


def restore(container_id: str, pair: Pair) -> bool:
    """Write a lease that was lost, by the container's record; whether it was lost. Raises KernelError.

    Where another container has got the pair since, both have it: one of them is to be made again.
    """
    if container_id in leases():
        return False
    with lease_files.choosing(DIRECTORY):
        if container_id in leases():
            return False
        _write(pair, container_id)
    return True
