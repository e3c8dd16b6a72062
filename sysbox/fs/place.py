"""Puts entries into a directory that somebody else may be changing: by descriptor, following nothing.

As docker does, what is there is replaced by what comes, but a directory never by anything else, nor anything
else by a directory; two directories become one.
"""

from __future__ import annotations

import _stat
import errno
import posix

from sysbox.base import tree
from sysbox.base.errors import Conflict
from sysbox.base.frozen import Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_CREATE = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC
_ATTEMPTS = 16  # somebody may put things there as fast as they are replaced


class Attributes(Frozen):
    """What an entry is given besides its content."""

    mode: int  # the twelve bits of chmod(2)
    uid: int
    gid: int
    mtime: int  # nanoseconds
    atime: int = -1  # nanoseconds; -1 is the same
    extended: tuple[tuple[str, bytes], ...] = ()


def directory(parent: int, name: str, shown: str) -> tuple[int, bool]:
    """A descriptor of the directory `name`, and whether it was made, with mode 0700.

    Raises Conflict when something else is there, OSError.
    """
    try:
        posix.mkdir(name, 0o700, dir_fd=parent)
        made = True
    except FileExistsError:
        made = False
    try:
        return posix.open(name, tree.DIRECTORY, dir_fd=parent), made
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        raise Conflict(f"{tree.printable(shown)}: cannot replace a file with a directory") from None


def regular(parent: int, name: str, shown: str) -> int:
    """A descriptor to write a new file to, in place of what was there.

    A file that something is mounted over, as /etc/hosts is in a container, is written in place.

    Raises Conflict for a directory, OSError.
    """
    for _ in range(_ATTEMPTS):
        try:
            return posix.open(name, _CREATE, 0o600, dir_fd=parent)
        except FileExistsError:
            if not _clear(parent, name, shown):
                return _in_place(parent, name)
    raise OSError(errno.EEXIST, posix.strerror(errno.EEXIST))


def symlink(parent: int, name: str, text: str, given: Attributes, shown: str) -> None:
    """A symbolic link. Raises Conflict for a directory, OSError."""
    _replace(parent, name, shown, lambda: posix.symlink(text, name, dir_fd=parent))
    _give(parent, name, _stat.S_IFLNK, given)


def node(parent: int, name: str, kind: int, device: int, given: Attributes, shown: str) -> None:
    """A device node or a fifo; `kind` is S_IFCHR, S_IFBLK or S_IFIFO. Raises Conflict, OSError."""
    _replace(parent, name, shown, lambda: posix.mknod(name, kind | 0o600, device, dir_fd=parent))
    _give(parent, name, kind, given)


def hard_link(
    origin: int, old: str, parent: int, name: str, identity: tuple[int, int], shown: str
) -> bool:
    """A hard link to `old` in the directory `origin`, if that is still the file `identity` (device, inode).

    False when it is another by now, or on another file system. Raises Conflict for a directory, OSError.
    """
    try:
        _replace(
            parent,
            name,
            shown,
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


def give(fd: int, given: Attributes) -> None:
    """Owner, mode, extended attributes and time of an open file or directory, in the order that keeps them.

    A change of owner clears the set-user-ID bits and the capabilities. Raises OSError.
    """
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
                raise  # ignoring: a file system without them; a label is another's business


def _times(given: Attributes) -> tuple[int, int]:
    return given.mtime if given.atime < 0 else given.atime, given.mtime


def _give(parent: int, name: str, kind: int, given: Attributes) -> None:
    """The same for what cannot be opened.

    It is looked at first: by now the name may be a hard link to another's file, which must not change owner.
    """
    found = tree.look(parent, name)
    if found is None:
        return
    try:
        if found.kind != kind or found.status.st_nlink != 1:
            return
        posix.chown(found.path, given.uid, given.gid)
        if kind != _stat.S_IFLNK:
            posix.chmod(found.path, given.mode)
            _extend(found.path, given)
        posix.utime(found.path, ns=_times(given))
    finally:
        found.close()


def _replace(parent: int, name: str, shown: str, make: Callable[[], object]) -> None:
    for _ in range(_ATTEMPTS):
        try:
            make()
            return
        except FileExistsError:
            if not _clear(parent, name, shown):
                raise OSError(errno.EBUSY, posix.strerror(errno.EBUSY)) from None
    raise OSError(errno.EEXIST, posix.strerror(errno.EEXIST))


def _clear(parent: int, name: str, shown: str) -> bool:
    """Remove what is in the way; False if something is mounted there. Raises Conflict for a directory.

    A mount is looked for first: unlink(2) refuses only what is mounted in its caller's namespace, and would
    take the container's own mounts away with the name.
    """
    found = tree.look(parent, name)
    if found is None:
        return True
    try:
        if found.is_directory:
            raise Conflict(f"{tree.printable(shown)}: cannot replace a directory with a file")
        if tree.mount_id(found.fd) != tree.mount_id(parent):
            return False
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


def _in_place(parent: int, name: str) -> int:
    found = tree.look(parent, name)
    if found is None:
        raise OSError(errno.ENOENT, posix.strerror(errno.ENOENT))
    try:
        if found.kind != _stat.S_IFREG:
            raise OSError(errno.EBUSY, posix.strerror(errno.EBUSY))
        return posix.open(found.path, posix.O_WRONLY | posix.O_TRUNC | posix.O_CLOEXEC)
    finally:
        found.close()
