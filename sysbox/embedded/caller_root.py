"""Open the caller's paths in the caller's own root.

On the embedded host, /etc, /var and the rest of the operating system are copies that are gone when it stops:
a file that the user copies out must not go there. So sysbox keeps a descriptor of the caller's root when it
leaves the caller's mount namespace.
"""

from __future__ import annotations

import posix

from sysbox.base.errors import KernelError
from sysbox.linux import mount

_root = -1  # an O_PATH descriptor, or -1 in the caller's own mount namespace
_directory = "/"


def keep(directory: str) -> None:
    """Keep the current root, and a working directory (absolute), as the caller's."""
    global _root, _directory
    if _root < 0:
        _root = posix.open("/", posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
        _directory = directory


def open_path(path: str, flags: int) -> int:
    """Open a path that the caller gave, never one from a container. Raises KernelError."""
    try:
        if _root < 0:
            return posix.open(path or ".", flags | posix.O_CLOEXEC)
        whole = path if path.startswith("/") else f"{_directory}/{path}"
        return mount.openat2(_root, whole, flags, 0, mount.RESOLVE_IN_ROOT)
    except OSError as error:
        raise KernelError.of("open", path, error) from None


def working_directory() -> str:
    """The caller's working directory."""
    return posix.getcwd() if _root < 0 else _directory
