"""Leases of ranges of ids (lease_files).

UID-GID-COUNT-ID below /var/lib/sysbox/ids: the container has COUNT users from UID on, and groups from GID on.
No two containers have the same ids, but those that share a user namespace. A lease goes with its container;
nothing on disk depends on it, since files keep the ids that they have inside.

Ids that a container was given, as by --uidmap, are no lease: several containers may have the same. They have
a file too, u-START-COUNT-ID or g-START-COUNT-ID, so that no range is leased over them. Ids that are the same
inside as outside have none: such a container sees everybody's ids on purpose.
"""

from __future__ import annotations

from sysbox.base import paths
from sysbox.base.errors import Conflict
from sysbox.container import lease_files
from sysbox.host import exists
from sysbox.security import idmap, subids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

    from sysbox.base.flock import Lock
    from sysbox.linux.userns import IdMap
    from sysbox.security.idmap import Wish

    Maps = tuple[tuple[IdMap, ...], tuple[IdMap, ...]]
    # (first user, first group, count, the container's full id); no record, as there may be thousands
    Lease = tuple[int, int, int, str]
    # given ids: (0 of users or 1 of groups, first, count, the container's full id)
    Given = tuple[int, int, int, str]

DIRECTORY = f"{paths.STATE}/ids"
_SIDES = "ug"


def hold() -> Lock:
    """A lock that keeps gc from freeing the lease of a container that is being made."""
    return lease_files.hold(DIRECTORY)


def acquire(container_id: str, wish: Wish) -> Maps:
    """The maps of users and of groups; a range is leased if the container has none yet.

    The caller holds `hold()` until the container's directory exists. Raises Conflict where no range is free
    or the lock is held too long, NotFound where an entry lacks, KernelError.
    """
    if not (wish.size or wish.share or _spans(wish.uids) or _spans(wish.gids)):
        return wish.uids, wish.gids
    with lease_files.choosing(DIRECTORY):
        held, others = _all()
        lease = _of(container_id, held)
        if lease is None:
            if wish.size:
                lease = _choose(container_id, wish, held, others)
            elif other := _of(wish.share, held):
                lease = (*other[:3], container_id)
            if lease:
                lease_files.write(_path(lease))
        _give(container_id, wish, lease)
    return _maps(wish, lease)


def preview(container_id: str, wish: Wish) -> Maps:
    """What `acquire` would return now; nothing is leased. Raises as `acquire`."""
    return _maps(wish, _choose(container_id, wish, *_all()) if wish.size else None)


def _of(container_id: str, held: list[Lease]) -> Lease | None:
    return next((one for one in held if one[3] == container_id), None)


def _choose(container_id: str, wish: Wish, held: list[Lease], others: list[Given]) -> Lease:
    uids = [(uid, uid + count) for uid, _, count, _ in held]
    gids = [(gid, gid + count) for _, gid, count, _ in held]
    for side, start, count, _ in others:
        (uids, gids)[side].append((start, start + count))
    # the ids of given maps are the container's too
    uids += [(one.outside, one.outside + one.count) for one in wish.uids]
    gids += [(one.outside, one.outside + one.count) for one in wish.gids]
    return (*subids.choose(wish.size, subids.pools(), uids, gids), wish.size, container_id)


def _give(container_id: str, wish: Wish, lease: Lease | None) -> bool:
    """Write the files of the ids that `wish` gives; whether one was not there."""
    written = False
    for side, maps in enumerate((wish.uids, wish.gids)):
        for start, end in _spans(maps):
            first = lease[:2][side] if lease else end
            if lease and first <= start and end <= first + lease[2]:
                continue  # those of a container whose user namespace it shares
            path = f"{DIRECTORY}/{_SIDES[side]}-{start}-{end - start}-{container_id}"
            if not exists(path):
                lease_files.write(path)
                written = True
    return written


def _spans(maps: tuple[IdMap, ...]) -> list[tuple[int, int]]:
    """The host's ids of given maps, as (start, end), without those that are the same inside."""
    found: list[tuple[int, int]] = []
    for one in sorted(maps, key=lambda one: one.outside):
        if one.inside == one.outside:
            continue
        if found and found[-1][1] == one.outside:
            found[-1] = (found[-1][0], one.outside + one.count)
        else:
            found.append((one.outside, one.outside + one.count))
    return found


def _maps(wish: Wish, lease: Lease | None) -> Maps:
    if lease is None or not wish.size:
        return wish.uids, wish.gids
    uid, gid, count, _ = lease
    return idmap.around(wish.uids, uid, count), idmap.around(wish.gids, gid, count)


