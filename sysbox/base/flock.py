"""The lock of the network's volatile state: leases, published ports, rules."""

from __future__ import annotations

import errno as _errno
import fcntl
import posix
import time

from sysbox.base import paths
from sysbox.base.errors import Conflict, KernelError
from sysbox.base.files import make_private

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
        fd = self._open()
        deadline = time.monotonic() + self._timeout
        while not self._try(fd):
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

    def _open(self) -> int:
        flags = posix.O_RDWR | posix.O_CREAT | posix.O_CLOEXEC | posix.O_NOFOLLOW
        try:
            try:
                return posix.open(self._path, flags, 0o600)
            except FileNotFoundError:
                make_private(paths.NETWORK)
                return posix.open(self._path, flags, 0o600)
        except OSError as error:
            raise KernelError.of("open", self._path, error) from None

    def _try(self, fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (_errno.EWOULDBLOCK, _errno.EINTR):
                return False
            posix.close(fd)
            raise KernelError.of("lock", self._path, error) from None
        return True
