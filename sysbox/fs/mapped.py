"""Plan the root of a container with a user namespace: what is made outside of it, what inside. Pure.

The maps of mounts that are not the container's own are planned here too.
"""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.fs.rootfs import Bind, Filesystem, Node
from sysbox.linux import userns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sysbox.fs.rootfs import Operation
    from sysbox.linux.userns import IdMap

_ACCOUNTS = ("/etc", "/etc/passwd", "/etc/group")


def split(
    operations: Sequence[Operation], uids: tuple[IdMap, ...], gids: tuple[IdMap, ...]
) -> tuple[tuple[Operation, ...], tuple[Operation, ...]]:
    """(what the builder applies to a tree of its own, what the container's first process applies). Pure.

    Raises SpecError for a device or a tmpfs whose owner is not mapped.
    """
    outside: list[Operation] = []
    inside: list[Operation] = []
    for one in operations:
        if isinstance(one, Filesystem) and one.ordinary and one.target == "/dev":
            outside.append(one)
            inside.append(Bind(source="/dev", target="/dev", made=True, ordinary=True))
        elif isinstance(one, Node):
            uid = userns.outside(uids, one.uid, f"the owner of {one.target}")
            gid = userns.outside(gids, one.gid, f"the group of {one.target}")
            outside.append(one.replace(uid=uid, gid=gid))
            if not one.target.startswith("/dev/"):
                inside.append(
                    Bind(source=one.target, target=one.target, made=True, recursive=False)
                )
        elif isinstance(one, Filesystem):
            inside.append(_owned(one, uids, gids))
        else:
            inside.append(one)
    return tuple(outside), tuple(inside)


def own_maps(
    operations: tuple[Operation, ...],
    uids: tuple[IdMap, ...],
    gids: tuple[IdMap, ...],
    *,
    inside: bool = False,
) -> tuple[Operation, ...]:
    """The operations with the maps of mounts that have maps of their own; `mount_ids.of_option` has the
    parameters. Raises SpecError.
    """
    if not any(isinstance(one, Bind) and one.ids not in ("", "idmap") for one in operations):
        return operations
    from sysbox.security import mount_ids  # few containers need it

    found: list[Operation] = []
    for one in operations:
        if isinstance(one, Bind) and one.ids not in ("", "idmap"):
            users, groups = mount_ids.of_option(one.ids, one.target, uids, gids, inside=inside)
            if users and groups:
                found.append(one.replace(uids=users, gids=groups))
            else:
                # nothing in it has an id inside
                found.append(one.replace(ids="", mapped=False))
        else:
            found.append(one)
    return tuple(found)


def is_owned(operations: Iterable[Operation]) -> bool:
    """Whether one is a mount whose owner is the container's user (`:U`)."""
    return any(isinstance(one, Bind) and one.ids == "U" for one in operations)


def check_user(operations: Sequence[Operation], user: str) -> None:
    """Raise SpecError where `:U` cannot tell who the container's user is: the accounts are mounted too.

    Its number is needed before anything is mounted in the root.
    """
    uid, _, gid = user.partition(":")
    if not is_owned(operations) or (uid.isdecimal() and gid.isdecimal()):
        return
    targets = {one.target for one in operations if isinstance(one, Bind | Filesystem)}
    covered = next((one for one in _ACCOUNTS if one in targets), "")
    if covered:
        raise SpecError(
            f":U with user {user or '0'}: {covered}, where its numbers are looked up, is a mount itself",
            hint="give both numbers: --user UID:GID",
        )


def refused(bind: Bind) -> SpecError:
    """The error for a mount that the kernel does not map."""
    if bind.ids:
        return SpecError(
            f"mount {bind.target}: {bind.ids}: the kernel cannot map the ids of {bind.source}, or below it",
            hint=f"leave out {bind.ids}, or mount a directory of another file system",
        )
    return SpecError(
        f"bind mount {bind.target}: the kernel cannot map the ids of {bind.source}, or below it",
        hint="mount it with :ro or :noidmap, or use --userns host",
    )


def _owned(one: Filesystem, uids: tuple[IdMap, ...], gids: tuple[IdMap, ...]) -> Filesystem:
    """A file system whose owner and group exist inside; terminals need not have a group of their own."""
    options = []
    for name, value in one.options:
        if name in ("uid", "gid"):
            maps = uids if name == "uid" else gids
            if one.fstype == "devpts" and not userns.has(maps, int(value)):
                continue
            userns.outside(maps, int(value), f"{name}= of the {one.fstype} {one.target}")
        options.append((name, value))
    return one.replace(options=tuple(options))
