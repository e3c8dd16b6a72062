"""Applies the operations of `fs/rootfs.py` inside the container's own mount namespace.

Every path of the container is reached from a root fd with openat2(2) and RESOLVE_IN_ROOT, so a symbolic
link in an image cannot lead outside, and every mount is made detached and then attached to a target that
was opened once (CVE-2021-30465: nothing is looked up twice).

What is missing is made with the mode that it shall have, under an umask of 0. A mode set afterwards, by name,
could be another file's: whoever shares a volume may exchange the name for a link to the host's /etc/shadow.
"""

from __future__ import annotations

import _stat
import errno
import posix

from sysbox import trees
from sysbox.errors import KernelError, SpecError
from sysbox.fs import rootfs
from sysbox.host import exists
from sysbox.linux import _sys, mount, namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from sysbox.fs.rootfs import Operation

_DIRECTORY = posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC
_ANY = posix.O_PATH | posix.O_CLOEXEC
_MADE = _DIRECTORY | posix.O_NOFOLLOW
_NULL_DEVICE = posix.makedev(1, 3)
_TMPFS_MAGIC = 0x01021994  # linux/magic.h


class Tree:
    """A root being built: `root` is an O_PATH fd of it, `sources` the mounts cloned from the host."""

    def __init__(self, root: int, sources: dict[str, int]) -> None:
        self.root = root
        self._sources = sources
        self._empty = -1

    def apply(self, operations: Sequence[Operation]) -> None:
        """Do them in order. Raises KernelError or SpecError, naming the target."""
        for operation in operations:
            apply: Callable[[Tree, Any], None] = _APPLY[type(operation)]
            apply(self, operation)

    def filesystem(self, op: rootfs.Filesystem) -> None:
        target = self._ordinary(op.target) if op.ordinary else self.directory(op.target)
        options = tuple((key, value or None) for key, value in op.options)
        made = mount.new_filesystem(op.fstype, options, op.attributes)
        _attach(made, target, op.target)
        posix.close(made)

    def bind(self, op: rootfs.Bind) -> None:
        made = self._sources.pop(op.target)
        is_directory = _stat.S_ISDIR(posix.fstat(made).st_mode)
        target = self.directory(op.target) if is_directory else self.file(op.target)
        if op.copy_up and is_directory:
            from sysbox.fs import copyup  # for volumes alone

            copyup.fill_if_empty(target, made)
        if op.attributes:
            mount.set_attributes(made, set=op.attributes, recursive=op.recursive)
        _attach(made, target, op.target)
        if op.propagation != mount.MS_PRIVATE:
            mount.set_attributes(made, propagation=op.propagation, recursive=op.recursive)
        posix.close(made)

    def node(self, op: rootfs.Node) -> None:
        above, _, name = op.target.rpartition("/")
        parent = self.directory(above)
        kind = _stat.S_IFCHR if op.kind == "c" else _stat.S_IFBLK
        device = posix.makedev(op.major, op.minor)
        is_new = True
        try:
            umask = posix.umask(0)
            try:
                posix.mknod(name, kind | op.mode, device, dir_fd=parent)
            except FileExistsError:
                is_new = False
            finally:
                posix.umask(umask)
            found = trees.look(parent, name)
            if found is None or found.kind != kind or found.status.st_rdev != device:
                raise SpecError(f"device {op.target}: something else is there in the image")
            if is_new and (op.uid or op.gid):
                posix.chown(found.path, op.uid, op.gid)
            found.close()
        except OSError as error:
            raise KernelError.of("mknod", op.target, error) from None
        finally:
            posix.close(parent)

    def link(self, op: rootfs.Link) -> None:
        above, _, name = op.target.rpartition("/")
        parent = self.directory(above)
        try:
            posix.symlink(op.text, name, dir_fd=parent)
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise KernelError.of("symlink", op.target, error) from None
        finally:
            posix.close(parent)

    def make_directory(self, op: rootfs.Directory) -> None:
        posix.close(self.directory(op.target, op.mode))

    def mask(self, op: rootfs.Mask) -> None:
        try:
            target = mount.open_in_root(self.root, op.target, _ANY | posix.O_NOFOLLOW)
        except KernelError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return  # nothing there to hide
            raise
        made = self._empty_tmpfs() if _is_directory(target) else null_device()
        _attach(made, target, op.target)
        posix.close(made)

    def read_only(self, op: rootfs.ReadOnly) -> None:
        try:
            target = mount.open_in_root(self.root, op.target, _ANY | posix.O_NOFOLLOW)
        except KernelError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return
            raise
        if op.target == "/":
            mount.set_attributes(target, set=mount.MOUNT_ATTR_RDONLY, recursive=op.recursive)
            posix.close(target)
            return
        # a bind of the path onto itself carries the flag; what is mounted below comes along
        made = mount.clone_tree("", recursive=op.recursive, dirfd=target)
        mount.set_attributes(made, set=mount.MOUNT_ATTR_RDONLY, recursive=op.recursive)
        _attach(made, target, op.target)
        posix.close(made)

    def cgroups(self, op: rootfs.Cgroups) -> None:
        attributes = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC
        read_only = 0 if op.writable else mount.MOUNT_ATTR_RDONLY
        if not op.controllers:
            made = mount.new_filesystem("cgroup2", (), attributes | read_only)
            _attach(made, self.directory(op.target), op.target)
            posix.close(made)
            return
        above = mount.new_filesystem("tmpfs", (("mode", "755"), ("size", "64k")), attributes)
        _attach(above, self.directory(op.target), op.target)
        for name, options in sorted(op.controllers.items()):
            target = f"{op.target}/{name}"
            words = tuple(
                ("name", word[5:]) if word.startswith("name=") else (word, None)
                for word in filter(None, options.split(","))
            )
            chosen = attributes if name in op.delegated else attributes | read_only
            made = mount.new_filesystem("cgroup" if words else "cgroup2", words, chosen)
            _attach(made, self.directory(target), target)
            posix.close(made)
            for alias in options.split(","):
                if "," in name and not alias.startswith("name="):
                    posix.symlink(name, alias, dir_fd=above)
        if read_only:
            mount.set_attributes(above, set=read_only)
        posix.close(above)

    def directory(self, path: str, mode: int = 0o755, what: str = "mount target") -> int:
        """An O_PATH fd of a directory of the container's, made with its parents if it is missing.

        Raises SpecError, KernelError; `what` names the path in their messages.
        """
        try:
            return mount.open_in_root(self.root, path, _DIRECTORY)
        except KernelError as error:
            if error.errno != errno.ENOENT:
                raise SpecError(f"{what} {path}: {posix.strerror(error.errno)}") from None
        parent, missing = self._nearest(path, what)
        for left, name in zip(range(len(missing) - 1, -1, -1), missing, strict=True):
            try:
                parent = _made_in(parent, name, 0o755 if left else mode)
            except (FileExistsError, NotADirectoryError):
                # a dangling symbolic link: made into nothing that leads anywhere
                raise SpecError(f"{what} {path}: a dangling symbolic link is in the way") from None
            except OSError as error:
                raise KernelError.of("mkdir", path, error) from None
        return parent

    def _nearest(self, path: str, what: str) -> tuple[int, list[str]]:
        """The deepest directory on the way to a path that is there, and the names that are missing below."""
        above, missing = path.rstrip("/"), []
        while True:
            above, _, name = above.rpartition("/")
            missing.append(name)
            try:
                return mount.open_in_root(self.root, above or "/", _DIRECTORY), missing[::-1]
            except KernelError as error:
                if error.errno != errno.ENOENT or not above:
                    raise SpecError(f"{what} {path}: {posix.strerror(error.errno)}") from None

    def file(self, path: str) -> int:
        """An O_PATH fd of a file of the container's to mount over, made empty if it is missing."""
        try:
            return mount.open_in_root(self.root, path, _ANY)
        except KernelError as error:
            if error.errno != errno.ENOENT:
                raise SpecError(f"mount target {path}: {posix.strerror(error.errno)}") from None
        above, _, name = path.rpartition("/")
        parent = self.directory(above or "/")
        flags = posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC | posix.O_WRONLY | posix.O_NOFOLLOW
        umask = posix.umask(0)
        try:
            posix.close(posix.open(name, flags, 0o644, dir_fd=parent))
        except FileExistsError:
            raise SpecError(
                f"mount target {path}: a dangling symbolic link is in the way"
            ) from None
        except OSError as error:
            raise KernelError.of("create", path, error) from None
        finally:
            posix.umask(umask)
            posix.close(parent)
        return mount.open_in_root(self.root, path, _ANY)

    def _ordinary(self, path: str) -> int:
        """As `directory`, for the file systems of the kernel: no symbolic link on the way."""
        posix.close(self.directory(path))
        fd = mount.open_in_root(self.root, path, _ANY | posix.O_NOFOLLOW)
        if not _is_directory(fd):
            posix.close(fd)
            raise SpecError(
                f"the image's {path} is not an ordinary directory",
                hint="it must not be a symbolic link: the kernel's file system is mounted there",
            )
        return fd

    def _empty_tmpfs(self) -> int:
        """One empty read-only tmpfs, shared by all masked directories.

        The first of them gets the mount itself: up to Linux 6.14 only what is attached can be copied.
        """
        if self._empty >= 0:
            return mount.clone_tree("", recursive=False, dirfd=self._empty)
        self._empty = mount.new_filesystem(
            "tmpfs", (("size", "4k"), ("nr_inodes", "1")), mount.MOUNT_ATTR_RDONLY
        )
        return posix.dup(self._empty)


