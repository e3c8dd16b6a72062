"""Which user namespace a container is in, and the maps of its users and groups. Pure.

user_namespaces(7): a map translates ids inside to the host's; an id without a map is shown as 65534, and no
process inside can take it.
"""

from __future__ import annotations

from sysbox.base.errors import SpecError, Unsupported
from sysbox.base.frozen import Frozen
from sysbox.linux.userns import IdMap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.spec import ContainerSpec

    Maps = tuple[IdMap, ...]

SIZE = 65536  # ids of a container that asks for no number
IDS = (1 << 32) - 1  # ids are below it
EXTENTS = 340  # the kernel takes no more ranges
OWN = ("auto", "keep-id", "nomap", "mapped")  # modes that make a new user namespace
# kind of a namespace -> the flag that chooses it
FLAGS = {
    "pid": "--pid",
    "network": "--network",
    "ipc": "--ipc",
    "uts": "--uts",
    "cgroup": "--cgroupns",
    "time": "--timens",
    "user": "--userns",
}


class Decision(Frozen):
    """The user namespace of a container: a mode as in Record.userns, and why it is not the default."""

    mode: str
    reason: str = ""  # a clause, for `inspect` and `--dry-run`


class Joined(Frozen):
    """A namespace that the container joins, as far as `decide` needs it."""

    flag: str  # as it was given: --network container:web
    # the mode that joins the user namespace which owns it: host, container:ID, ns:PATH
    mode: str = "host"
    owner: str = "host"  # tells user namespaces apart; "host" is the host's
    uids: tuple[IdMap, ...] = ()
    gids: tuple[IdMap, ...] = ()


class Wish(Frozen):
    """The maps that a container needs: given ones, and around them a range that is leased."""

    size: int = 0  # ids to lease, for 0 to size - 1 inside; 0: the given maps are all
    uids: tuple[IdMap, ...] = ()
    gids: tuple[IdMap, ...] = ()
    share: str = ""  # the id of the container whose user namespace is joined: its lease is shared


# What a container gets


def decide(
    spec: ContainerSpec, joined: tuple[Joined, ...] = (), incapable: str = "", default: str = "auto"
) -> Decision:
    """The user namespace of a container.

    `joined` are the namespaces that it joins, `incapable` is why this host cannot make a user namespace for
    it, "" if it can, and `default` is what a container gets that asks for nothing. Raises SpecError,
    Unsupported where what was asked for by name excludes something else that was asked for.
    """
    asked = spec.namespaces.user
    other = _agreed(joined)
    needs_host = _needs_host(spec)
    if not asked:
        return _default(other, needs_host, incapable, spec.userns.default or default, spec)
    flag = flag_of(spec)
    if asked in OWN:
        if needs_host:
            raise SpecError(
                f"{flag} and {needs_host} exclude each other",
                hint=f"leave out one of them: {needs_host} means the host's user namespace",
            )
        if other:
            raise SpecError(
                f"{flag}: {other.flag} is in another user namespace",
                hint=f"leave out {flag}: the container is then in that one",
            )
        if incapable:
            hint = "--userns host does without; a volume may be mounted with :ro or :noidmap"
            raise Unsupported(f"{flag}: {incapable}", hint=hint)
        return Decision(mode=asked)
    if needs_host and other and other.owner != "host":
        raise _two(needs_host, other)
    if asked != "host" and other:
        return Decision(mode=other.mode, reason=other.flag)
    if other and other.owner != "host":
        raise _two(flag, other)
    return Decision(mode="host", reason=flag)


def _default(
    other: Joined | None, needs_host: str, incapable: str, default: str, spec: ContainerSpec
) -> Decision:
    if other and other.owner != "host":
        if needs_host:
            raise _two(needs_host, other)
        return Decision(mode=other.mode, reason=other.flag)
    if needs_host:
        return Decision(mode="host", reason=needs_host)
    if other:
        return Decision(mode="host", reason=other.flag)
    if default == "host":
        return Decision(mode="host", reason="UserNS=host" if spec.userns.default else "")
    return Decision(mode="host", reason=incapable) if incapable else Decision(mode=default)


