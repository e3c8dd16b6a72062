"""inotify(7): wait for changes in a directory."""

from __future__ import annotations

import posix

from sysbox.base.errors import KernelError
from sysbox.linux import _sys

# linux/inotify.h
IN_MOVED_TO = 0x80
IN_ONLYDIR = 0x01000000
_IN_CLOEXEC = 0o2000000
_IN_NONBLOCK = 0o4000
_EVENTS = 1 << 14


def watch(directory: str, mask: int) -> int:
    """A descriptor that becomes readable on an event of `mask` in the directory. Raises KernelError."""
    try:
        fd = _sys.inotify_init1(_IN_CLOEXEC | _IN_NONBLOCK)
    except OSError as error:
        raise KernelError.of("watch", directory, error) from None
    try:
        _sys.inotify_add_watch(fd, directory, mask | IN_ONLYDIR)
    except OSError as error:
        posix.close(fd)
        raise KernelError.of("watch", directory, error) from None
    return fd


def drain(fd: int) -> None:
    """Read and discard all queued events."""
    try:
        while posix.read(fd, _EVENTS):
            pass
    except BlockingIOError:
        pass