_APPLY: dict[type, Any] = {
    rootfs.Filesystem: Tree.filesystem,
    rootfs.Bind: Tree.bind,
    rootfs.Node: Tree.node,
    rootfs.Link: Tree.link,
    rootfs.Directory: Tree.make_directory,
    rootfs.Mask: Tree.mask,
    rootfs.ReadOnly: Tree.read_only,
    rootfs.Cgroups: Tree.cgroups,
}


def _made_in(parent: int, name: str, mode: int) -> int:
    """An O_PATH fd of a new directory; `parent` is closed. Raises OSError."""
    umask = posix.umask(0)
    try:
        posix.mkdir(name, mode, dir_fd=parent)
        return posix.open(name, _MADE, dir_fd=parent)
    finally:
        posix.umask(umask)
        posix.close(parent)


def _is_directory(fd: int) -> bool:
    return _stat.S_ISDIR(posix.fstat(fd).st_mode)


def _attach(made: int, target: int, path: str) -> None:
    """Attach a detached mount to an opened target, and close the target."""
    try:
        mount.attach(made, target)
    except KernelError as error:
        raise KernelError("mount on", path, error.errno) from None
    finally:
        posix.close(target)


def null_device() -> int:
    """A detached mount of the host's /dev/null, verified to be it (CVE-2025-31133)."""
    made = mount.clone_tree("/dev/null", recursive=False)
    found = posix.fstat(made)
    if not _stat.S_ISCHR(found.st_mode) or found.st_rdev != _NULL_DEVICE:
        posix.close(made)
        raise SpecError("the host's /dev/null is not the null device (character device 1:3)")
    return made


