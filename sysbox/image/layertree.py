"""The directory that a layer is unpacked into: its open directories, and attributes that are set last."""

from __future__ import annotations

import _stat
import errno
import posix

from sysbox.base.errors import FormatError, KernelError
from sysbox.base.files import remove_at
from sysbox.image.tar import Header, shown
from sysbox.linux import overlayfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

ACL = b"system.posix_acl_"
_DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC
_OPEN_DIRECTORIES = 128
_DEFAULT = b"system.posix_acl_default"
MOST_HELD = 128 << 20  # bytes of names and access control lists that are kept to the end


def set_attribute(fd: int | str, key: bytes, value: bytes) -> None:
    """Set a `user.*` attribute or an access control list. Skips any other, and on a file system without
    extended attributes these as well. Raises OSError.
    """
    if not key.startswith((b"user.", ACL)) or key.startswith(b"user.overlay."):
        return
    try:
        posix.setxattr(fd, key, value)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise


class Deferred:
    """Attributes of a directory that are set after its entries, which would inherit or change them."""

    __slots__ = ("acl", "mode", "mtime")

    def __init__(self, header: Header) -> None:
        self.mode = header.mode
        self.mtime = header.mtime
        self.acl = next((value for key, value in header.xattrs if key == _DEFAULT), b"")


