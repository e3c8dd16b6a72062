"""Fills a new volume with what the image has at its mount point, as docker does: once, and never again.

Whether a volume is new stands in a file beside its content (`volumes.MARK`), which the first mount locks and
empties. One that has no such file, as version 0.1 made them at first, counts as used.

Both trees are walked by descriptor, without following a symbolic link, so nothing in the image can make it
read or write elsewhere (CVE-2018-15664).
"""

from __future__ import annotations

import posix

from sysbox.base import tree
from sysbox.base.errors import KernelError
from sysbox.base.flock import Held
from sysbox.base.tree import Found
from sysbox.fs.treecopy import Copier, Rules

_MARK = posix.O_RDWR | posix.O_NOFOLLOW | posix.O_CLOEXEC
NEW, BEGUN = b"new", b"begun"  # what stands in the mark of a volume that is not filled


def first_mount(mark: str, image: int, volume: int) -> None:
    """Copy the directory `image` into the directory `volume` (O_PATH fds) if that is new, and empty.

    An `image` of -1 is none. `mark` is the path of its mark. Two containers that start at once wait for each
    other here. Raises KernelError, FormatError for a tree that is too deep; the next start begins anew then.
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
            # in place: when its directory was changed is when the volume was made
            posix.ftruncate(fd, 0)
    except OSError as error:
        raise KernelError.of("copy the image's content into the volume", "", error) from None


def _fill(image: int, volume: int, *, begun: bool) -> None:
    source = Found("", posix.dup(image))
    destination = -1
    try:
        destination = posix.open(".", tree.DIRECTORY, dir_fd=volume)
        if begun or not posix.listdir(destination):
            Copier(Rules(), lambda _name, _why: None).merge(source, destination, whole=True)
    finally:
        source.close()
        if destination >= 0:
            posix.close(destination)
