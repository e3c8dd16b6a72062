"""Files of the store: capped reads, atomic writes.

Everything here is hot: a resolve reads two files and takes no lock. State is 0700/0600, so that no user of
the host can run a setuid program of an image or read its files (CVE-2021-41091).
"""

from __future__ import annotations

import posix

from sysbox.base.errors import FormatError, KernelError
from sysbox.base.files import check_size

_CHUNK = 1 << 16


def read(path: str, limit: int) -> bytes | None:
    """The whole of a file of at most `limit` bytes; None where it does not exist.

    Raises FormatError for a larger one, KernelError for anything else.
    """
    try:
        fd = posix.open(
            path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW | posix.O_NONBLOCK
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KernelError.of("open", path, error) from None
    try:
        return _read_all(fd, path, limit)
    finally:
        posix.close(fd)


def _read_all(fd: int, path: str, limit: int) -> bytes:
    chunks = []
    left = limit
    while chunk := posix.read(fd, _CHUNK):
        left -= len(chunk)
        if left < 0:
            raise FormatError(f"{path}: larger than {limit} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def write(path: str, data: bytes, limit: int) -> None:
    """Put `data` at `path` so that a crash leaves the old content or the new, never a part.

    The temporary file lies beside the target under a name that `sweep` knows (`.tmp-`). `limit` is the
    reader's: FormatError for more bytes.
    """
    check_size(path, data, limit)
    directory, _, name = path.rpartition("/")
    temporary = f"{directory}/.tmp-{name}-{posix.getpid()}"
    try:
        fd = posix.open(
            temporary,
            posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_NOFOLLOW | posix.O_CLOEXEC,
            0o600,
        )
        try:
            write_all(fd, data)
            posix.fsync(fd)
        finally:
            posix.close(fd)
        posix.rename(temporary, path)
        sync_directory(directory)
    except OSError as error:
        unlink(temporary)
        raise KernelError.of("write", path, error) from None


def write_all(fd: int, data: bytes | memoryview) -> None:
    """write(2) until everything is written; raises OSError."""
    view = memoryview(data)
    while view:
        view = view[posix.write(fd, view) :]


def sync_directory(path: str) -> None:
    """Make the names in a directory durable."""
    fd = posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    try:
        posix.fsync(fd)
    finally:
        posix.close(fd)


def unlink(path: str) -> bool:
    """Remove a file; False where it was gone already."""
    try:
        posix.unlink(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise KernelError.of("unlink", path, error) from None
    return True


def names(path: str) -> list[str]:
    """The names in a directory, sorted; none where it does not exist."""
    try:
        return sorted(posix.listdir(path))
    except FileNotFoundError:
        return []


def make_directory(path: str) -> None:
    """A private directory and its parents; one that exists stays as it is."""
    try:
        posix.mkdir(path, 0o700)
    except FileExistsError:
        return
    except FileNotFoundError:
        parent = path.rpartition("/")[0]
        if not parent:
            raise
        make_directory(parent)
        make_directory(path)
    except OSError as error:
        raise KernelError.of("mkdir", path, error) from None
