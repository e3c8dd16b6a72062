"""The sources of bind mounts: copies of the host's and other containers' mounts, made before the root."""

from __future__ import annotations

import errno
import posix

from sysbox.base.errors import KernelError, SpecError
from sysbox.fs import rootfs
from sysbox.host import exists
from sysbox.linux import _sys, mount, namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sysbox.fs.rootfs import Operation

_DIRECTORY = posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC
# linux/magic.h
_MAGIC = {"tmpfs": 0x01021994, "proc": mount.PROC_SUPER_MAGIC}
_PROC_ROOT = 1  # the inode number of a procfs's root


def clone(operations: Sequence[Operation]) -> dict[int, int]:
    """A detached copy of every bind mount's source, by id() of the operation. Raises SpecError, KernelError.

    Called before the mount namespace leaves the host's peer groups: shared and slave propagation need them.
    """
    sources: dict[int, int] = {}
    for operation in operations:
        if isinstance(operation, rootfs.Bind) and not operation.made:
            sources[id(operation)] = _copy(operation)
    return sources


def _copy(bind: rootfs.Bind) -> int:
    if bind.create:
        make_directories(bind.source)
    try:
        if bind.owner:
            made = _copy_elsewhere(bind)
        else:
            made = mount.clone_tree(bind.source, recursive=bind.recursive)
    except KernelError as error:
        if error.errno == errno.ENOENT:
            raise SpecError(
                f"bind mount {bind.target}: the source {bind.source} does not exist",
                hint="make it first, or use -v, which makes a missing directory",
            ) from None
        raise
    if bind.propagation != mount.MS_SHARED:
        kind = bind.propagation
        mount.set_attributes(made, propagation=kind, recursive=bind.recursive)
    return made


def _copy_elsewhere(bind: rootfs.Bind) -> int:
    """A detached copy of another container's mount, made inside its mount namespace, as the kernel requires.

    A copied procfs shows the shared pid namespace. A new procfs would show that of the process that mounts
    it, and this process must stay invisible in the shared one. The other container may have mounted another
    procfs on its /proc, but that shows its own pid namespace or one below it.
    """
    here = posix.open("/proc/self/ns/mnt", posix.O_RDONLY | posix.O_CLOEXEC)
    there = -1
    try:
        there = posix.open(bind.owner, posix.O_RDONLY | posix.O_CLOEXEC)
        _sys.setns(there, namespace.CLONE_NEWNS)
        try:
            root = posix.open("/", _DIRECTORY)
            found = mount.open_in_root(root, bind.source, _DIRECTORY)
            # the other container controls the path: accept nothing but a mount of the expected kind
            part = bind.kind == "proc" and posix.fstat(found).st_ino != _PROC_ROOT
            if part or _sys.fstatfs_type(found) != _MAGIC[bind.kind]:
                raise SpecError(f"the {bind.source} of {bind.owner} is not a {bind.kind}")
            made = mount.clone_tree("", recursive=False, dirfd=found)
            posix.close(found)
            posix.close(root)
        finally:
            _sys.setns(here, namespace.CLONE_NEWNS)
    except OSError as error:
        raise KernelError.of("enter", bind.owner, error) from None
    finally:
        for fd in (here, there):
            if fd >= 0:
                posix.close(fd)
    return made


def make_directories(path: str) -> list[str]:
    """mkdir -p on the host, for a path from the user's command line. Returns what it made, in that order.

    Raises KernelError; then nothing that it made is left.
    """
    missing, made = [], list[str]()
    above = path.rstrip("/")
    while above and not exists(above):
        missing.append(above)
        above = above.rpartition("/")[0]
    for one in reversed(missing):
        try:
            posix.mkdir(one, 0o755)
            made.append(one)
        except FileExistsError:
            pass  # ignoring: it was made meanwhile
        except OSError as error:
            remove_directories(made)
            raise KernelError.of("mkdir", path, error) from None
    return made


def remove_directories(made: list[str]) -> None:
    """Take back what `make_directories` made; one that has got files meanwhile stays."""
    for one in reversed(made):
        try:
            posix.rmdir(one)
        except OSError:
            pass  # ignoring: somebody uses it, or has removed it
