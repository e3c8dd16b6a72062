"""The attempts by which `mappable.py` learns what this host can do; each leaves nothing behind."""

from __future__ import annotations

import errno
import posix

from sysbox.base.errors import Conflict, KernelError, Unsupported
from sysbox.base.files import is_directory, remove_tree
from sysbox.base.flock import BRIEFLY, Lock
from sysbox.base.paths import CONTAINERS, RUN
from sysbox.fs import rootfs, staging
from sysbox.fs.drivers import driver
from sysbox.linux import _sys, capability, idmaps, mount, namespace
from sysbox.linux.child import BUSY
from sysbox.linux.child import why_not as why_not_in_child
from sysbox.linux.userns import IdMap

__all__ = ["BUSY", "discard", "kernel", "path", "root"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_PLACE = f"{CONTAINERS}/.mappable"
_LOCK = f"{RUN}/idmap/lock"
_SOME = (IdMap(inside=0, outside=1 << 20, count=1 << 16),)


def path(path: str, fd: int, *, recursive: bool) -> None:
    """Map the ids of a directory or file, `fd`, found at `path`. Raises KernelError, Unsupported."""
    owner = idmaps.open_namespace(_SOME, _SOME)
    try:
        posix.close(mount.clone_mapped("", owner, recursive=recursive, dirfd=fd))
    except KernelError as error:
        if error.errno not in (errno.EINVAL, errno.EPERM):
            raise
        raise Unsupported(f"the kernel cannot map the ids of {path}") from None
    finally:
        posix.close(owner)


def kernel() -> None:
    """Mount procfs and sysfs in a new user namespace. Raises KernelError, Unsupported."""
    owner = idmaps.open_namespace(_SOME, _SOME)
    try:
        _in_child(lambda: _mount_proc(owner))
    finally:
        posix.close(owner)


def _mount_proc(owner: int) -> None:
    _sys.setns(owner, namespace.CLONE_NEWUSER)
    posix.setresgid(0, 0, 0)
    posix.setresuid(0, 0, 0)
    _sys.unshare(namespace.CLONE_NEWNS | namespace.CLONE_NEWNET | namespace.CLONE_NEWPID)
    # a procfs is that of the pid namespace of children
    _in_child(_mount_kernels, flags=0)


def _mount_kernels() -> None:
    for fstype in ("proc", "sysfs"):
        try:
            mount.new_filesystem(fstype, (), 0)
        except KernelError as error:
            if error.errno in BUSY:
                raise
            raise Unsupported(f"{fstype} cannot be mounted there: {error.message}") from None


def root(name: str, layers: tuple[str, ...]) -> None:
    """Mount such a root where nobody sees it. Raises KernelError, Unsupported."""
    plan = rootfs.RootPlan(
        driver=name, layers=layers, directory=_PLACE, volatile=True, operations=(), late=()
    )
    with Lock(_LOCK, timeout=BRIEFLY):
        remove_tree(_PLACE)  # of an attempt that was killed
        try:
            posix.mkdir(_PLACE, 0o700)
            driver.by_name(name).prepare(_PLACE)
            owner = idmaps.open_namespace(_SOME, _SOME)
            try:
                _in_child(lambda: _mount_root(plan, owner))
            finally:
                posix.close(owner)
        except OSError as error:
            raise KernelError.of("try to map ids in", CONTAINERS, error) from None
        finally:
            remove_tree(_PLACE)


def discard() -> bool:
    """Remove what an attempt that was killed has left; whether there was something. Raises KernelError."""
    if not is_directory(_PLACE):
        return False
    try:
        with Lock(_LOCK, wait=False):
            left = is_directory(_PLACE)
            remove_tree(_PLACE)
    except Conflict:
        return False  # an attempt is being made
    return left


def _mount_root(plan: rootfs.RootPlan, owner: int) -> None:
    _sys.mount(None, "/", None, mount.MS_REC | mount.MS_SLAVE, None)
    staging.enter(plan.directory)
    capability.act_as(_SOME[0].outside, _SOME[0].outside)
    staging.build(plan, {}, owner)


def _in_child(attempt: Callable[[], None], flags: int = namespace.CLONE_NEWNS) -> None:
    """Raises Unsupported with the reason why it fails in a child, KernelError."""
    if reason := why_not_in_child(attempt, flags):
        raise Unsupported(reason)
