"""User namespaces: the maps of users and groups. user_namespaces(7)."""

from __future__ import annotations

import posix

from sysbox.base.errors import KernelError
from sysbox.base.frozen import Frozen

LINES_MAX = 340  # of one map, since Linux 4.15


class IdMap(Frozen):
    """A range of ids: `count` of them from `inside` on are those from `outside` on."""

    inside: int
    outside: int
    count: int


def write_maps(pid: int, uids: tuple[IdMap, ...], gids: tuple[IdMap, ...]) -> None:
    """Give the user namespace of a process its maps; the kernel takes no second ones. Raises KernelError.

    The caller has CAP_SETUID and CAP_SETGID where it was made, so setgroups(2) stays allowed inside.
    """
    for file, ranges in (("uid_map", uids), ("gid_map", gids)):
        text = "".join(f"{one.inside} {one.outside} {one.count}\n" for one in ranges)
        path = f"/proc/{pid}/{file}"
        try:
            fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
            try:
                # in one call: the kernel takes a map whole
                posix.write(fd, text.encode())
            finally:
                posix.close(fd)
        except OSError as error:
            raise KernelError.of("write", path, error) from None
