"""User namespaces: the maps of users and groups. user_namespaces(7)."""

from __future__ import annotations

import posix

from sysbox.base.errors import KernelError
from sysbox.base.frozen import Frozen


class IdMap(Frozen):
    """A range of `count` ids: `inside` + n in the namespace is `outside` + n on the host."""

    inside: int
    outside: int
    count: int


def write_maps(pid: int, uids: tuple[IdMap, ...], gids: tuple[IdMap, ...]) -> None:
    """Write the maps of a process's user namespace; the kernel accepts them only once. Raises KernelError.

    The caller has CAP_SETUID and CAP_SETGID in the parent user namespace, so setgroups(2) stays allowed
    inside.
    """
    for file, ranges in (("uid_map", uids), ("gid_map", gids)):
        text = "".join(f"{one.inside} {one.outside} {one.count}\n" for one in ranges)
        path = f"/proc/{pid}/{file}"
        try:
            fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
            try:
                # one write(2): the kernel accepts a map only as a whole
                posix.write(fd, text.encode())
            finally:
                posix.close(fd)
        except OSError as error:
            raise KernelError.of("write", path, error) from None
