"""Read configuration where the caller keeps it: an embedded host has another /etc and /run."""

from __future__ import annotations

import errno
import os

from sysbox.base.errors import FormatError, KernelError
from sysbox.embedded import caller_root

LIMIT = 1 << 20  # bytes of one file


def read(path: str, limit: int = LIMIT) -> bytes | None:
    """The content of a regular file; None where it does not exist. Raises KernelError, FormatError."""
    try:
        # a FIFO in its place must not hold us up
        fd = caller_root.open_path(path, os.O_RDONLY | os.O_NONBLOCK)
    except KernelError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise
    with open(fd, "rb") as file:
        try:
            data = file.read(limit + 1) or b""
        except OSError as error:
            raise KernelError.of("read", path, error) from None
    if len(data) > limit:
        raise FormatError(f"{path}: larger than {limit} bytes")
    return data


def names(directory: str) -> list[str]:
    """The names in a directory, sorted; [] where it does not exist. Raises KernelError."""
    try:
        fd = caller_root.open_path(directory, os.O_RDONLY | os.O_DIRECTORY)
    except KernelError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return []
        raise
    try:
        return sorted(os.listdir(fd))
    finally:
        os.close(fd)


def home() -> str:
    """The caller's home directory; "" where it has none."""
    return os.environ.get("HOME", "")


def config_directory() -> str:
    """$XDG_CONFIG_HOME or ~/.config; "" where there is neither."""
    given = os.environ.get("XDG_CONFIG_HOME", "")
    return given or (f"{home()}/.config" if home() else "")
