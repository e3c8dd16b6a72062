"""Apply the operations of `fs/rootfs.py` inside the container's own mount namespace.

Every path of the container is opened from a root descriptor with openat2(2) and RESOLVE_IN_ROOT, so a
symbolic link in an image cannot lead outside. Every mount is made detached and then attached to a target that
was opened once (CVE-2021-30465: nothing is looked up twice).

Missing files and directories are made with their final mode, under a umask of 0. A later chmod(2) by name
could reach another file: a container that shares the volume may replace the name by a link to the host's
/etc/shadow.
"""

from __future__ import annotations

import _stat
import errno
import posix

from sysbox.base import files, tree
from sysbox.base.errors import KernelError, SpecError
from sysbox.fs import cgroups, rootfs
from sysbox.fs.sockets import Socket
from sysbox.linux import lsm, mount, unix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from sysbox.fs.rootfs import Operation

_DIRECTORY = posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC
_LINKS = 8  # symbolic links that are followed to a file which is missing
_ANY = posix.O_PATH | posix.O_CLOEXEC
_MADE = _DIRECTORY | posix.O_NOFOLLOW
_NULL = ("/dev/null", _stat.S_IFCHR, 1, 3)
_KERNELS = ("/dev/", "/proc/", "/sys/")
_UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EOVERFLOW)


