"""Read the caller's files: configuration, credentials, policies, keys, signatures in a directory.

They are read where the caller has them: an embedded host has another /etc and /run. Each function raises
`failure` for what is there and cannot be read, so that a policy is not mistaken for none.
"""

from __future__ import annotations

import _stat
import errno
import posix

from sysbox.base.errors import FormatError, KernelError, SysboxError
from sysbox.embedded import caller_root
from sysbox.linux import _sys
from sysbox.linux.mount import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS

LIMIT = 1 << 20  # bytes of one file
# O_NONBLOCK: a FIFO in its place must not hold us up
_FLAGS = posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK
_DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY


def read(path: str, limit: int = LIMIT, failure: type[SysboxError] = FormatError) -> bytes | None:
    """A regular file of at most `limit` bytes, by its path or a link; None where there is none."""
    fd = _open(path, _FLAGS, failure)
    return None if fd is None else _content(fd, path, limit, failure)


def read_given(path: str, limit: int, failure: type[SysboxError]) -> bytes:
    """A file that the command line names, which may be a pipe of the shell's: `<(command)`."""
    fd = _open(path, posix.O_RDONLY, failure)
    if fd is None:
        raise failure(f"{path}: no such file")
    return _content(fd, path, limit, failure, kinds=(_stat.S_IFREG, _stat.S_IFIFO))


def read_below(
    directory: str, name: str, limit: int, failure: type[SysboxError] = FormatError
) -> bytes | None:
    """`read` of a file below a directory; a link that leads out of it is an error."""
    path = f"{directory}/{name}"
    top = _open(directory, posix.O_PATH | posix.O_DIRECTORY, failure)
    if top is None:
        return None
    try:
        fd = _sys.openat2(top, name, _FLAGS, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        outside = error.errno == errno.EXDEV
        why = "a link that leads out of the directory" if outside else error.strerror
        raise failure(f"{path}: {why}") from None
    finally:
        posix.close(top)
    return _content(fd, path, limit, failure)


def names(directory: str, failure: type[SysboxError] = FormatError) -> list[str]:
    """The names in a directory, sorted; [] where there is none."""
    fd = _open(directory, _DIRECTORY, failure)
    if fd is None:
        return []
    try:
        return sorted(posix.listdir(fd))
    except OSError as error:
        raise failure(f"{directory}: {error.strerror}") from None
    finally:
        posix.close(fd)


def home() -> str:
    """The caller's home directory; "" where it has none."""
    return _variable(b"HOME")


def config_directory() -> str:
    """$XDG_CONFIG_HOME or ~/.config; "" where there is neither."""
    return _variable(b"XDG_CONFIG_HOME") or (f"{home()}/.config" if home() else "")


def _variable(name: bytes) -> str:
    return posix.environ.get(name, b"").decode("utf-8", "surrogateescape")


def _open(path: str, flags: int, failure: type[SysboxError]) -> int | None:
    """A descriptor; None where nothing is there."""
    try:
        return caller_root.open_path(path, flags)
    except KernelError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise failure(f"{path}: {posix.strerror(error.errno)}") from None


def _content(
    fd: int,
    path: str,
    limit: int,
    failure: type[SysboxError],
    kinds: tuple[int, ...] = (_stat.S_IFREG,),
) -> bytes:
    """Read an open file to its end and close it."""
    try:
        if _stat.S_IFMT(posix.fstat(fd).st_mode) not in kinds:
            raise failure(f"{path}: not a file")
        data = b""
        while len(data) <= limit and (chunk := posix.read(fd, limit + 1 - len(data))):
            data += chunk
    except OSError as error:
        raise failure(f"{path}: {error.strerror}") from None
    finally:
        posix.close(fd)
    if len(data) > limit:
        raise failure(f"{path}: larger than {limit} bytes")
    return data
