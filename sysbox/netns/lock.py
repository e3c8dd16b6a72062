"""Locks and small files of the network's volatile state."""

from __future__ import annotations

import errno as _errno
import fcntl
import posix
import time

from sysbox import paths
from sysbox.errors import Conflict, KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

_STEP = 0.002  # seconds between two tries


class Lock:
    """flock(2) on a file that is only ever locked, never replaced.

    Raises Conflict when another process holds it for longer than `timeout` seconds. It goes with
    the process that holds it.
    """

    def __init__(self, path: str, timeout: float = 30.0) -> None:
        self._path = path
        self._timeout = timeout
        self._fd = -1

    def __enter__(self) -> Self:
        flags = posix.O_RDWR | posix.O_CREAT | posix.O_CLOEXEC | posix.O_NOFOLLOW
        try:
            fd = _open_below(self._path, flags)
        except OSError as error:
            raise KernelError.of("open", self._path, error) from None
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (_errno.EWOULDBLOCK, _errno.EINTR):
                    posix.close(fd)
                    raise KernelError.of("lock", self._path, error) from None
            if time.monotonic() > deadline:
                posix.close(fd)
                raise Conflict(
                    f"{self._path} has been locked by another process for {self._timeout:.0f} s",
                    hint=f"`fuser {self._path}` names it",
                )
            time.sleep(_STEP)
        self._fd = fd
        return self

    def __exit__(self, *_: object) -> None:
        posix.close(self._fd)


def read_file(path: str) -> str:
    """The whole text; "" where there is no such file. Raises KernelError otherwise."""
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise KernelError.of("open", path, error) from None
    try:
        chunks = []
        while chunk := posix.read(fd, 1 << 16):
            chunks.append(chunk)
    except OSError as error:
        raise KernelError.of("read", path, error) from None
    finally:
        posix.close(fd)
    return b"".join(chunks).decode("ascii", "replace")


def replace_file(path: str, text: str) -> None:
    """Write beside it and rename over it, so that a reader, or a crash, never meets half a file.

    The caller holds the lock of this file, so that one name for the new file is enough.
    """
    new = f"{path}.new"
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC | posix.O_NOFOLLOW
    try:
        fd = _open_below(new, flags)
        try:
            data = text.encode("ascii")
            while data:
                data = data[posix.write(fd, data) :]
        finally:
            posix.close(fd)
        posix.rename(new, path)
    except OSError as error:
        raise KernelError.of("write", path, error) from None


def _open_below(path: str, flags: int) -> int:
    try:
        return posix.open(path, flags, 0o600)
    except FileNotFoundError:
        for directory in (paths.RUN, paths.NETWORK):
            try:
                posix.mkdir(directory, 0o700)
            except FileExistsError:
                continue
        return posix.open(path, flags, 0o600)
