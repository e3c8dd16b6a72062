"""Paths as whoever called us means them.

On the embedded host, /etc, /var and the rest of the operating system are copies that are gone when it stops:
what is copied out must not end there. So the caller's root is kept when its mount namespace is left.
"""

from __future__ import annotations

import posix

from sysbox.base.errors import KernelError
from sysbox.linux import _sys
from sysbox.linux.mount import RESOLVE_IN_ROOT

_root = -1  # an O_PATH descriptor, or -1 where nothing was left
_directory = "/"


def keep(directory: str) -> None:
    """Keep the root of this moment, and a working directory (absolute)."""
    global _root, _directory
    if _root < 0:
        _root = posix.open("/", posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
        _directory = directory


def open_path(path: str, flags: int) -> int:
    """Open a path of the caller's, never one of a container's. Raises KernelError."""
    try:
        if _root < 0:
            return posix.open(path or ".", flags | posix.O_CLOEXEC)
        whole = path if path.startswith("/") else f"{_directory}/{path}"
        return _sys.openat2(_root, whole, flags | posix.O_CLOEXEC, 0, RESOLVE_IN_ROOT)
    except OSError as error:
        raise KernelError.of("open", path, error) from None


def working_directory() -> str:
    """The caller's working directory."""
    return posix.getcwd() if _root < 0 else _directory
