"""User namespaces: the maps of users and groups. user_namespaces(7)."""

from __future__ import annotations

import errno
import posix

from sysbox.base.errors import KernelError, SpecError
from sysbox.base.frozen import Frozen

MAX_ID = 0xFFFFFFFE  # 2^32-1 is (uid_t)-1
OVERFLOW = 65534  # the default of /proc/sys/kernel/overflowuid and overflowgid
_INITIAL = 0xEFFFFFFD  # inode of the initial one: PROC_USER_INIT_INO of the kernel's proc_ns.h


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

    def text(self) -> str:
        """As in --uidmap."""
        return f"{self.inside}:{self.outside}:{self.count}"


def is_initial() -> bool:
    """Whether this process is in the initial user namespace, to which most file systems belong."""
    try:
        return posix.stat("/proc/self/ns/user").st_ino == _INITIAL
    except OSError:
        return True  # there is no other


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


def outside(maps: tuple[IdMap, ...], inside: int, what: str) -> int:
    """The host's id of the id `inside`; () maps each to itself.

    Raises SpecError where there is none; `what` has asked for it: "--user 70000".
    """
    for one in maps:
        if one.inside <= inside < one.inside + one.count:
            return one.outside + inside - one.inside
    if not maps:
        return inside
    if not 0 <= inside <= MAX_ID:
        raise SpecError(f"{what}: {inside} is not an id", hint=f"0 to {MAX_ID}")
    raise SpecError(
        f"{what}: {inside} is outside the container's ids, which are {text(maps)}",
        hint=f"--userns auto:size={inside + 1} has it, --userns host has all",
    )


def inside(maps: tuple[IdMap, ...], outside: int) -> int:
    """The id inside of the host's id `outside`; () maps each to itself.

    OVERFLOW for an id that is not mapped, as the kernel shows it there (user_namespaces(7), "Unmapped user
    and group IDs").
    """
    for one in maps:
        if one.outside <= outside < one.outside + one.count:
            return one.inside + outside - one.outside
    return OVERFLOW if maps else outside


def has(maps: tuple[IdMap, ...], inside: int) -> bool:
    """Whether the namespace has this id."""
    return any(one.inside <= inside < one.inside + one.count for one in maps)


def is_mapped(maps: tuple[IdMap, ...], outside: int) -> bool:
    """Whether the host's id `outside` has an id inside; with () each has."""
    return not maps or any(one.outside <= outside < one.outside + one.count for one in maps)


def root_of(uids: tuple[IdMap, ...], gids: tuple[IdMap, ...]) -> tuple[int, int]:
    """The host's ids of root inside. Raises SpecError."""
    return outside(uids, 0, "root of the container"), outside(gids, 0, "root of the container")


def text(maps: tuple[IdMap, ...]) -> str:
    """The ids that exist inside: "0-65535, 100000"."""
    ordered = sorted(maps, key=lambda one: one.inside)
    return ", ".join(span(one.inside, one.count) for one in ordered)


def span(start: int, count: int) -> str:
    """A range of ids: "524288-589823"."""
    return f"{start}-{start + count - 1}" if count > 1 else str(start)


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
