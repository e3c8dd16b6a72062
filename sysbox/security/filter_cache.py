"""The cache of compiled seccomp filters: small files with a checksum, which nobody else could write."""

from __future__ import annotations

import _stat
import posix

from sysbox.base import paths
from sysbox.base.errors import KernelError
from sysbox.base.files import write_file

DIRECTORY = f"{paths.CACHE}/seccomp"

# O_NONBLOCK: open(2) of a FIFO would wait for a writer
_READ = posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK
_MAX_CONTENT = 1 << 18  # bytes: a program of BPF_MAXINSNS instructions, and what goes with it
_MAGIC = b"SBX2"
_TRAILER = len(_MAGIC) + 4  # the magic number and a CRC-32


def load(name: str) -> bytes | None:
    """The content of a file of the cache; None if there is none, or it is not trusted or damaged."""
    try:
        fd = posix.open(f"{DIRECTORY}/{name}", _READ | posix.O_NOFOLLOW)
    except OSError:
        return None
    try:
        status = posix.fstat(fd)
        if (
            not _stat.S_ISREG(status.st_mode)
            or status.st_uid != posix.geteuid()
            or status.st_mode & 0o077
            or not 0 <= status.st_size - _TRAILER <= _MAX_CONTENT
        ):
            return None
        return _without_checksum(read(fd, status.st_size))
    except OSError:
        return None
    finally:
        posix.close(fd)


def _with_checksum(content: bytes) -> bytes:
    import zlib

    return content + _MAGIC + zlib.crc32(content).to_bytes(4, "little")


def _without_checksum(file: bytes) -> bytes | None:
    """What `store` was given; None if the file is damaged."""
    content = file[:-_TRAILER]
    return content if file == _with_checksum(content) else None


def store(name: str, content: bytes) -> None:
    """Write a file of the cache, whole or not at all.

    ignoring: errors, since the content is only made again at the next start
    """
    try:
        for directory in (paths.STATE, paths.CACHE, DIRECTORY):
            _make_directory(directory)
        write_file(f"{DIRECTORY}/{name}", _with_checksum(content))
    except (OSError, KernelError):
        return


def _make_directory(path: str) -> None:
    try:
        posix.mkdir(path, 0o700)
    except FileExistsError:
        return


def read(fd: int, limit: int) -> bytes:
    """What can be read, at most `limit` bytes. Raises OSError."""
    chunks: list[bytes] = []
    while limit > 0 and (chunk := posix.read(fd, min(limit, 1 << 20))):
        chunks.append(chunk)
        limit -= len(chunk)
    return b"".join(chunks)
