"""sysbox's own small files and directories: replaced as a whole, read with a size limit, removed by fd."""

from __future__ import annotations

import _stat
import errno
import posix

from sysbox.base.errors import FormatError, KernelError
from sysbox.linux import _sys
from sysbox.linux.mount import RESOLVE_NO_XDEV

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# nested directories, each of which costs a descriptor in a walk of a tree; image layers have the same limit
DEPTH = 200
LIMIT = 1 << 20  # bytes; sysbox neither reads nor writes a larger file of its own
# Errors that prove a path is absent. EIO or EMFILE prove nothing; treating them as absent would delete
# live data.
NOT_THERE = frozenset(
    (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.ENAMETOOLONG, errno.EACCES)
)
_USUAL = 4096  # bytes; malloc(3) would map and unmap a larger buffer for each file
_DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC | posix.O_NOFOLLOW
_REPLACED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_ATTEMPTS = 10  # to remove a directory while another process adds entries
_KEPT = 8  # levels of a tree whose descriptors stay open during a walk


def is_directory(path: str) -> bool:
    """Whether the path is a directory or a link to one. Raises KernelError where stat(2) does not tell."""
    try:
        return _stat.S_ISDIR(posix.stat(path).st_mode)
    except OSError as error:
        if error.errno in NOT_THERE:
            return False
        raise KernelError.of("look at", path, error) from None


def make_private(path: str) -> None:
    """mkdir -p with mode 0700. Raises KernelError."""
    above = path.rpartition("/")[0]
    if above and not is_directory(above):
        make_private(above)
    try:
        posix.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise KernelError.of("mkdir", path, error) from None


def write_file(
    path: str, data: bytes, mode: int = 0o600, *, limit: int = LIMIT, durable: bool = False
) -> None:
    """Replace a file as a whole: a crash of the writer leaves the old content or the new, never a part.

    With `durable` a power cut does the same, and after this has returned the content is the new one. For
    that the kernel needs fsync(2) of the file before the rename, and of the directory after it. Raises
    KernelError, and FormatError for more than `limit` bytes; whatever it raises, nothing else is left.
    """
    check_size(path, data, limit)
    temporary = f"{path}.{posix.getpid()}"
    try:
        fd = _create(temporary, mode)
        try:
            if mode & 0o077:
                # what a container reads too: not less what the caller's umask takes away
                posix.fchmod(fd, mode)
            write_all(fd, data)
            if durable:
                posix.fsync(fd)
        finally:
            posix.close(fd)
        posix.rename(temporary, path)
        if durable:
            sync_directory(path.rpartition("/")[0])
    except OSError as error:
        unlink(temporary)
        raise KernelError.of("write", path, error) from None
    except BaseException:  # a signal that ends this command: KeyboardInterrupt
        unlink(temporary)
        raise


def _create(path: str, mode: int) -> int:
    """A new file: one that is there, of a writer that was killed or of a user who wants to read it, goes."""
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC
    try:
        return posix.open(path, flags, mode)
    except FileExistsError:
        unlink(path)
        return posix.open(path, flags, mode)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Repeat write(2) until all of `data` is written. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[posix.write(fd, view) :]


def sync_directory(path: str) -> None:
    """Make the names in a directory durable. Raises KernelError."""
    try:
        fd = posix.open(path, _DIRECTORY)
        try:
            posix.fsync(fd)
        finally:
            posix.close(fd)
    except OSError as error:
        raise KernelError.of("sync", path, error) from None


def check_size(what: str, data: bytes, limit: int = LIMIT) -> None:
    """Raises FormatError for more than `limit` bytes. Reader and writer share this check."""
    if len(data) > limit:
        raise FormatError(f"{what}: larger than {limit} bytes")


def stale_files(directory: str) -> list[str]:
    """Paths of temporary files whose writer was killed in `write_file`; their names end in its pid."""
    try:
        found = posix.listdir(directory)
    except FileNotFoundError:
        return []
    return [
        f"{directory}/{name}"
        for name in found
        if (pid := name.rpartition(".")[2]).isdecimal() and not is_directory(f"/proc/{pid}")
    ]


def read_file(path: str, limit: int = LIMIT, *, is_ours: bool = True) -> bytes | None:
    """The content of a file; None where it does not exist. One of sysbox is no link.

    Raises FormatError where it cannot be read or is larger than `limit` bytes.
    """
    return _read(path, limit, is_ours=is_ours)[0]


def read_dated(path: str) -> tuple[bytes | None, float]:
    """`read_file`, and when this content was written, in seconds since 1970; 0 where there is no file.

    Of one and the same file: another may have its name a moment later.
    """
    return _read(path, LIMIT, dated=True)


def _read(
    path: str, limit: int, *, is_ours: bool = True, dated: bool = False
) -> tuple[bytes | None, float]:
    flags = posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK
    try:
        fd = posix.open(path, flags | posix.O_NOFOLLOW if is_ours else flags)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None, 0.0
        raise FormatError(f"{path}: {error.strerror}") from None
    try:
        changed = posix.fstat(fd).st_mtime if dated else 0.0
        data = posix.read(fd, _USUAL)
        if len(data) == _USUAL:
            data += posix.read(fd, limit + 1 - _USUAL)
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror}") from None
    finally:
        posix.close(fd)
    check_size(path, data, limit)
    return data, changed