def move(container_id: str, maps: Maps) -> tuple[Maps, str]:
    """Lease another range for a container that does not run, where another user has an entry in its range.

    Its maps, and the file of its old lease; "" if the range stays, as it does where several containers are
    in one user namespace. The caller saves the maps, then removes that file. Raises Conflict where no other
    range is free, KernelError.
    """
    with lease_files.choosing(DIRECTORY):
        held, others = _all()
        old = next((one for one in held if one[3] == container_id and _is_leased(maps, one)), None)
        if old is None or any(one[:3] == old[:3] and one != old for one in held):
            return maps, ""
        if not any(subids.of_another(old[:2][kind], old[2], kind) for kind in (0, 1)):
            return maps, ""
        given = [tuple(one for one in maps[kind] if not _within(one, old, kind)) for kind in (0, 1)]
        wish = idmap.Wish(size=old[2], uids=given[0], gids=given[1])
        new = _choose(container_id, wish, held, others)
        lease_files.write(_path(new))
    uids, gids = (tuple(_moved(one, old, new, kind) for one in maps[kind]) for kind in (0, 1))
    return (uids, gids), _path(old)


def _is_leased(maps: Maps, lease: Lease) -> bool:
    return any(_within(one, lease, kind) for kind in (0, 1) for one in maps[kind])


def _within(one: IdMap, lease: Lease, kind: int) -> bool:
    start = lease[:2][kind]
    return start <= one.outside < start + lease[2]


def _moved(one: IdMap, old: Lease, new: Lease, kind: int) -> IdMap:
    if not _within(one, old, kind):
        return one
    return one.replace(outside=one.outside - old[:2][kind] + new[:2][kind])


def release(container_id: str) -> None:
    """Release the container's ids; a container without any is success. Raises KernelError."""
    lease_files.release(DIRECTORY, container_id)


def reclaim() -> list[str]:
    """Release the leases of containers and pods that do not exist; their ids. Raises KernelError."""
    return lease_files.reclaim(DIRECTORY)


def leases() -> list[Lease]:
    """Every lease; it takes no lock. Raises KernelError."""
    return _all()[0]


def given() -> list[Given]:
    """The ids that containers were given; it takes no lock. Raises KernelError."""
    return _all()[1]


def _all() -> tuple[list[Lease], list[Given]]:
    """All leases and all given ids, by one look at the directory, where a thousand others may be."""
    held: list[Lease] = []
    others: list[Given] = []
    for words, owner in lease_files.entries(DIRECTORY):
        try:
            first, start, count = words
            if first in _SIDES:
                others.append((_SIDES.index(first), int(start), int(count), owner))
            else:
                held.append((int(first), int(start), int(count), owner))
        except ValueError:
            continue  # no such file
    return held, others


def _path(lease: Lease) -> str:
    return f"{DIRECTORY}/{lease[0]}-{lease[1]}-{lease[2]}-{lease[3]}"


def restore(
    container_id: str, wish: Wish, maps: Maps, sharing: Container[str] = frozenset()
) -> bool:
    """Write a lease that was lost, by the maps in the container's record; whether it was lost.

    `sharing` are the ids of containers in the same user namespace, which have the same lease. Raises Conflict
    where another container has got the range since, KernelError.
    """
    given = {(one.inside, one.outside) for one in (*wish.uids, *wish.gids)}
    leased = (
        (one.outside - one.inside for one in side if (one.inside, one.outside) not in given)
        for side in maps
    )
    uid, gid = (next(starts, -1) for starts in leased)
    if not wish.size or uid < 0 or gid < 0:
        return False
    with lease_files.choosing(DIRECTORY):
        held = leases()
        if _of(container_id, held):
            return False
        for other in held:
            if other[3] in sharing:
                continue
            if _overlap(other[0], uid, other[2], wish.size) or _overlap(
                other[1], gid, other[2], wish.size
            ):
                raise Conflict(
                    f"containers {container_id[:12]} and {other[3][:12]} have the same ids",
                    hint="make one of them again",
                )
        lease_files.write(_path((uid, gid, wish.size, container_id)))
    return True


def restore_given(container_id: str, wish: Wish) -> bool:
    """Write the files of given ids that were lost, or that an older version has not written; whether one was.

    Raises Conflict where the lock is held too long, KernelError.
    """
    if not (_spans(wish.uids) or _spans(wish.gids)):
        return False
    with lease_files.choosing(DIRECTORY):
        return _give(container_id, wish, _of(container_id, leases()))


def _overlap(one: int, other: int, count: int, others: int) -> bool:
    return one < other + others and other < one + count
