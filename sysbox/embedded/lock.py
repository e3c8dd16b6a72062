"""One start or stop of a host at a time."""

from __future__ import annotations

import fcntl
import os

from sysbox.base import files
from sysbox.embedded import state


class Lock:
    """An exclusive lock on a host's name; its file is gone when nobody holds or awaits it."""

    def __init__(self, name: str) -> None:
        self._path = f"{state.RUN}/{name}.lock"
        self._fd = -1

    def __enter__(self) -> Lock:
        while True:
            files.make_private(state.RUN)
            try:
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                continue  # the last host was stopped just now, and the directory with it
            fcntl.flock(fd, fcntl.LOCK_EX)
            # whoever held it may have removed the file while we waited
            if _same_file(self._path, fd):
                self._fd = fd
                return self
            os.close(fd)

    def __exit__(self, *_: object) -> None:
        files.unlink(self._path)
        os.close(self._fd)
        try:
            os.rmdir(state.RUN)
        except OSError:
            pass  # another host is there, or another command: ignoring


def _same_file(path: str, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False
