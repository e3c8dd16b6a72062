"""Whether ids can be mapped here: by the kernel, by a storage driver on its file system, by that of a volume.

There is no way to ask the kernel but to try (mount_setattr(2), "ID-mapped mounts"), so that is done once in a
boot for each file system, and the answer is kept in /run.
"""

from __future__ import annotations

import _signal
import errno
import posix
import select

from sysbox.base.errors import KernelError, SysboxError, Unsupported
from sysbox.base.files import make_private, read_file, remove_tree, write_file
from sysbox.base.flock import BRIEFLY, Lock
from sysbox.base.paths import CONTAINERS, IMAGES, RUN
from sysbox.fs import rootfs, staging
from sysbox.fs.drivers import driver
from sysbox.host import exists, read_text
from sysbox.linux import _sys, capability, mount, namespace, process, userns
from sysbox.linux.userns import IdMap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_KEPT = f"{RUN}/idmap"
_LONGEST = 512  # bytes of a reason
_SOME = (IdMap(inside=0, outside=1 << 20, count=1 << 16),)


def why_not_kernel() -> str:
    """Why a container with a user namespace of its own cannot be made here at all; "" where it can.

    The kernel lets such a namespace mount procfs and sysfs only where the caller's are not partly covered, as
    they are inside a container (mount_too_revealing() of the kernel's source).
    """
    return _once("kernel", _try_kernel)


def why_not_root(name: str, layers: tuple[str, ...]) -> str:
    """Why the storage driver `name` cannot map the ids of its layers on this host; "" where it can."""
    make_private(CONTAINERS)
    devices = (posix.stat(path).st_dev for path in (CONTAINERS, f"{IMAGES}/layers"))
    key = "-".join((name, *map(str, devices)))
    return _once(key, lambda: _try_root(name, layers[:1]))


def why_not(path: str) -> str:
    """Why the kernel cannot map the ids of a directory or file and of what is mounted below; "" where it can.

    A path that does not exist yet has the file system of the directory above it.
    """
    recursive = True
    while not exists(path):
        path, recursive = path.rstrip("/").rpartition("/")[0] or "/", False
    if recursive and _has_mounts_below(path):
        return _answer(lambda: _try_path(path, recursive=True))
    return _once(str(posix.stat(path).st_dev), lambda: _try_path(path, recursive=False))


def _once(key: str, ask: Callable[[], None]) -> str:
    kept = f"{_KEPT}/{key}"
    known = read_file(kept, _LONGEST)
    if known is not None:
        return known.decode("utf-8", "replace")
    make_private(_KEPT)
    with Lock(f"{_KEPT}/lock", timeout=BRIEFLY):
        answer = _answer(ask)
        write_file(kept, answer.encode()[:_LONGEST])
    return answer


def _answer(ask: Callable[[], None]) -> str:
    try:
        ask()
    except SysboxError as error:
        return error.message
    return ""


def _has_mounts_below(path: str) -> bool:
    place = path.rstrip("/") + "/"
    lines = read_text("/proc/self/mountinfo", 1 << 24).splitlines()
    targets = (line.split(" ", 5)[4].replace("\\040", " ") for line in lines)
    return any(one.startswith(place) and one != place for one in targets)


def _try_path(path: str, *, recursive: bool) -> None:
    copy = mount.clone_tree(path, recursive=recursive)
    owner = _some_namespace()
    try:
        mount.set_attributes(copy, set=mount.MOUNT_ATTR_IDMAP, recursive=recursive, userns_fd=owner)
    except KernelError as error:
        if error.errno not in (errno.EINVAL, errno.EPERM):
            raise
        raise Unsupported(f"the kernel cannot map the ids of {path}") from None
    finally:
        posix.close(copy)
        posix.close(owner)


def _try_kernel() -> None:
    """Raises KernelError, Unsupported."""
    owner = _some_namespace()
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
            raise Unsupported(f"{fstype} cannot be mounted there: {error.message}") from None


def _try_root(name: str, layers: tuple[str, ...]) -> None:
    """Mount such a root where nobody sees it. Raises KernelError, Unsupported."""
    directory = f"{CONTAINERS}/.mappable"
    remove_tree(directory)  # of an attempt that was killed
    try:
        posix.mkdir(directory, 0o700)
        chosen = driver.by_name(name)
        chosen.prepare(directory)
        plan = rootfs.RootPlan(
            driver=name, layers=layers, directory=directory, volatile=True, operations=(), late=()
        )
        owner = _some_namespace()
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


def _in_child(work: Callable[[], None], flags: int = namespace.CLONE_NEWNS) -> None:
    """Run `work` in a child with new namespaces. Raises Unsupported with its reason."""
    reading, writing = posix.pipe2(posix.O_CLOEXEC)
    pid, pidfd = _sys.clone3(flags)
    if pid == 0:
        try:
            work()
            posix.write(writing, b"+")
        except SysboxError as error:
            posix.write(writing, b"-" + error.message.encode()[:_LONGEST])
        finally:
            posix._exit(0)
    posix.close(writing)
    posix.close(pidfd)
    told = posix.read(reading, _LONGEST)
    posix.close(reading)
    posix.waitpid(pid, 0)
    if told != b"+":
        raise Unsupported(told[1:].decode("utf-8", "replace") or "the attempt to map ids failed")


def _some_namespace() -> int:
    """An fd of a user namespace with a map, and with no process in it any more. Raises KernelError."""
    try:
        pid, pidfd = _sys.clone3(namespace.CLONE_NEWUSER)
    except OSError as error:
        raise KernelError.of("make a user namespace", "", error) from None
    if pid == 0:
        try:
            select.poll().poll()
        finally:
            posix._exit(0)
    try:
        userns.write_maps(pid, _SOME, _SOME)
        return namespace.open_ns(pid, "user")
    finally:
        process.send(pidfd, _signal.SIGKILL)
        posix.close(pidfd)
        posix.waitpid(pid, 0)
