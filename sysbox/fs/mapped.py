"""Plan the root of a container with a user namespace: what is made outside of it, what inside. Pure."""

from __future__ import annotations

from sysbox.fs.rootfs import Bind, Filesystem, Node
from sysbox.linux import userns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sysbox.fs.rootfs import Operation
    from sysbox.linux.userns import IdMap


def split(
    operations: Sequence[Operation], uids: tuple[IdMap, ...], gids: tuple[IdMap, ...]
) -> tuple[tuple[Operation, ...], tuple[Operation, ...]]:
    """(what the builder applies to a tree of its own, what the container's first process applies). Pure.

    Raises SpecError for a device whose owner is not mapped.
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
        else:
            inside.append(one)
    return tuple(outside), tuple(inside)
