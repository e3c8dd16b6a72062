"""Mount the container's own cgroup subtree, once it is in its scope and its cgroup namespace."""

from __future__ import annotations

import posix

from sysbox.fs.rootfs import ReadOnly
from sysbox.linux import mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.fs.ops import Tree
    from sysbox.fs.rootfs import Cgroups

_ATTRIBUTES = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC


def mount_all(tree: Tree, op: Cgroups) -> None:
    """One mount on v2, on v1 one for each hierarchy on a tmpfs. Raises KernelError, SpecError."""
    read_only = 0 if op.writable else mount.MOUNT_ATTR_RDONLY
    unified = tuple((word, None) for word in op.flags)
    if not op.controllers:
        made = mount.new_filesystem("cgroup2", unified, _ATTRIBUTES | read_only)
        _attach(tree, made, op.target)
        posix.close(made)
        _keep_bound(tree, op, op.target)
        return
    above = mount.new_filesystem("tmpfs", (("mode", "755"), ("size", "64k")), _ATTRIBUTES)
    _attach(tree, above, op.target)
    for name, options in sorted(op.controllers.items()):
        target = f"{op.target}/{name}"
        words = tuple(
            ("name", word[5:]) if word.startswith("name=") else (word, None)
            for word in filter(None, options.split(","))
        )
        chosen = _ATTRIBUTES if name in op.delegated else _ATTRIBUTES | read_only
        kind = "cgroup" if words else "cgroup2"
        made = mount.new_filesystem(kind, words or unified, chosen)
        _attach(tree, made, target)
        posix.close(made)
        if not words:
            _keep_bound(tree, op, target)
        for alias in options.split(","):
            if "," in name and not alias.startswith("name="):
                posix.symlink(name, alias, dir_fd=above)
    if read_only:
        mount.set_attributes(above, set=read_only)
    posix.close(above)


def _attach(tree: Tree, made: int, path: str) -> None:
    target = tree.directory(path)
    mount.attach(made, target)
    posix.close(target)


def _keep_bound(tree: Tree, op: Cgroups, target: str) -> None:
    """Make cgroup.max.descendants read-only: without nsdelegate the container could raise it."""
    if op.bounded:
        tree.read_only(ReadOnly(target=f"{target}/cgroup.max.descendants", recursive=False))
