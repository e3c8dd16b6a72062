"""The parts of a mapped container's root that need the host's rights: made outside, taken inside.

The first process of a container with a user namespace of its own has no right of the host's. So the builder
(`run/builder.py`) makes what it may not make: the root on layers whose ids are mapped, the mapped sources of
bind mounts, /dev with its nodes. It attaches them in its own mount namespace, to a tmpfs that is the working
directory of both. A mount that is copied from there into the namespace of the container keeps its attributes
locked: not even a process with CAP_SYS_ADMIN inside makes a read-only volume writable (mount_namespaces(7),
"Restrictions on mount namespaces").

The kernel sees the owner of a mapped file as the host's id, and stores the container's own: no file is ever
chowned (mount_setattr(2), "ID-mapped mounts").
"""

from __future__ import annotations

import errno
import posix

from sysbox.base import files
from sysbox.base.errors import KernelError
from sysbox.fs import mapped, ops
from sysbox.fs.drivers import driver
from sysbox.fs.rootfs import Bind
from sysbox.host import exists
from sysbox.linux import _sys, mount, namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sysbox.fs.rootfs import Operation, RootPlan
    from sysbox.linux.userns import IdMap

_DIRECTORY = posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC
_ROOT, _MADE = "root", "made"
_ST_RDONLY = 1  # statvfs(3)


def enter(directory: str, options: tuple[tuple[str, str], ...] = ()) -> None:
    """Mount the tmpfs on the container's `directory`/merged, and change to it. Raises KernelError.

    Its mount namespace is the caller's own, and receives no mounts from others' any more.
    """
    target = f"{directory}/merged"
    try:
        _sys.mount("tmpfs", target, "tmpfs", 0, f"mode=755,size=1m{mount.appended(options)}")
        posix.chdir(target)
    except OSError as error:
        raise KernelError.of("mount a tmpfs on", target, error) from None


def build(
    plan: RootPlan,
    copies: dict[int, int],
    user_namespace: int,
    find_user: Callable[[int], tuple[int, int]] = lambda _: (0, 0),
) -> None:
    """Make what the plan needs from outside, in the working directory; `copies` are those of `sources.clone`.

    The effective ids of the caller are those of root in `user_namespace`, an fd, so that what it makes
    belongs to the container; its capabilities are the host's. `find_user` returns the ids in the container of
    its user, from an fd of the root. Raises KernelError, SpecError.
    """
    posix.mkdir(_ROOT)
    posix.mkdir(_MADE)
    driver.by_name(plan.driver).mount_mapped(plan, _ROOT, user_namespace)
    top = posix.open(_ROOT, _DIRECTORY)
    if posix.fstatvfs(top).f_flag & _ST_RDONLY:
        # overlayfs does so without an error where it cannot use its work directory
        raise KernelError("mount writable", plan.directory, errno.EROFS)
    map_own(plan.operations, copies, top, find_user)
    posix.close(top)
    made = posix.open(_MADE, _DIRECTORY)
    tree = ops.Tree(made, {}, mount.open_procfs())
    tree.options = plan.options
    tree.apply(plan.outside)
    posix.close(made)
    for index, one in enumerate(plan.operations):
        if not isinstance(one, Bind) or one.made:
            continue
        copy = copies[id(one)]
        if one.mapped and not one.owner and not one.uids:
            _map(copy, one, user_namespace)
        if one.mark and one.attributes & mount.MOUNT_ATTR_RDONLY:
            mount.attach_as(copy, _fill(index))
            copy = mount.clone_tree(_fill(index), recursive=False)
        mount.set_attributes(copy, set=one.attributes, recursive=one.recursive)
        mount.attach_as(copy, str(index))
        if one.mark and exists(one.mark):  # a volume of an early version has none
            mount.attach_as(mount.clone_mapped(one.mark, user_namespace), _mark(index))


def _map(copy: int, bind: Bind, user_namespace: int) -> None:
    if mount.map_ids(copy, user_namespace, recursive=bind.recursive):
        return
    # of a read-only one the owners do not matter as much: nothing can be written
    if bind.ids or not bind.attributes & mount.MOUNT_ATTR_RDONLY:
        raise mapped.refused(bind)


def map_own(
    operations: Sequence[Operation],
    copies: dict[int, int],
    root: int,
    find_user: Callable[[int], tuple[int, int]],
) -> None:
    """Map the ids of mounts that have maps of their own; as in `build`. Raises SpecError, KernelError."""
    if any(isinstance(one, Bind) and one.uids for one in operations):
        from sysbox.fs import idmounts  # few containers need it

        user = find_user(root) if mapped.is_owned(operations) else (0, 0)
        idmounts.apply(operations, copies, user)


def check_new_volumes(plan: RootPlan, maps: tuple[tuple[IdMap, ...], tuple[IdMap, ...]]) -> None:
    """After `build`: refuse what a container with these ids cannot copy into its new volumes.

    Raises SpecError, KernelError.
    """
    new = [
        one
        for one in plan.operations
        if isinstance(one, Bind) and one.mark and files.has_content(one.mark)
    ]
    if new:
        from sysbox.fs import copyup  # few starts have a new volume

        top = posix.open(_ROOT, _DIRECTORY)
        for one in new:
            copyup.check_owners(top, one, plan, maps)
        posix.close(top)


def take(plan: RootPlan, procfs: int) -> tuple[ops.Tree, tuple[Operation, ...]]:
    """In the container's first process: make its mount namespace, and take there what the builder has made.

    (The root, the operations to apply to it.) `procfs` is the host's /proc. Raises OSError, KernelError.
    """
    # the working directory is now that of the copy
    _sys.unshare(namespace.CLONE_NEWNS)
    root = mount.clone_tree(_ROOT, recursive=False)
    # a copy of its own on top: pivot_root(2) refuses a mount that came with the namespace
    target = posix.open(_ROOT, _DIRECTORY)
    mount.attach(root, target)
    posix.close(target)
    operations: list[Operation] = []
    sources: dict[int, int] = {}
    fills: dict[int, int] = {}
    for index, one in enumerate(plan.operations):
        operation = one
        if isinstance(one, Bind):
            source = _MADE + one.source if one.made else str(index)
            if one.mark:
                operation = one.replace(mark=_mark(index) if exists(_mark(index)) else "")
            sources[id(operation)] = copy = mount.clone_tree(source, recursive=one.recursive)
            if one.mark and exists(_fill(index)):
                fills[id(operation)] = mount.clone_tree(_fill(index), recursive=False)
            if one.propagation not in (mount.MS_PRIVATE, mount.MS_SHARED):
                mount.set_attributes(copy, propagation=one.propagation, recursive=one.recursive)
        operations.append(operation)
    tree = ops.Tree(root, sources, procfs)
    tree.fills = fills
    return tree, tuple(operations)


def _fill(index: int) -> str:
    """The name of a writable copy of a volume that the container has read-only: it may be new."""
    return f"{index}.fill"


def _mark(index: int) -> str:
    return f"{index}.mark"
