"""Make entries in a directory that another process may be changing: by descriptor, following no link.

As in docker, a new entry replaces an existing one, but a directory never replaces anything else, nor anything
else a directory; two directories are merged. `shown` is the entry's name in errors. `owners` are those of the
container: a new entry belongs to its root at first, and what its root may not change is a Conflict.
"""

from __future__ import annotations

import _stat
import errno
import posix

from sysbox.base import tree
from sysbox.base.errors import Conflict
from sysbox.base.frozen import Frozen
from sysbox.linux.owners import UNMAPPED, Owners

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_CREATE = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC
_ATTEMPTS = 16  # another process may recreate the entry each time


class Attributes(Frozen):
    """The attributes of a new entry."""

    mode: int  # the twelve bits of chmod(2)
    uid: int  # the host's
    gid: int
    mtime: int  # nanoseconds
    atime: int = -1  # nanoseconds; -1 is that of mtime
    extended: tuple[tuple[str, bytes], ...] = ()


def make_directory(
    parent: int, name: str, shown: str, owners: Owners = UNMAPPED
) -> tuple[int, bool]:
    """(descriptor of the directory `name`, whether it was made, with mode 0700).

    Raises Conflict where another kind of file exists, OSError.
    """
    made = False
    try:
        posix.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        owners.check_parent(parent, tree.printable(shown))
        try:
            with owners.making():
                posix.mkdir(name, 0o700, dir_fd=parent)
            made = True
        except FileExistsError:
            pass
    try:
        return posix.open(name, tree.DIRECTORY, dir_fd=parent), made
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        raise Conflict(f"{tree.printable(shown)}: cannot replace a file with a directory") from None


def make_file(parent: int, name: str, shown: str, owners: Owners = UNMAPPED) -> int:
    """A writable descriptor of a new, empty file, which replaces an existing entry.

    A file with a mount on it, such as a container's /etc/hosts, is truncated and written in place. Raises
    Conflict for a directory, OSError.
    """
    owners.check_parent(parent, tree.printable(shown))
    for _ in range(_ATTEMPTS):
        try:
            with owners.making():
                return posix.open(name, _CREATE, 0o600, dir_fd=parent)
        except FileExistsError:
            if not _clear(parent, name, shown, owners):
                return _in_place(parent, name, shown, owners)
    raise OSError(errno.EEXIST, posix.strerror(errno.EEXIST))


def make_symlink(
    parent: int, name: str, text: str, given: Attributes, shown: str, owners: Owners = UNMAPPED
) -> None:
    """Make a symbolic link to `text`. Raises Conflict for a directory, OSError."""
    _replace(parent, name, shown, owners, lambda: posix.symlink(text, name, dir_fd=parent))
    _set_attributes_at(parent, name, _stat.S_IFLNK, given, owners)


def make_node(
    parent: int,
    name: str,
    kind: int,
    device: int,
    given: Attributes,
    shown: str,
    owners: Owners = UNMAPPED,
) -> None:
    """Make a device node or a FIFO; `kind` is S_IFCHR, S_IFBLK or S_IFIFO. Raises Conflict, OSError."""
    _replace(
        parent,
        name,
        shown,
        owners,
        lambda: posix.mknod(name, kind | 0o600, device, dir_fd=parent),
    )
    _set_attributes_at(parent, name, kind, given, owners)


def make_hard_link(
    origin: int,
    old: str,
    parent: int,
    name: str,
    identity: tuple[int, int],
    shown: str,
    owners: Owners = UNMAPPED,
) -> bool:
    """Make a hard link to `old` in the directory `origin`, if that is still `identity` (device, inode).

    False where it is another file by now, or no link is possible. Raises Conflict for a directory, OSError.
    """
    try:
        _replace(
            parent,
            name,
            shown,
            owners,
            lambda: posix.link(
                old, name, src_dir_fd=origin, dst_dir_fd=parent, follow_symlinks=False
            ),
        )
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.ENOENT, errno.EPERM, errno.EMLINK):
            return False
        raise
    status = posix.stat(name, dir_fd=parent, follow_symlinks=False)
    if (status.st_dev, status.st_ino) == identity:
        return True
    posix.unlink(name, dir_fd=parent)
    return False


