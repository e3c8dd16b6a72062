"""Open the caller's paths in the caller's own root.

On the embedded host, /etc, /var and the rest of the operating system are copies that are gone when it stops:
a file that the user copies out must not go there. So sysbox keeps a descriptor of the caller's root when it
leaves the caller's mount namespace, and of the network: a registry on the caller's loopback is there.
"""

from __future__ import annotations

import posix

from sysbox.base.errors import KernelError
from sysbox.linux import _sys, mount
from sysbox.linux.namespace import CLONE_NEWNET

_NETWORK = "/proc/self/ns/net"
_root = -1  # an O_PATH descriptor, or -1 in the caller's own mount namespace
_directory = "/"
_network = -1  # a descriptor of the caller's network namespace, or -1 in it


def keep(directory: str, *, network: bool = False) -> None:
    """Keep the current root, and a working directory (absolute), as the caller's; with `network` that too."""
    global _root, _directory, _network
    if network and _network < 0:
        _network = posix.open(_NETWORK, posix.O_RDONLY | posix.O_CLOEXEC)
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


def changed_since(paths: tuple[str, ...], nanoseconds: int) -> bool:
    """Whether one of some files of the caller's has changed since a time, in nanoseconds since the epoch."""
    for path in paths:
        try:
            fd = open_path(path, posix.O_PATH)
        except KernelError:
            continue  # it is not there
        changed = posix.fstat(fd).st_ctime_ns
        posix.close(fd)
        if changed > nanoseconds:
            return True
    return False


def working_directory() -> str:
    """The caller's working directory."""
    return posix.getcwd() if _root < 0 else _directory


class Network:
    """A context manager: inside, this process and those that it forks use the caller's network."""

    def __enter__(self) -> None:
        self._before = -1
        if _network >= 0:
            self._before = posix.open(_NETWORK, posix.O_RDONLY | posix.O_CLOEXEC)
            _enter_network(_network)

    def __exit__(self, *_: object) -> None:
        if self._before >= 0:
            try:
                _enter_network(self._before)
            finally:
                posix.close(self._before)


def _enter_network(fd: int) -> None:
    try:
        _sys.setns(fd, CLONE_NEWNET)
    except OSError as error:
        raise KernelError.of("join", "the caller's network", error) from None
