"""A user namespace without a process, which maps the ids of mounts. mount_setattr(2), MOUNT_ATTR_IDMAP."""

from __future__ import annotations

import posix

from sysbox.base.errors import KernelError
from sysbox.linux import _sys, namespace, userns
from sysbox.linux.userns import IdMap

TYPE_CHECKING = False
if TYPE_CHECKING:
    Maps = tuple[IdMap, ...]


def open_namespace(uids: Maps, gids: Maps) -> int:
    """A descriptor of a new user namespace with these maps; it is there as long as something uses it.

    /proc may be that of another pid namespace than the caller's. Raises KernelError.
    """
    pipe: tuple[int, ...] = ()
    try:
        ended, held = pipe = posix.pipe2(posix.O_CLOEXEC)
        pid, pidfd = _sys.clone3(namespace.CLONE_NEWUSER)
    except OSError as error:
        for fd in pipe:
            posix.close(fd)
        raise KernelError.of("make a user namespace", "", error) from None
    if pid == 0:
        try:
            # it does not outlive the caller, whatever happens to that one
            posix.close(held)
            posix.read(ended, 1)
        finally:
            posix._exit(0)
    try:
        shown = _pid_of(pidfd)
        userns.write_maps(shown, uids, gids)
        return namespace.open_ns(shown, "user")
    finally:
        for fd in (*pipe, pidfd):
            posix.close(fd)
        posix.waitpid(pid, 0)


def _pid_of(pidfd: int) -> int:
    """The pid of a process as /proc shows it (proc_pid_fdinfo(5)). Raises KernelError."""
    path = f"/proc/self/fdinfo/{pidfd}"
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            text = posix.read(fd, 1 << 12).decode()
        finally:
            posix.close(fd)
    except OSError as error:
        raise KernelError.of("read", path, error) from None
    return int(text.partition("\nPid:")[2].split(None, 1)[0])
