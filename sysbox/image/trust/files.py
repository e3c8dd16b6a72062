"""The administrator's files: policy.json, keys, registries.d, signatures in a directory.

They are read where the caller has them: an embedded host has another /etc.
"""

from __future__ import annotations

import _stat
import errno
import posix

from sysbox.base.errors import KernelError, TrustError
from sysbox.embedded import caller_root
from sysbox.linux import _sys
from sysbox.linux.mount import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS

# O_NONBLOCK: a FIFO would hang the open
_FLAGS = posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK
_DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY


def read(path: str, limit: int) -> bytes | None:
    """A file of at most `limit` bytes, by its path or a link; None if there is none. Raises TrustError."""
    fd = _open(path, _FLAGS)
    return None if fd is None else _content(fd, path, limit)


def names(directory: str) -> list[str]:
    """The names in a directory, sorted; [] where there is none. Raises TrustError."""
    fd = _open(directory, _DIRECTORY)
    if fd is None:
        return []
    try:
        return sorted(posix.listdir(fd))
    except OSError as error:
        raise TrustError(f"{directory}: {error.strerror}") from None
    finally:
        posix.close(fd)


def read_below(directory: str, name: str, limit: int) -> bytes | None:
    """A file below a directory; a link that leads out of it is an error. None if there is none.

    Raises TrustError.
    """
    path = f"{directory}/{name}"
    top = _open(directory, posix.O_PATH | posix.O_DIRECTORY)
    if top is None:
        return None
    try:
        fd = _sys.openat2(top, name, _FLAGS, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        outside = error.errno == errno.EXDEV
        why = "a link that leads out of the directory" if outside else error.strerror
        raise TrustError(f"{path}: {why}") from None
    finally:
        posix.close(top)
    return _content(fd, path, limit)


def _open(path: str, flags: int) -> int | None:
    """A descriptor; None where nothing is there. Raises TrustError."""
    try:
        return caller_root.open_path(path, flags)
    except KernelError as error:
        if error.errno == errno.ENOENT:
            return None
        raise TrustError(f"{path}: {posix.strerror(error.errno)}") from None


def _content(fd: int, path: str, limit: int) -> bytes:
    """Read an open file to its end and close it."""
    try:
        if not _stat.S_ISREG(posix.fstat(fd).st_mode):
            raise TrustError(f"{path}: not a file")
        data = b""
        while len(data) <= limit and (chunk := posix.read(fd, limit + 1 - len(data))):
            data += chunk
    except OSError as error:
        raise TrustError(f"{path}: {error.strerror}") from None
    finally:
        posix.close(fd)
    if len(data) > limit:
        raise TrustError(f"{path}: larger than {limit} bytes")
    return data
