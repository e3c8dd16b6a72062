"""The size of a container: of its writable layer, and of its whole root file system."""

from __future__ import annotations

import _stat
import posix

from sysbox.base import tree
from sysbox.docker.human import human_size
from sysbox.fs.drivers.driver import driver_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.store import Record
    from sysbox.image.model import Image


def sizes(record: Record, image: Image | None) -> tuple[int, int]:
    """(bytes of the writable layer, bytes of the layer and the image)."""
    written = layer_size(driver_of(record).writable(record.directory))
    return written, written + (image.size if image else 0)


def size_text(record: Record, image: Image | None) -> str:
    """ "12kB (virtual 1.98MB)", as docker's `ps -s` has it."""
    written, whole = sizes(record, image)
    return f"{human_size(written)} (virtual {human_size(whole)})"


def layer_size(path: str) -> int:
    """Bytes of the files below a directory that a container may be changing; hard links count once.

    Files more than tree.DEPTH directories deep, and those removed meanwhile, do not count.
    """
    try:
        top = posix.open(path, tree.DIRECTORY)
    except OSError:
        return 0
    seen: set[tuple[int, int]] = set()
    try:
        return _below(top, seen, tree.DEPTH)
    finally:
        posix.close(top)


def _below(directory: int, seen: set[tuple[int, int]], depth: int) -> int:
    total = 0
    for name in posix.listdir(directory):
        try:
            status = posix.stat(name, dir_fd=directory, follow_symlinks=False)
            if _stat.S_ISDIR(status.st_mode):
                if depth:
                    inner = posix.open(name, tree.DIRECTORY, dir_fd=directory)
                    try:
                        total += _below(inner, seen, depth - 1)
                    finally:
                        posix.close(inner)
                continue
        except OSError:
            continue
        identity = status.st_dev, status.st_ino
        if identity not in seen:
            seen.add(identity)
            total += status.st_size
    return total
