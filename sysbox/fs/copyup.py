"""Fill a new volume with the image's content at its mount point, once, as docker does.

A file beside the volume's content (`volumes.MARK`) tells whether the volume is new; the first mount locks and
empties it. A volume without this file, from an early version 0.1, counts as used.

Both trees are walked by descriptor, without following a symbolic link, so an image cannot redirect a read or
a write (CVE-2018-15664).
"""

from __future__ import annotations

import posix

from sysbox.base import tree
from sysbox.base.errors import KernelError
from sysbox.base.flock import Held
from sysbox.base.tree import TreeEntry
from sysbox.fs.treecopy import Copier, Rules

_MARK = posix.O_RDWR | posix.O_NOFOLLOW | posix.O_CLOEXEC
NEW, BEGUN = b"new", b"begun"  # content of the mark while the volume is not filled


def first_mount(mark: str, image: int, volume: int) -> None:
    """Copy the directory `image` into the directory `volume` (O_PATH descriptors) if it is new and empty.

    `image` -1 copies nothing. `mark` is the path of the volume's mark, whose lock makes containers that start
    at the same time wait for each other. Raises KernelError, FormatError for a tree that is too deep; then
    the next start copies again.
    """
    try:
        fd = posix.open(mark, _MARK)
    except FileNotFoundError:
        return
    try:
        with Held(fd):
            written = posix.pread(fd, 16, 0)
            if written in (NEW, BEGUN) and image >= 0:
                posix.pwrite(fd, BEGUN, 0)
                _fill(image, volume, begun=written == BEGUN)
            # truncated, not removed: the mtime of its directory is the volume's time of creation
            posix.ftruncate(fd, 0)
    except OSError as error:
        raise KernelError.of("copy the image's content into the volume", "", error) from None


def _fill(image: int, volume: int, *, begun: bool) -> None:
    source = TreeEntry("", posix.dup(image))
    destination = -1
    try:
        destination = posix.open(".", tree.DIRECTORY, dir_fd=volume)
        if begun or not posix.listdir(destination):
            Copier(Rules(), lambda _name, _why: None).merge(source, destination, whole=True)
    finally:
        source.close()
        if destination >= 0:
            posix.close(destination)
