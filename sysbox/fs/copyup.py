"""Fills a new volume with what the image has at its mount point, as docker does.

Both trees are walked by descriptor, without following a symbolic link, so nothing in the image can make it
read or write elsewhere (CVE-2018-15664).
"""

from __future__ import annotations

import posix

from sysbox import trees
from sysbox.errors import KernelError
from sysbox.fs.treecopy import Copier, Rules
from sysbox.trees import Found


def fill_if_empty(image: int, volume: int) -> None:
    """Copy the directory `image` into the directory `volume` (both O_PATH fds) unless that has content.

    Raises KernelError, FormatError for a tree that is too deep.
    """
    destination = -1
    source = Found("", posix.dup(image))
    try:
        destination = posix.open(".", trees.DIRECTORY, dir_fd=volume)
        if not posix.listdir(destination):
            Copier(Rules(), lambda _name, _why: None).merge(source, destination, whole=True)
    except OSError as error:
        raise KernelError.of("copy the image's content into the volume", "", error) from None
    finally:
        source.close()
        if destination >= 0:
            posix.close(destination)