def _agreed(joined: tuple[Joined, ...]) -> Joined | None:
    """One of the joined namespaces: all are owned by one user namespace. Raises SpecError where not."""
    for one in joined[1:]:
        if one.owner != joined[0].owner:
            raise SpecError(
                f"{joined[0].flag} and {one.flag} are in different user namespaces",
                hint="a container has one: make them with --userns host, or let one join the other",
            )
    return joined[0] if joined else None


def _needs_host(spec: ContainerSpec) -> str:
    """The flag that means the host's user namespace; "" without one."""
    if spec.security.privileged:
        return "--privileged"
    for kind, flag in FLAGS.items():
        # the host's clocks are there in every user namespace
        if kind not in ("user", "time") and getattr(spec.namespaces, kind) == "host":
            return f"{flag} host"
    for mount in spec.mounts:
        # mounts of a user namespace do not propagate to the host (mount_namespaces(7))
        if shared := {"shared", "rshared"} & {*mount.options}:
            return f"-v {mount.source}:{mount.target}:{shared.pop()}"
    return ""


def _two(flag: str, other: Joined) -> SpecError:
    if flag == "--privileged":
        hint = "--cap-add ALL gives all capabilities in that user namespace"
    else:
        hint = f"leave out {flag}"
    return SpecError(
        f"{flag} means the host's user namespace, and {other.flag} is in another", hint=hint
    )


def flag_of(spec: ContainerSpec) -> str:
    """The flag that has asked for a user namespace, for messages."""
    asked = spec.userns
    if spec.namespaces.user != "mapped":
        return f"--userns {spec.namespaces.user}"
    if asked.subuid:
        return f"--subuidname {asked.subuid}"
    return "--uidmap"


# Maps


def problem(maps: Maps) -> str:
    """Why the kernel would refuse the maps; "" where it would not (user_namespaces(7))."""
    if len(maps) > EXTENTS:
        return f"{len(maps)} ranges, the kernel takes {EXTENTS}"
    for side, name in (("inside", "in the container"), ("outside", "on the host")):
        end = 0
        for one in sorted(maps, key=lambda one: int(getattr(one, side))):
            start = getattr(one, side)
            if start < end:
                return f"the id {start} {name} is mapped twice"
            end = start + one.count
    return ""


def extend(maps: Maps, new: IdMap) -> Maps:
    """The maps with `new`, and without what they had for its ids on either side (podman's `+`)."""
    left = maps
    for side in ("inside", "outside"):
        left = tuple(piece for one in left for piece in _without(one, new, side))
    return (*left, new)


def _without(one: IdMap, new: IdMap, side: str) -> list[IdMap]:
    """`one` without the ids of `new` on a side: none, one or two pieces."""
    start, end = getattr(one, side), getattr(one, side) + one.count
    low, high = getattr(new, side), getattr(new, side) + new.count
    pieces = ((start, min(end, low)), (max(start, high), end))
    return [
        IdMap(
            inside=one.inside + first - start,
            outside=one.outside + first - start,
            count=last - first,
        )
        for first, last in pieces
        if first < last
    ]


def around(given: Maps, start: int, size: int) -> Maps:
    """The given maps, and the ids 0 to size - 1 that they leave, which begin at `start` on the host."""
    left: Maps = (IdMap(inside=0, outside=start, count=size),)
    for one in given:
        left = tuple(piece for old in left for piece in _without(old, one, "inside"))
    return tuple(sorted((*left, *given), key=lambda one: one.inside))


def same(maps: Maps) -> Maps:
    """The maps by which each id of a user namespace is itself in one below it."""
    return tuple(IdMap(inside=one.inside, outside=one.inside, count=one.count) for one in maps)


def in_a_row(ranges: tuple[tuple[int, int], ...]) -> Maps:
    """Maps of (start, count) ranges of the host to ids from 0 on."""
    found, at = [], 0
    for start, count in ranges:
        found.append(IdMap(inside=at, outside=start, count=count))
        at += count
    return tuple(found)
