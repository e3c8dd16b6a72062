"""Map the ids of mounts by maps that are not the container's own: `:U` and `:idmap=`.

Nothing on disk is changed. The maps are those of a user namespace that is made for one mount and that no
process is in (`linux/idmaps.py`). Few containers need this module, so `run/planning.py` imports it for those.
"""

from __future__ import annotations

import _stat
import posix

from sysbox.base.errors import SpecError
from sysbox.fs import mapped
from sysbox.fs.rootfs import Bind
from sysbox.linux import idmaps, mount
from sysbox.security import mount_ids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sysbox.fs.rootfs import Operation


def apply(operations: Sequence[Operation], copies: dict[int, int], user: tuple[int, int]) -> None:
    """Map the detached mounts `copies`, by id() of the operation, that have maps of their own.

    `user` are the ids in the container of its user. The caller has CAP_SYS_ADMIN on the host. Raises
    SpecError, KernelError.
    """
    for one in operations:
        if isinstance(one, Bind) and one.uids:
            _map(copies[id(one)], one, user)


def _map(copy: int, bind: Bind, user: tuple[int, int]) -> None:
    uids, gids = bind.uids, bind.gids
    if bind.ids == "U":
        status = posix.fstat(copy)
        if _stat.S_ISCHR(status.st_mode) or _stat.S_ISBLK(status.st_mode):
            # who owns the host's node may change its mode
            raise SpecError(
                f"mount {bind.target}: U: {bind.source} is a device",
                hint=f"--device {bind.source}:{bind.target} gives the container a node of its own",
            )
        # by the file, not by its path, which a symbolic link may have led elsewhere
        if not bind.mark and is_system(status):
            raise SpecError(
                f"mount {bind.target}: U: {bind.source} is a directory of the system",
                hint="name one below it; :idmap=uids=...;gids=... says whose files are whose",
            )
        what = f"mount {bind.target}: U"
        uids = mount_ids.exchanged(uids, status.st_uid, user[0], what)
        gids = mount_ids.exchanged(gids, status.st_gid, user[1], what)
    if (uids, gids) == (mount_ids.ALL, mount_ids.ALL):
        return  # in the host's user namespace, and the user owns it
    namespace = idmaps.open_namespace(uids, gids)
    try:
        if not mount.map_ids(copy, namespace, recursive=bind.recursive):
            raise mapped.refused(bind)
    finally:
        posix.close(namespace)


def is_system(status: posix.stat_result) -> bool:
    """Whether a file or directory is one of the system's own, by any name."""
    for path in mount_ids.SYSTEM:
        try:
            found = posix.stat(path)
        except OSError:
            continue  # this system has none
        if (found.st_dev, found.st_ino) == (status.st_dev, status.st_ino):
            return True
    return False
