"""Whether ids can be mapped here: by the kernel, by a storage driver on its file system, by that of a volume.

There is no way to ask the kernel but to try (mount_setattr(2), "ID-mapped mounts"). What works is noted in
/run, and not tried again until the next boot. A failure is not noted: its reason may be gone the next time.
"""

from __future__ import annotations

import errno
import posix

from sysbox.base.errors import KernelError, Unsupported
from sysbox.base.files import make_private, read_file, remove_tree, write_file
from sysbox.base.flock import BRIEFLY, Lock
from sysbox.base.paths import CONTAINERS, IMAGES, RUN
from sysbox.fs import rootfs, staging
from sysbox.fs.drivers import driver
from sysbox.host import exists, read_text
from sysbox.linux import _sys, capability, idmaps, mount, namespace
from sysbox.linux.child import BUSY
from sysbox.linux.child import why_not as why_not_in_child
from sysbox.linux.userns import IdMap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# where sysbox runs in a user namespace itself: a file system can be mapped only in the one that it belongs to
INSIDE = "sysbox is in one already, in which the kernel maps no ids of layers"
_KEPT = f"{RUN}/idmap"
_SOME = (IdMap(inside=0, outside=1 << 20, count=1 << 16),)


# All raise KernelError where the host lacks memory, processes or descriptors, so that nothing is learned.


def why_not_kernel() -> str:
    """Why a container with a user namespace of its own cannot be made here at all; "" where it can.

    The kernel lets such a namespace mount procfs and sysfs only where the caller's are not partly covered, as
    they are inside a container (mount_too_revealing() of the kernel's source).
    """
    return _unless_known("kernel", _try_kernel)


def why_not_root(name: str, layers: tuple[str, ...]) -> str:
    """Why the storage driver `name` cannot map the ids of its layers on this host; "" where it can."""
    make_private(CONTAINERS)
    key = "-".join((name, *map(_file_system, (CONTAINERS, f"{IMAGES}/layers"))))
    return _unless_known(key, lambda: _try_root(name, layers[:1]))


def why_not(path: str, *, recursive: bool = True) -> str:
    """Why the kernel cannot map the ids of a directory or file; "" where it can.

    With `recursive`, what is mounted below counts. A path that does not exist yet has the file system of the
    directory above it.
    """
    asked = path
    while not exists(path):
        path = path.rstrip("/").rpartition("/")[0] or "/"
    if recursive and path == asked and _has_mounts_below(path):
        return _answer(lambda: _try_path(path, recursive=True))
    return _unless_known(_file_system(path), lambda: _try_path(path, recursive=False))


def _file_system(path: str) -> str:
    """What tells file systems apart: the number of one alone serves another after an umount."""
    fd = _open(path)
    try:
        return f"{posix.fstat(fd).st_dev}:{_sys.fstatfs_type(fd):x}"
    finally:
        posix.close(fd)


def _open(path: str) -> int:
    try:
        return posix.open(path, posix.O_PATH | posix.O_CLOEXEC)
    except OSError as error:
        raise KernelError.of("look at", path, error) from None


def _unless_known(key: str, attempt: Callable[[], None]) -> str:
    note = f"{_KEPT}/{key}"
    # early versions noted reasons too
    if read_file(note) == b"":
        return ""
    answer = _answer(attempt)
    if not answer:
        make_private(_KEPT)
        write_file(note, b"")
    return answer


def _answer(attempt: Callable[[], None]) -> str:
    try:
        attempt()
    except Unsupported as error:
        return error.message
    except KernelError as error:
        if error.errno in BUSY:
            raise
        return error.message
    return ""


def _has_mounts_below(path: str) -> bool:
    """`path` may lead there by symbolic links."""
    fd = _open(path)
    try:
        place = posix.readlink(f"/proc/self/fd/{fd}").rstrip("/") + "/"
    finally:
        posix.close(fd)
    for one in "\\ \t\n":  # as proc_pid_mountinfo(5) writes them
        place = place.replace(one, f"\\{ord(one):03o}")
    lines = read_text("/proc/self/mountinfo", 1 << 24).splitlines()
    targets = (line.split(" ", 5)[4] for line in lines)
    return any(one.startswith(place) and one != place for one in targets)


def _try_path(path: str, *, recursive: bool) -> None:
    owner = idmaps.open_namespace(_SOME, _SOME)
    try:
        posix.close(mount.clone_mapped(path, owner, recursive=recursive))
    except KernelError as error:
        if error.errno not in (errno.EINVAL, errno.EPERM):
            raise
        raise Unsupported(f"the kernel cannot map the ids of {path}") from None
    finally:
        posix.close(owner)


def _try_kernel() -> None:
    """Raises KernelError, Unsupported."""
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


def _try_root(name: str, layers: tuple[str, ...]) -> None:
    """Mount such a root where nobody sees it. Raises KernelError, Unsupported."""
    directory = f"{CONTAINERS}/.mappable"
    plan = rootfs.RootPlan(
        driver=name, layers=layers, directory=directory, volatile=True, operations=(), late=()
    )
    with Lock(f"{_KEPT}/lock", timeout=BRIEFLY):
        remove_tree(directory)  # of an attempt that was killed
        try:
            posix.mkdir(directory, 0o700)
            driver.by_name(name).prepare(directory)
            owner = idmaps.open_namespace(_SOME, _SOME)
            try:
                _in_child(lambda: _mount_root(plan, owner))
            finally:
                posix.close(owner)
        except OSError as error:
            raise KernelError.of("try to map ids in", CONTAINERS, error) from None
        finally:
            remove_tree(directory)


def _mount_root(plan: rootfs.RootPlan, owner: int) -> None:
    _sys.mount(None, "/", None, mount.MS_REC | mount.MS_SLAVE, None)
    staging.enter(plan.directory)
    capability.act_as(_SOME[0].outside, _SOME[0].outside)
    staging.build(plan, {}, owner)


def _in_child(attempt: Callable[[], None], flags: int = namespace.CLONE_NEWNS) -> None:
    """Raises Unsupported with the reason why it fails in a child, KernelError."""
    if reason := why_not_in_child(attempt, flags):
        raise Unsupported(reason)
