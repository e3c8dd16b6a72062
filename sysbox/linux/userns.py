"""User namespaces: the maps of users and groups. user_namespaces(7)."""

from __future__ import annotations

import errno
import posix

from sysbox.base.errors import KernelError
from sysbox.base.frozen import Frozen


class IdMap(Frozen):
    """A range of `count` ids: `inside` + n in the namespace is `outside` + n on the host."""

    inside: int
    outside: int
    count: int

    def wrong(self) -> str:
        # 2^32 - 1 is (uid_t)-1, which is no id
        fits = self.count > 0 and min(self.inside, self.outside) >= 0
        fits = fits and max(self.inside, self.outside) + self.count < 1 << 32
        return "" if fits else "count: must be a range of ids"


def read_maps(pid: int | str = "self") -> tuple[tuple[IdMap, ...], tuple[IdMap, ...]]:
    """The maps of users and of groups of the user namespace that a process is in.

    `outside` counts as in the user namespace of this process, or, for this process, as in the one above.
    Raises KernelError.
    """
    found = []
    for file in ("uid_map", "gid_map"):
        path = f"/proc/{pid}/{file}"
        try:
            fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
            try:
                text = posix.read(fd, 1 << 16)
            finally:
                posix.close(fd)
        except OSError as error:
            raise KernelError.of("read", path, error) from None
        rows = (map(int, line.split()) for line in text.splitlines())
        found.append(
            tuple(IdMap(inside=inside, outside=outside, count=n) for inside, outside, n in rows)
        )
    return found[0], found[1]


def read_maps_at(path: str) -> tuple[tuple[IdMap, ...], tuple[IdMap, ...]]:
    """The maps of the user namespace at `path`, as `read_maps`, by a child that joins it.

    Raises KernelError: EINVAL for the caller's own namespace.
    """
    # not above: the manual is made from modules that import this one, before _sys is built
    from sysbox.linux import _sys
    from sysbox.linux.namespace import CLONE_NEWUSER

    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
    except OSError as error:
        raise KernelError.of("open the namespace", path, error) from None
    ready, told = posix.pipe()
    ended, held = posix.pipe()
    child = posix.fork()
    if child == 0:
        try:
            posix.close(held)
            _sys.setns(fd, CLONE_NEWUSER)
            posix.write(told, b"\0")
            posix.read(ended, 1)  # until it was looked at
        except OSError as error:
            posix.write(told, bytes([error.errno or errno.EIO]))
        finally:
            posix._exit(0)
    try:
        posix.close(told)
        answer = posix.read(ready, 1)
        if answer != b"\0":
            code = answer[0] if answer else errno.EIO
            raise KernelError("join the user namespace", path, code)
        return read_maps(child)
    finally:
        for one in (fd, ready, ended, held):
            posix.close(one)
        posix.waitpid(child, 0)


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