class Tree:
    """A root that is being built: `root` is its O_PATH descriptor, `sources` the mounts of `sources.clone`,
    `procfs` the host's /proc, `null` a descriptor of the null device in its /dev, or -1.
    """

    def __init__(self, root: int, sources: dict[int, int], procfs: int) -> None:
        self.root = root
        self.options: tuple[tuple[str, str], ...] = ()  # as in `RootPlan`
        self.null = -1
        self.sockets: dict[str, int] = {}  # those to be bound, by path
        self.private: Any = None  # values of secrets: see secretfiles.py, which applies them
        self.user = (0, 0)  # the container's user, for mounts that are to belong to it (`:U`)
        self._sources = sources
        # writable copies of sources that are read-only, to fill new volumes, by id() of the operation
        self.fills: dict[int, int] = {}
        self._procfs = procfs
        self._top = mount.path_of(procfs, root)
        self._empty = -1
        self._usr = -1  # mount id of the image's own /usr

    def apply(self, operations: Sequence[Operation]) -> None:
        """Apply the operations in order. Raises KernelError or SpecError, naming the target."""
        for operation in operations:
            apply: Callable[[Tree, Any], None] = APPLY[type(operation)]
            apply(self, operation)

    def filesystem(self, op: rootfs.Filesystem) -> None:
        if op.ordinary:
            target = self.ordinary(op.target)
        else:
            target = self._directory_target(op.target, f"a {op.fstype}")
        options = tuple((key, value or None) for key, value in op.options)
        made = mount.new_filesystem(op.fstype, options, op.attributes)
        attach(made, target, op.target)
        lsm.label_mount(self._procfs, made, op.label)
        posix.close(made)

    def bind(self, op: rootfs.Bind) -> None:
        made = self._sources.pop(id(op))
        is_directory = _is_directory(made)
        if op.mark and files.has_content(op.mark):
            self._first_mount(op, self.fills.get(id(op), made))
        try:
            target = self._bind_target(op, is_directory=is_directory)
        except KernelError as error:
            if not op.optional or error.errno not in _UNWRITABLE:
                raise
            posix.close(made)
            return
        if op.attributes:
            mount.set_attributes(made, set=op.attributes, recursive=op.recursive)
        try:
            attach(made, target, op.target)
        except SpecError as error:
            raise SpecError(error.message.replace(" a file ", f" the file {op.source} ")) from None
        if op.propagation != mount.MS_PRIVATE:
            mount.set_attributes(made, propagation=op.propagation, recursive=op.recursive)
        if op.of_image:
            self._usr = tree.mount_id(made)
        if op.made and op.target == "/dev":
            self.null = _null_in(made)
        if op.node and op.target == _NULL[0]:
            usable = _is_null(made)
            self.null = mount.reopen(self._procfs, made, posix.O_RDWR) if usable else -1
        posix.close(made)

    def _first_mount(self, op: rootfs.Bind, volume: int) -> None:
        """Fill a new volume from the image's layers, not from another mount at the target."""
        from sysbox.fs import copyup  # few starts have a new volume

        image = -1
        try:
            if op.copy_up:
                image = mount.open_in_root(self.root, op.target, _DIRECTORY)
        except KernelError:
            pass  # ignoring: the image has no such directory
        try:
            if image >= 0 and tree.mount_id(image) not in (tree.mount_id(self.root), self._usr):
                posix.close(image)
                image = -1
            copyup.first_mount(op.mark, image, volume, self.user if op.ids == "U" else None)
        finally:
            if image >= 0:
                posix.close(image)

    def _bind_target(self, op: rootfs.Bind, *, is_directory: bool) -> int:
        if op.ordinary:
            return self.ordinary(op.target)
        if is_directory:
            return self._directory_target(op.target, f"the directory {op.source}")
        target = self.file(op.target)
        if _is_directory(target):
            posix.close(target)
            raise SpecError(f"cannot mount the file {op.source} over the directory {op.target}")
        return target

    def _directory_target(self, path: str, what: str) -> int:
        """`directory` for a mount; `what` names the mount in errors."""
        try:
            return self.directory(path)
        except SpecError as refused:
            try:
                found = self._target(path, _ANY)
            except KernelError:  # the obstacle is in a parent of the target
                raise refused from None
            is_directory = _is_directory(found)
            posix.close(found)
            if is_directory:
                raise
            raise SpecError(f"cannot mount {what} over the file {path}") from None

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
            found = tree.open_entry(parent, name)
            if found is None or found.kind != kind or found.status.st_rdev != device:
                raise SpecError(f"device {op.target}: the image has another file there")
            if is_new and (op.uid, op.gid) != (posix.geteuid(), posix.getegid()):
                posix.chown(found.path, op.uid, op.gid)
            if (op.target, kind, op.major, op.minor) == _NULL:
                # in the container's own tmpfs: a chmod(2) of it does not reach the host's node
                self.null = mount.reopen(self._procfs, found.fd, posix.O_RDWR)
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
        if (target := self._existing(op.target)) < 0:
            return  # there is nothing to hide
        made = self._empty_tmpfs() if _is_directory(target) else self._null_device()
        attach(made, target, op.target)
        posix.close(made)

    def read_only(self, op: rootfs.ReadOnly) -> None:
        if (target := self._existing(op.target)) < 0:
            return
        if op.target == "/":
            mount.set_attributes(target, set=mount.MOUNT_ATTR_RDONLY, recursive=op.recursive)
            posix.close(target)
            return
        # bind the path onto itself with the flag; if recursive, with the mounts below it
        made = mount.clone_tree("", recursive=op.recursive, dirfd=target)
        mount.set_attributes(made, set=mount.MOUNT_ATTR_RDONLY, recursive=op.recursive)
        attach(made, target, op.target)
        posix.close(made)

    def _existing(self, path: str) -> int:
        """An O_PATH descriptor of a path in the container, -1 where there is none. Raises KernelError."""
        try:
            return mount.open_in_root(self.root, path, _ANY | posix.O_NOFOLLOW)
        except KernelError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return -1
            raise

    def directory(self, path: str, mode: int = 0o755, what: str = "mount target") -> int:
        """An O_PATH descriptor of a directory in the container, made with its parents if missing.

        Raises SpecError, KernelError; `what` names the path in the messages.
        """
        try:
            return self._target(path, _DIRECTORY, what)
        except KernelError as error:
            if error.errno != errno.ENOENT:
                raise SpecError(f"{what} {path}: {posix.strerror(error.errno)}") from None
        parent, missing = self._nearest(path, what)
        for left, name in zip(range(len(missing) - 1, -1, -1), missing, strict=True):
            try:
                parent = _made_in(parent, name, 0o755 if left else mode)
            except (FileExistsError, NotADirectoryError):
                # never create the target of an image's symbolic link
                raise SpecError(f"{what} {path}: a dangling symbolic link is in the way") from None
            except OSError as error:
                raise KernelError.of("mkdir", path, error) from None
        return parent

    def _nearest(self, path: str, what: str) -> tuple[int, list[str]]:
        """The deepest existing parent of a path, and the missing names below it, in order."""
        above, missing = path.rstrip("/"), []
        while True:
            above, _, name = above.rpartition("/")
            missing.append(name)
            try:
                return self._target(above or "/", _DIRECTORY, what), missing[::-1]
            except KernelError as error:
                if error.errno != errno.ENOENT or not above:
                    raise SpecError(f"{what} {path}: {posix.strerror(error.errno)}") from None

    def file(self, path: str, links: int = _LINKS) -> int:
        """An O_PATH descriptor of a file in the container to mount on, made empty if missing.

        As in docker it is made where a symbolic link leads: that of systemd-resolved's resolv.conf leads to a
        file that is there while it runs. `links` are left to follow. Raises SpecError, KernelError.
        """
        try:
            return self._target(path, _ANY)
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
            posix.close(self.file(self._leads_to(parent, name, path, links), links - 1))
        except OSError as error:
            raise KernelError.of("create", path, error) from None
        finally:
            posix.umask(umask)
            posix.close(parent)
        return self._target(path, _ANY)

    def _leads_to(self, parent: int, name: str, path: str, links: int) -> str:
        """Where the symbolic link `name` leads, as a path in the container. Raises SpecError."""
        try:
            text = posix.readlink(name, dir_fd=parent) if links else ""
        except OSError:
            text = ""  # something else is there by now
        if not text:
            raise SpecError(f"mount target {path}: its symbolic links lead nowhere",
                            hint="remove them from the image")  # fmt: skip
        above = "" if text[0] == "/" else mount.path_of(self._procfs, parent)
        place = f"{above.removeprefix(self._top)}/{text.lstrip('/')}"
        _refuse_kernels(path, place)
        return place

    def _target(self, path: str, flags: int, what: str = "mount target") -> int:
        """A descriptor of a path in the container. A symbolic link to /dev, /proc or /sys is no mount target:
        the image could choose which of their files is covered, or what passes for a device.
        """
        fd = mount.open_in_root(self.root, path, flags)
        if what == "mount target":
            try:
                _refuse_kernels(path, mount.path_of(self._procfs, fd).removeprefix(self._top))
            except SpecError:
                posix.close(fd)
                raise
        return fd

    def _null_device(self) -> int:
        """A detached read-only mount of the container's own null device (CVE-2025-31133)."""
        if self.null < 0:
            raise SpecError("there is no null device to cover files of /proc with",
                            hint="--device must not take the place of /dev/null")  # fmt: skip
        made = mount.clone_tree("", recursive=False, dirfd=self.null)
        mount.set_attributes(made, set=mount.MOUNT_ATTR_RDONLY)
        return made

    def ordinary(self, path: str) -> int:
        """`directory` for what must be mounted at this very path. Raises SpecError for a symbolic link."""
        posix.close(self.directory(path))
        fd = mount.open_in_root(self.root, path, _ANY | posix.O_NOFOLLOW)
        if not _is_directory(fd):
            posix.close(fd)
            hint = "it must not be a symbolic link: a file system of its own is mounted there"
            raise SpecError(f"the image's {path} is not an ordinary directory", hint=hint)
        return fd

    def _empty_tmpfs(self) -> int:
        """A detached mount of an empty read-only tmpfs, which all masked directories share.

        The first directory gets the mount itself: up to Linux 6.14 only an attached mount can be copied.
        """
        if self._empty >= 0:
            return mount.clone_tree("", recursive=False, dirfd=self._empty)
        options = (("size", "4k"), ("nr_inodes", "1"), *self.options)
        self._empty = mount.new_filesystem("tmpfs", options, mount.MOUNT_ATTR_RDONLY)
        return posix.dup(self._empty)