def set_attributes(fd: int, given: Attributes, shown: str = "", owners: Owners = UNMAPPED) -> None:
    """Set the attributes of an open file or directory. Raises Conflict, OSError.

    The owner first: chown(2) clears set-user-ID bits and capabilities. The times last.
    """
    owners.check(posix.fstat(fd), tree.printable(shown))
    posix.fchown(fd, given.uid, given.gid)
    posix.fchmod(fd, given.mode)
    _extend(fd, given)
    posix.utime(fd, ns=_times(given))


def _extend(fd: int | str, given: Attributes) -> None:
    for key, value in given.extended:
        try:
            posix.setxattr(fd, key, value)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EPERM):
                raise  # ignoring: the file system lacks extended attributes, or forbids this one


def _times(given: Attributes) -> tuple[int, int]:
    return given.mtime if given.atime < 0 else given.atime, given.mtime


def _set_attributes_at(
    parent: int, name: str, kind: int, given: Attributes, owners: Owners = UNMAPPED
) -> None:
    """`set_attributes` for an entry that cannot be opened. Raises Conflict, OSError.

    It is checked first: the name may be a hard link to another file by now, whose owner must not change.
    """
    found = tree.open_entry(parent, name)
    if found is None:
        return
    try:
        if found.kind != kind or found.status.st_nlink != 1:
            return
        owners.check(found.status, tree.printable(name))
        posix.chown(found.path, given.uid, given.gid)
        if kind != _stat.S_IFLNK:
            posix.chmod(found.path, given.mode)
            _extend(found.path, given)
        posix.utime(found.path, ns=_times(given))
    finally:
        found.close()


def _replace(
    parent: int, name: str, shown: str, owners: Owners, make: Callable[[], object]
) -> None:
    owners.check_parent(parent, tree.printable(shown))
    for _ in range(_ATTEMPTS):
        try:
            with owners.making():
                make()
            return
        except FileExistsError:
            if not _clear(parent, name, shown, owners):
                raise OSError(errno.EBUSY, posix.strerror(errno.EBUSY)) from None
    raise OSError(errno.EEXIST, posix.strerror(errno.EEXIST))


def _clear(parent: int, name: str, shown: str, owners: Owners) -> bool:
    """Remove an existing entry; False if it is a mount point. Raises Conflict for a directory, OSError.

    Mounts are checked for first: unlink(2) refuses only mount points of the caller's own namespace, and would
    remove the mounts of the container along with the name.
    """
    found = tree.open_entry(parent, name)
    if found is None:
        return True
    try:
        if found.is_directory:
            raise Conflict(f"{tree.printable(shown)}: cannot replace a directory with a file")
        if tree.mount_id(found.fd) != tree.mount_id(parent):
            return False
        owners.check(found.status, tree.printable(shown))
    finally:
        found.close()
    try:
        posix.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        raise Conflict(f"{tree.printable(shown)}: cannot replace a directory with a file") from None
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        raise
    return True


def _in_place(parent: int, name: str, shown: str, owners: Owners) -> int:
    found = tree.open_entry(parent, name)
    if found is None:
        raise OSError(errno.ENOENT, posix.strerror(errno.ENOENT))
    try:
        if found.kind != _stat.S_IFREG:
            raise OSError(errno.EBUSY, posix.strerror(errno.EBUSY))
        if tree.is_pseudo(found):
            # the container chose it, and the kernel would take what is written for a request of the host's
            raise Conflict(f"{tree.printable(shown)}: a file of the kernel is mounted there")
        owners.check(found.status, tree.printable(shown))
        return posix.open(found.path, posix.O_WRONLY | posix.O_TRUNC | posix.O_CLOEXEC)
    finally:
        found.close()
