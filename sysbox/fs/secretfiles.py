"""Make the files of secrets and credentials in a container's own mount namespace: see fs/private.py.

The tmpfs is the container's: the values are in no file of the host, and go with the container's last process.
Importing this module makes `ops.Tree` know the operation.
"""

from __future__ import annotations

import posix

from sysbox.base.errors import KernelError
from sysbox.base.files import write_all
from sysbox.fs import ops
from sysbox.fs.private import Credentials, PrivateFiles
from sysbox.linux import _sys, mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.fs.private import PrivateFile

_FLAGS = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC
_NEW = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC | posix.O_NOFOLLOW
_DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC
_BLOCK = 1 << 16  # bytes: the largest page of any architecture
_HERE = "here"


class Private:
    """The values that a container's first process gets, and nothing that is written down has."""

    def __init__(
        self,
        files: dict[str, bytes],
        variables: tuple[str, ...],
        credentials: dict[str, bytes],
    ) -> None:
        """`files` are by the key of a `PrivateFile`, `variables` are "NAME=VALUE", `credentials` by name."""
        self.files = files
        self.variables = variables
        self.credentials = credentials
        self.of_user: list[int] = []  # descriptors of what is to belong to the container's user

    def give(self, uid: int, gid: int) -> None:
        """Give the container's user, who is known by now, what is for it alone. Raises OSError."""
        for fd in self.of_user:
            posix.fchown(fd, uid, gid)
            posix.close(fd)
        self.of_user = []


def put(tree: ops.Tree, op: PrivateFiles) -> None:
    """Mount the files. Raises KernelError, SpecError, naming the target."""
    values: dict[str, bytes] = tree.private.files
    size = sum(len(values[one.key]) // _BLOCK + 1 for one in op.files) * _BLOCK
    made = _new(tree, size)
    posix.mkdir(_HERE, 0o755, dir_fd=made)
    elsewhere: list[tuple[str, str]] = []
    for number, one in enumerate(op.files):
        below = one.path.removeprefix(f"{op.target}/")
        name = f"{_HERE}/{below}" if below != one.path else str(number)
        if below == one.path:
            elsewhere.append((name, one.path))
        try:
            _write(made, name, one, values[one.key])
        except OSError as error:
            raise KernelError.of("make", one.path, error) from None
    copies = _copies(tree.root, made, [_HERE, *(name for name, _ in elsewhere)])
    posix.close(made)
    if len(elsewhere) < len(op.files):
        ops.attach(copies[0], tree.ordinary(op.target), op.target)
    for copy, (_, path) in zip(copies[1:], elsewhere, strict=True):
        ops.attach(copy, tree.file(path), path)
    for copy in copies:
        posix.close(copy)


def put_credentials(tree: ops.Tree, op: Credentials) -> None:
    """Mount the credentials. Raises KernelError, SpecError, naming the target."""
    private: Private = tree.private
    size = sum(len(one) // _BLOCK + 1 for one in private.credentials.values()) * _BLOCK or _BLOCK
    made = _new(tree, size)
    posix.mkdir(_HERE, 0o500, dir_fd=made)
    directory = posix.open(_HERE, _DIRECTORY, dir_fd=made)
    for name, value in private.credentials.items():
        fd = posix.open(name, _NEW, 0o400, dir_fd=directory)
        write_all(fd, value)
        private.of_user.append(fd)
    private.of_user.append(directory)
    (copy,) = _copies(tree.root, made, [_HERE])
    posix.close(made)
    ops.attach(copy, tree.ordinary(op.target), op.target)
    posix.close(copy)


def _new(tree: ops.Tree, size: int) -> int:
    """A detached tmpfs of at most `size` bytes."""
    options = (("mode", "755"), ("size", str(size)), *tree.options)
    return mount.new_filesystem("tmpfs", options, _FLAGS)


def _write(top: int, name: str, one: PrivateFile, value: bytes) -> None:
    directory = posix.dup(top)
    *above, last = name.split("/")
    for part in above:
        try:
            posix.mkdir(part, 0o755, dir_fd=directory)
        except FileExistsError:
            pass
        inner = posix.open(part, _DIRECTORY, dir_fd=directory)
        posix.close(directory)
        directory = inner
    fd = posix.open(last, _NEW, 0o600, dir_fd=directory)
    posix.close(directory)
    write_all(fd, value)
    posix.fchown(fd, one.uid, one.gid)
    posix.fchmod(fd, one.mode)
    posix.close(fd)


def _copies(root: int, made: int, names: list[str]) -> list[int]:
    """Detached read-only mounts of parts of the detached mount `made`.

    Up to Linux 6.14 only an attached mount can be copied: it is attached to the root meanwhile.
    """
    before = posix.open(".", _DIRECTORY)
    mount.attach(made, root)
    posix.fchdir(made)
    copies = [mount.clone_tree(name, recursive=False, dirfd=made) for name in names]
    _sys.umount2(".", mount.MNT_DETACH)
    posix.fchdir(before)
    posix.close(before)
    for copy in copies:
        mount.set_attributes(copy, set=mount.MOUNT_ATTR_RDONLY)
    return copies


ops.APPLY[PrivateFiles] = put
ops.APPLY[Credentials] = put_credentials
