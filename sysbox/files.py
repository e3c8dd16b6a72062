"""Small files and directories of our own: replaced as a whole, read with a cap, removed by fd."""

from __future__ import annotations

import _stat
import errno
import posix

from sysbox.errors import FormatError, KernelError

LIMIT = 1 << 20  # bytes; nothing of ours is larger
# what says that there is nothing, and not that it cannot be told just now: who takes the one for the other
# removes what is in use
NOT_THERE = frozenset(
    (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.ENAMETOOLONG, errno.EACCES)
)
_USUAL = 4096  # a larger buffer would be mapped and unmapped for each file
_ATTEMPTS = 10  # to remove a directory that somebody puts something into


def is_directory(path: str) -> bool:
    """Whether a directory (or a link to one) is there. Raises KernelError where that cannot be told."""
    try:
        return _stat.S_ISDIR(posix.stat(path).st_mode)
    except OSError as error:
        if error.errno in NOT_THERE:
            return False
        raise KernelError.of("look at", path, error) from None


def make_private(path: str) -> None:
    """mkdir -p, readable by root alone. Raises KernelError."""
    above = path.rpartition("/")[0]
    if above and not is_directory(above):
        make_private(above)
    try:
        posix.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise KernelError.of("mkdir", path, error) from None


def write_file(path: str, data: bytes, mode: int = 0o600) -> None:
    """Replace a file as a whole. Raises KernelError."""
    temporary = f"{path}.{posix.getpid()}"
    try:
        fd = posix.open(
            temporary, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC, mode
        )
        try:
            view = memoryview(data)
            while view:
                view = view[posix.write(fd, view) :]
        finally:
            posix.close(fd)
        posix.rename(temporary, path)
    except OSError as error:
        unlink(temporary)
        raise KernelError.of("write", path, error) from None


def stale_files(directory: str) -> list[str]:
    """What `write_file` left in a directory because it was killed: the writer's pid is in the name."""
    try:
        found = posix.listdir(directory)
    except FileNotFoundError:
        return []
    return [
        f"{directory}/{name}"
        for name in found
        if (pid := name.rpartition(".")[2]).isdecimal() and not is_directory(f"/proc/{pid}")
    ]


def read_file(path: str, limit: int = LIMIT) -> bytes | None:
    """A file of ours; None where there is none. Raises FormatError when it is not a plain small file."""
    try:
        fd = posix.open(
            path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW | posix.O_NONBLOCK
        )
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise FormatError(f"{path}: {error.strerror}") from None
    try:
        data = posix.read(fd, _USUAL)
        if len(data) == _USUAL:
            data += posix.read(fd, limit + 1 - _USUAL)
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror}") from None
    finally:
        posix.close(fd)
    if len(data) > limit:
        raise FormatError(f"{path}: larger than {limit} bytes")
    return data


def unlink(path: str) -> bool:
    """Remove a file; whether it was there."""
    try:
        posix.unlink(path)
    except FileNotFoundError:
        return False
    return True


def remove_tree(path: str) -> None:
    """rm -rf by fd, following no symbolic link; already gone is success. Raises KernelError."""
    above, _, name = path.rpartition("/")
    try:
        parent = posix.open(above, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _remove_at(parent, name)
    except OSError as error:
        raise KernelError.of("remove", path, error) from None
    finally:
        posix.close(parent)


def _remove_at(parent: int, name: str) -> None:
    try:
        posix.unlink(name, dir_fd=parent)
        return
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.EPERM):
            raise
    for left in reversed(range(_ATTEMPTS)):
        try:
            _empty_at(parent, name)
            posix.rmdir(name, dir_fd=parent)
        except FileNotFoundError:
            return  # somebody else removes it as well
        except OSError as error:
            # somebody who does not know yet has made something in it
            if error.errno != errno.ENOTEMPTY or not left:
                raise
        else:
            return


def _empty_at(parent: int, name: str) -> None:
    flags = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC | posix.O_NOFOLLOW
    fd = posix.open(name, flags, dir_fd=parent)
    try:
        for entry in posix.listdir(fd):
            _remove_at(fd, entry)
    finally:
        posix.close(fd)