def clone_sources(operations: Sequence[Operation]) -> dict[str, int]:
    """Detached copies of every bind's source, by target.

    Taken before the mount namespace leaves the host's peer groups, so that shared and slave propagation
    can still be had.
    """
    sources: dict[str, int] = {}
    for operation in operations:
        if isinstance(operation, rootfs.Bind):
            sources[operation.target] = _clone(operation)
    return sources


def _clone(bind: rootfs.Bind) -> int:
    if bind.create:
        make_directories(bind.source)
    try:
        if bind.owner:
            made = _clone_elsewhere(bind)
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


def _clone_elsewhere(bind: rootfs.Bind) -> int:
    """A copy of another container's tmpfs: a mount can be copied only from inside its namespace."""
    here = posix.open("/proc/self/ns/mnt", posix.O_RDONLY | posix.O_CLOEXEC)
    there = -1
    try:
        there = posix.open(bind.owner, posix.O_RDONLY | posix.O_CLOEXEC)
        _sys.setns(there, namespace.CLONE_NEWNS)
        try:
            root = posix.open("/", _DIRECTORY)
            found = mount.open_in_root(root, bind.source, _DIRECTORY)
            # whatever that container has made of the path, this is all that it can give
            if _sys.fstatfs_type(found) != _TMPFS_MAGIC:
                raise SpecError(f"the {bind.source} of {bind.owner} is not a tmpfs")
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


def make_directories(path: str, mode: int = 0o755) -> None:
    """mkdir -p on the host, for a path that the user himself gave. Raises KernelError."""
    missing = []
    above = path.rstrip("/")
    while above and not exists(above):
        missing.append(above)
        above = above.rpartition("/")[0]
    for one in reversed(missing):
        try:
            posix.mkdir(one, mode)
        except FileExistsError:
            pass  # made meanwhile
        except OSError as error:
            raise KernelError.of("mkdir", path, error) from None
