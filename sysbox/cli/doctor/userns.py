"""Checks of the ids of user namespaces: the ranges that containers may have, and those that they have."""

from __future__ import annotations

from sysbox.base import paths
from sysbox.base.errors import SysboxError
from sysbox.cli.doctor.check import Check, useful
from sysbox.container import id_ranges
from sysbox.fs import mappable
from sysbox.linux import userns
from sysbox.security import subids
from sysbox.security.subids import END, FILES, FIRST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_AREA = "userns"


def user_namespaces() -> list[Check]:
    """Whether containers can have user namespaces of their own, and which ids they get there."""
    if not userns.is_initial():
        return [useful(_AREA, "map ids", mappable.INSIDE, "", "its containers share that one")]
    return [_kernel(), _mapping(), _ranges(), _leases()]


def _kernel() -> Check:
    """Whether a user namespace can be made, and procfs and sysfs mounted in it."""
    advice = "in a container, give that one --privileged"
    return _asked("a root of its own", mappable.why_not_kernel, "", advice)


def _mapping() -> Check:
    """Whether the file system of containers can map ids."""
    place = paths.CONTAINERS
    advice = f"put {paths.STATE} on ext4, xfs or btrfs"
    return _asked("map ids", lambda: mappable.why_not(place), place, advice)


def _asked(name: str, ask: Callable[[], str], detail: str, advice: str) -> Check:
    advice += "; without, containers are as with --userns host"
    try:
        return useful(_AREA, name, ask(), detail, advice)
    except SysboxError as error:
        return useful(_AREA, name, error.message, detail, error.hint or advice)


def _ranges() -> Check:
    """Where the ranges of containers are."""
    try:
        found = subids.pools()
    except SysboxError as error:
        return useful(_AREA, "ranges of ids", error.message, "", error.hint)
    own = f"{FIRST}-{END - 1}, without what others have"
    if not found.owner:
        return useful(_AREA, "ranges of ids", "", own)
    spans = (
        f"{' '.join(f'{one.start}-{one.end - 1}' for one in side)} in {file}"
        for side, file in zip((found.uids, found.gids), FILES, strict=True)
    )
    rest = "" if found.others is None else f", then {own}"
    return useful(_AREA, "ranges of ids", "", f"of {found.owner}: {', '.join(spans)}{rest}")


def _leases() -> Check:
    """Whether a range of a container is another user's too: the entry was made after the container."""
    try:
        held = id_ranges.leases()
    except SysboxError as error:
        return useful(_AREA, "leases", error.message, "", error.hint)
    for uid, gid, count, container_id in held:
        for start, kind, file in ((uid, 0, FILES[0]), (gid, 1, FILES[1])):
            if other := subids.of_another(start, count, kind):
                problem = f"{other} of {file} is within the range of {container_id[:12]}"
                advice = "restart the container: it gets another range, unless others share its own"
                return useful(_AREA, "leases", problem, "", advice)
    return useful(_AREA, "leases", "", f"{len(held)} containers have a range")
