"""The maps of a mount's ids that are not the container's own: of `:U` and `:idmap=`. Pure.

mount_setattr(2), "ID-mapped mounts": the inside of a map are the ids in the file system, the outside those
that the host sees. Where the container has a user namespace these are ids of its range.
"""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.linux import userns
from sysbox.linux.userns import IdMap
from sysbox.parse.mount_ids import parse_idmap
from sysbox.security.idmap import EXTENTS, IDS, extend, same

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.parse.mount_ids import Range

    Maps = tuple[IdMap, ...]

ALL: Maps = (IdMap(inside=0, outside=0, count=IDS),)  # each id is itself
# What `:U` is refused for: the content belongs to the system, whoever the container's user is.
SYSTEM = (
    "/", "/bin", "/boot", "/dev", "/etc", "/etc/group", "/etc/gshadow", "/etc/passwd", "/etc/shadow",
    "/home", "/lib", "/lib32", "/lib64", "/proc", "/root", "/run", "/sbin", "/sys", "/tmp", "/usr",
    "/usr/bin", "/usr/lib", "/usr/local", "/usr/sbin", "/usr/share", "/var", "/var/lib", "/var/lib/sysbox",
    "/var/log", "/var/tmp",
)  # fmt: skip


def of_option(
    option: str, target: str, uids: Maps, gids: Maps, *, inside: bool
) -> tuple[Maps, Maps]:
    """The maps of users and groups of a mount at `target` with an `option`: U, or idmap= with its value.

    `uids` and `gids` are the container's own; () is the host's user namespace. With `inside` the mount is
    for a root that shows ids as the container sees them. Those of U lack what `exchanged` adds. Raises
    SpecError for an id that the container lacks, and for maps that the kernel would refuse.
    """
    own = (same(uids), same(gids)) if inside else (uids, gids)
    usual = own[0] or ALL, own[1] or ALL
    if option == "U":
        return usual
    what = f"mount {target}: {option}"
    asked = parse_idmap(option.removeprefix("idmap="), "mount", f"{target}:{option}")
    found = []
    for side, ranges in enumerate((asked.uids, asked.gids)):
        container = (uids, gids)[side]
        maps = tuple(piece for one in ranges for piece in _of(one, container, what, inside=inside))
        check(maps, what)
        found.append(maps if ranges else usual[side])
    return found[0], found[1]


def _of(one: Range, container: Maps, what: str, *, inside: bool) -> Maps:
    """The maps of one range, which the container's map may tear apart."""
    whole = (IdMap(inside=one.on_disk, outside=one.there, count=one.count),)
    if not container:
        return whole
    if one.relative:
        at = one.there
        for each in sorted(container, key=lambda each: each.inside):
            if each.inside <= at < each.inside + each.count:
                at = each.inside + each.count
        if at < one.there + one.count:
            userns.outside(container, at, what)  # which raises
        return whole if inside else _overlaps(one, container)
    if inside:
        # ids of the host that the container lacks are nobody's there
        return _overlaps(one, tuple(_reverse(each) for each in container))
    return whole


def _reverse(one: IdMap) -> IdMap:
    return IdMap(inside=one.outside, outside=one.inside, count=one.count)


def _overlaps(one: Range, maps: Maps) -> Maps:
    """The pieces of a range whose `there` is mapped, with what it is mapped to."""
    found = []
    for each in maps:
        low = max(one.there, each.inside)
        high = min(one.there + one.count, each.inside + each.count)
        if low < high:
            found.append(
                IdMap(
                    inside=one.on_disk + low - one.there,
                    outside=each.outside + low - each.inside,
                    count=high - low,
                )
            )
    return tuple(found)


def exchanged(maps: Maps, on_disk: int, owner: int, what: str) -> Maps:
    """The maps in which the id `on_disk` of the file system is `owner` of the container, and the reverse.

    `maps` have the container's ids as those of the file system. An `on_disk` that they lack gets a map, and
    `owner` in the file system then has none. Raises SpecError, naming `what`, where the container lacks
    `owner`.
    """
    if on_disk == owner:
        return maps
    there = userns.outside(maps, owner, what)
    back = userns.outside(maps, on_disk, what) if userns.has(maps, on_disk) else -1
    made = extend(maps, IdMap(inside=on_disk, outside=there, count=1))
    if back >= 0:
        made = extend(made, IdMap(inside=owner, outside=back, count=1))
    check(made, what)
    return made


def check(maps: Maps, what: str) -> None:
    """Raise SpecError for maps that the kernel would refuse (user_namespaces(7))."""
    if len(maps) > EXTENTS:
        raise SpecError(f"{what}: {len(maps)} ranges, the kernel takes {EXTENTS}")
    for side, where in (("inside", "on disk"), ("outside", "on the host")):
        end = 0
        for one in sorted(maps, key=lambda one: int(getattr(one, side))):
            start = getattr(one, side)
            if start < end:
                raise SpecError(
                    f"{what}: the id {start} {where} is mapped twice",
                    hint="ranges must not overlap, on neither side",
                )
            end = start + one.count
