"""Fills an empty volume with what the image has at its mount point, as docker does.

Both trees are walked by fd, without following a symbolic link, so nothing in the image can make it read
or write elsewhere (CVE-2018-15664).
"""

from __future__ import annotations

import _stat
import posix

from sysbox.errors import KernelError

_READ = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC
_PLAIN = posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_CLOEXEC | posix.O_NONBLOCK
_NEW = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC


def fill_if_empty(image: int, volume: int) -> None:
    """Copy the directory `image` into the directory `volume` (both O_PATH fds) unless that has content.

    Raises KernelError.
    """
    source = destination = -1
    try:
        source = posix.open(".", _READ, dir_fd=image)
        destination = posix.open(".", _READ, dir_fd=volume)
        if not posix.listdir(destination):
            _copy_owner(posix.fstat(source), destination)
            _copy_directory(source, destination)
    except OSError as error:
        raise KernelError.of("copy the image's content into the volume", "", error) from None
    finally:
        for fd in (source, destination):
            if fd >= 0:
                posix.close(fd)


def _copy_owner(status: posix.stat_result, fd: int) -> None:
    posix.fchown(fd, status.st_uid, status.st_gid)
    posix.fchmod(fd, _stat.S_IMODE(status.st_mode))


def _copy_directory(source: int, destination: int) -> None:
    for name in posix.listdir(source):
        status = posix.stat(name, dir_fd=source, follow_symlinks=False)
        if _stat.S_ISDIR(status.st_mode):
            posix.mkdir(name, 0o700, dir_fd=destination)
            inner = posix.open(name, _READ, dir_fd=source)
            made = posix.open(name, _READ, dir_fd=destination)
            _copy_owner(status, made)
            _copy_directory(inner, made)
            posix.close(inner)
            posix.close(made)
        elif _stat.S_ISLNK(status.st_mode):
            posix.symlink(posix.readlink(name, dir_fd=source), name, dir_fd=destination)
            posix.chown(
                name, status.st_uid, status.st_gid, dir_fd=destination, follow_symlinks=False
            )
        elif _stat.S_ISREG(status.st_mode):
            _copy_file(name, status, source, destination)
        elif _stat.S_ISFIFO(status.st_mode):
            posix.mkfifo(name, _stat.S_IMODE(status.st_mode), dir_fd=destination)
        # sockets and device nodes are not content


def _copy_file(name: str, status: posix.stat_result, source: int, destination: int) -> None:
    reader = posix.open(name, _PLAIN, dir_fd=source)
    writer = posix.open(name, _NEW, 0o600, dir_fd=destination)
    # not copy_file_range(2), which does not leave its file system
    while posix.sendfile(writer, reader, None, 1 << 30):
        pass
    _copy_owner(status, writer)
    posix.utime(writer, ns=(status.st_atime_ns, status.st_mtime_ns))
    posix.close(reader)
    posix.close(writer)