class Tree:
    """The directory being filled: open directories by path, and attributes that are set last."""

    def __init__(self, root: int, lower: Sequence[int], implied: list[bytes] | None = None) -> None:
        self._root = root
        self._lower = lower
        self._implied = implied
        self._open: dict[bytes, int] = {b"": root}
        self._deferred: dict[bytes, Deferred] = {}
        self._held = 0  # bytes

    def open(self, path: bytes, *, create: bool = True) -> int:
        """The descriptor of a directory; with `create`, missing ones are made. Raises OSError."""
        fd = self._open.get(path)
        if fd is not None:
            return fd
        parent, _, name = path.rpartition(b"/")
        above = self.open(parent, create=create)
        try:
            fd = posix.open(name, _DIRECTORY, dir_fd=above)
        except FileNotFoundError:
            if not create:
                raise
            fd = self._make_unlisted(above, path, name)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            fd = self._open_obstructed(above, path, name)
        self._open[path] = fd
        return fd

    def opened(self, path: bytes) -> int:
        """The descriptor of a directory that is open, -1 if it is not."""
        return self._open.get(path, -1)

    def trim(self) -> None:
        """Close all directories when many are open (RLIMIT_NOFILE); called between two entries."""
        if len(self._open) > _OPEN_DIRECTORIES:
            self._close_all()

    def make(self, path: bytes) -> None:
        """Make a directory at `path`, or keep the one that exists. Raises OSError."""
        parent, _, name = path.rpartition(b"/")
        above = self.open(parent)
        try:
            posix.mkdir(name, 0o755, dir_fd=above)
        except FileExistsError:
            status = posix.stat(name, dir_fd=above, follow_symlinks=False)
            if _stat.S_ISDIR(status.st_mode):
                return
            self.replace(above, name)
            above = self.open(parent)
            posix.mkdir(name, 0o755, dir_fd=above)
            if _is_whiteout(status):
                self.hide(self.open(path))

    def set_directory(self, path: bytes, header: Header) -> None:
        """Set owner and mode now; times, and what new entries would inherit, are set by `finish`."""
        fd = self.open(path)
        posix.fchown(fd, header.uid, header.gid)
        posix.fchmod(fd, header.mode & ~_stat.S_ISGID)
        deferred = Deferred(header)
        for key, value in header.xattrs:
            if key != _DEFAULT:
                set_attribute(fd, key, value)
        self._hold(len(path) + len(deferred.acl))
        self._deferred[path] = deferred

    def replace(self, directory: int, name: bytes) -> None:
        """Remove what has the name of a new entry. Descriptors from `open` are closed afterwards."""
        if _stat.S_ISDIR(posix.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            remove_at(directory, name)
        else:
            posix.unlink(name, dir_fd=directory)
        self._close_all()

    def hide(self, fd: int) -> None:
        """Make a directory opaque: overlayfs then shows nothing of the layers below in it."""
        posix.setxattr(fd, overlayfs.opaque_attribute(), b"y")

    def finish(self) -> None:
        """Set the attributes that are set last. Raises KernelError."""
        self._close_all()
        for path in sorted(self._deferred, reverse=True):
            try:
                self._set_deferred(path, self._deferred[path])
            except OSError as error:
                # a later entry has replaced the directory, or a symbolic link that led to it
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    raise KernelError.of("unpack", shown(path), error) from None
        if self._implied is not None:
            self._implied[:] = [path for path in self._implied if path not in self._deferred]

    def close(self) -> None:
        """Close the directories that `open` opened."""
        self._close_all()

    def _hold(self, size: int) -> None:
        self._held += size
        if self._held > MOST_HELD:
            raise FormatError(
                f"the layer has directories with more than {MOST_HELD} bytes of names"
            )

    def _set_deferred(self, path: bytes, deferred: Deferred) -> None:
        self.trim()
        fd = self.open(path, create=False)
        if deferred.mode & _stat.S_ISGID:
            posix.fchmod(fd, deferred.mode)
        if deferred.acl:
            set_attribute(fd, _DEFAULT, deferred.acl)
        posix.utime(fd, ns=(deferred.mtime, deferred.mtime))

    def _close_all(self) -> None:
        for path, fd in self._open.items():
            if path:
                posix.close(fd)
        self._open = {b"": self._root}

    def _make_unlisted(self, above: int, path: bytes, name: bytes) -> int:
        """Make a directory that the archive does not list, with mode and owner as in the layers below."""
        posix.mkdir(name, 0o755, dir_fd=above)
        fd = posix.open(name, _DIRECTORY, dir_fd=above)
        if self._implied is not None:
            self._hold(len(path))
            self._implied.append(path)
        _take_after(fd, path, self._lower)
        return fd

    def _open_obstructed(self, above: int, path: bytes, name: bytes) -> int:
        """A parent that is not a directory: follow a link inside the layer, undo a whiteout, else refuse."""
        status = posix.stat(name, dir_fd=above, follow_symlinks=False)
        if _stat.S_ISLNK(status.st_mode):
            from sysbox.linux import mount

            within = path.decode("utf-8", "surrogateescape")
            try:
                return mount.open_in_root(self._root, within, _DIRECTORY & ~posix.O_NOFOLLOW)
            except KernelError as error:
                raise OSError(error.errno, posix.strerror(error.errno)) from None
        if _is_whiteout(status):
            posix.unlink(name, dir_fd=above)
            fd = self._make_unlisted(above, path, name)
            self.hide(fd)
            return fd
        raise NotADirectoryError(errno.ENOTDIR, "Not a directory")


def _is_whiteout(status: posix.stat_result) -> bool:
    return _stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def settle(root: int, implied: Sequence[bytes], lower: Sequence[int]) -> None:
    """Give directories that an archive only implied the mode and owner that they have in the layers below.

    For a layer that was unpacked before those were there; `root` and `lower` are as for `layer.unpack`, and
    the layers below are settled already. Raises OSError.
    """
    for path in implied:
        found = _open_parent(root, path)
        if found is None:
            continue
        above, name = found
        try:
            fd = posix.open(name, _DIRECTORY, dir_fd=above)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                continue  # a later entry has replaced it
            raise
        finally:
            posix.close(above)
        try:
            _take_after(fd, path, lower)
        finally:
            posix.close(fd)


def _take_after(fd: int, path: bytes, lower: Sequence[int]) -> None:
    """Give a directory mode and owner of the one that `path` is in the highest layer that has it."""
    for root in lower:
        status = _look(root, path)
        if status is not None:
            if _stat.S_ISDIR(status.st_mode):
                posix.fchown(fd, status.st_uid, status.st_gid)
                posix.fchmod(fd, _stat.S_IMODE(status.st_mode))
            return


def _look(root: int, path: bytes) -> posix.stat_result | None:
    """The status of `path` in a lower layer, no link followed; None if it does not exist."""
    found = _open_parent(root, path)
    if found is None:
        return None
    above, name = found
    try:
        return posix.stat(name, dir_fd=above, follow_symlinks=False)
    except OSError:
        return None
    finally:
        posix.close(above)


def _open_parent(root: int, path: bytes) -> tuple[int, bytes] | None:
    """(descriptor, name) of a path below `root`, no link followed; None if a directory is missing."""
    fd = posix.open(".", _DIRECTORY, dir_fd=root)
    try:
        *parents, name = path.split(b"/")
        for part in parents:
            below = posix.open(part, _DIRECTORY, dir_fd=fd)
            posix.close(fd)
            fd = below
    except OSError:
        posix.close(fd)
        return None
    return fd, name