def unlink(path: str) -> bool:
    """Remove a file; False where it did not exist. Raises KernelError."""
    try:
        posix.unlink(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise KernelError.of("unlink", path, error) from None
    return True


def names(path: str) -> list[str]:
    """The names in a directory, sorted; [] where it does not exist. Raises OSError."""
    try:
        return sorted(posix.listdir(path))
    except FileNotFoundError:
        return []


def remove_tree(path: str) -> None:
    """rm -rf by descriptor, following no link and entering no mount; an absent path is success.

    A container can make a tree of any depth, so this neither recurses, nor keeps a descriptor per level, nor
    builds paths. Raises KernelError.
    """
    above, _, name = path.rpartition("/")
    try:
        parent = posix.open(above, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        remove_at(parent, name)
    except OSError as error:
        raise KernelError.of("remove", path, error) from None
    finally:
        posix.close(parent)


def remove_at(parent: int, name: str | bytes) -> None:
    """`remove_tree` of a name in an open directory. Raises OSError."""
    for left in reversed(range(_ATTEMPTS)):
        if _remove_one(parent, name):
            return
        try:
            empty_at(parent, name, _remove_one)
        except OSError as error:
            # a process that still uses the tree has moved or replaced something in it: try again
            if error.errno not in (errno.ESTALE, *_REPLACED) or not left:
                raise
    if not _remove_one(parent, name):
        raise OSError(errno.ENOTEMPTY, posix.strerror(errno.ENOTEMPTY))


def _remove_one(parent: int, name: str | bytes) -> bool:
    """Remove a file or an empty directory; False for a directory that is not empty. Raises OSError."""
    try:
        try:
            posix.unlink(name, dir_fd=parent)
        except OSError as error:
            if error.errno not in (errno.EISDIR, errno.EPERM):
                raise
            posix.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        if error.errno == errno.ENOTDIR:
            raise PermissionError(errno.EPERM, posix.strerror(errno.EPERM)) from None
        raise
    return True


def empty_at(parent: int, name: str | bytes, remove: Callable[[int, str | bytes], bool]) -> None:
    """Call `remove` for each entry of a directory; where it returns False, for that entry's content first.

    Raises OSError, and stops: ESTALE where another process has moved a directory far below (see TreeWalk).
    """
    way = TreeWalk(posix.open(name, _DIRECTORY, dir_fd=parent))
    above: list[tuple[list[str], str]] = []  # names to do, name below
    try:
        waiting = posix.listdir(way.fd)
        while waiting or above:
            if waiting:
                entry = waiting.pop()
                if not remove(way.fd, entry) and way.down(entry):
                    above.append((waiting, entry))
                    waiting = posix.listdir(way.fd)
            else:
                way.up()
                waiting, entry = above.pop()
                remove(way.fd, entry)
    finally:
        way.close()


class TreeWalk:
    """A walk down a directory tree and up again, with few descriptors however deep it is.

    The directories of the first levels stay open. Below them only the current one is open, and ".." leads
    up; another inode there means that the directory was moved meanwhile.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._kept: list[int] = []
        self._closed: list[tuple[int, int]] = []

    def down(self, name: str) -> bool:
        """Enter a directory; False if it is gone or replaced. Raises OSError: EBUSY for a mount point."""
        try:
            inner = _sys.openat2(self.fd, name, _DIRECTORY, 0, RESOLVE_NO_XDEV)
        except OSError as error:
            if error.errno == errno.EXDEV:
                # sysbox did not mount it, and its content is not to be removed
                raise OSError(errno.EBUSY, posix.strerror(errno.EBUSY)) from None
            if error.errno not in _REPLACED:
                raise
            return False
        self.enter(inner)
        return True

    def enter(self, inner: int) -> None:
        """Make `inner`, a descriptor of a directory in the current one, the current one."""
        if len(self._kept) < _KEPT:
            self._kept.append(self.fd)
        else:
            self._closed.append(identity(self.fd))
            posix.close(self.fd)
        self.fd = inner

    def up(self) -> None:
        """Return to the directory above. Raises OSError: ESTALE where this one was moved."""
        inner = self.fd
        if not self._closed:
            self.fd = self._kept.pop()
            posix.close(inner)
            return
        self.fd = posix.open("..", _DIRECTORY, dir_fd=inner)
        posix.close(inner)
        if identity(self.fd) != self._closed.pop():
            raise OSError(errno.ESTALE, posix.strerror(errno.ESTALE))

    def close(self) -> None:
        for fd in (self.fd, *self._kept):
            posix.close(fd)


def identity(fd: int) -> tuple[int, int]:
    """(device, inode) of an open file."""
    status = posix.fstat(fd)
    return status.st_dev, status.st_ino


def has_content(path: str) -> bool:
    """Whether a file is there and not empty."""
    try:
        return posix.stat(path).st_size > 0
    except OSError:
        return False