APPLY: dict[type, Any] = {
    rootfs.Filesystem: Tree.filesystem,
    rootfs.Bind: Tree.bind,
    rootfs.Node: Tree.node,
    Socket: lambda tree, one: unix.bind_below(
        tree.sockets[one.target], tree.directory(one.above), one.name
    ),
    rootfs.Link: Tree.link,
    rootfs.Directory: Tree.make_directory,
    rootfs.Mask: Tree.mask,
    rootfs.ReadOnly: Tree.read_only,
    rootfs.Cgroups: cgroups.mount_all,
}


def _null_in(directory: int) -> int:
    """The null device in a /dev that sysbox has made; -1 where --device has put another in its place."""
    fd = posix.open("null", posix.O_RDWR | posix.O_CLOEXEC | posix.O_NOCTTY, dir_fd=directory)
    if _is_null(fd):
        return fd
    posix.close(fd)
    return -1


def _is_null(fd: int) -> bool:
    status = posix.fstat(fd)
    return (_stat.S_IFMT(status.st_mode), status.st_rdev) == (_NULL[1], posix.makedev(*_NULL[2:]))


def _made_in(parent: int, name: str, mode: int) -> int:
    """Make a directory and return its O_PATH descriptor; `parent` is closed. Raises OSError."""
    umask = posix.umask(0)
    try:
        posix.mkdir(name, mode, dir_fd=parent)
        return posix.open(name, _MADE, dir_fd=parent)
    finally:
        posix.umask(umask)
        posix.close(parent)


def _is_directory(fd: int) -> bool:
    return _stat.S_ISDIR(posix.fstat(fd).st_mode)


def _refuse_kernels(path: str, place: str) -> None:
    """Raise SpecError where a mount target leads into a file system of the kernel without naming it."""
    if f"{place}/".startswith(_KERNELS) and not f"{path}/".startswith(_KERNELS):
        hint = f"name {place} itself, if that is meant"
        raise SpecError(f"mount target {path}: it leads to {place} in the image", hint=hint)


def attach(made: int, target: int, path: str) -> None:
    """Attach a detached mount to an opened target, and close the target. Raises SpecError, KernelError."""
    try:
        mount.attach(made, target)
    except KernelError as error:
        kinds = [("file", "directory")[_is_directory(fd)] for fd in (made, target)]
        if kinds[0] != kinds[1]:
            raise SpecError(f"cannot mount a {kinds[0]} over the {kinds[1]} {path}") from None
        raise KernelError("mount on", path, error.errno) from None
    finally:
        posix.close(target)
