"""Look at what may not be there: files of /proc and /sys, and small ones. None of this raises."""

from __future__ import annotations

import posix

_MAX = 1 << 20


def read_text(path: str, limit: int = _MAX) -> str:
    """The first `limit` bytes of a file as text; "" where it cannot be read."""
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return ""
    try:
        chunks = []
        while chunk := posix.read(fd, min(limit, 1 << 16)):
            chunks.append(chunk)
            limit -= len(chunk)
            if limit <= 0:
                break
    except OSError:
        return ""
    finally:
        posix.close(fd)
    return b"".join(chunks).decode("utf-8", "surrogateescape")


def exists(path: str) -> bool:
    """Whether the path exists; a symbolic link is not followed."""
    try:
        posix.lstat(path)
    except OSError:
        return False
    return True
