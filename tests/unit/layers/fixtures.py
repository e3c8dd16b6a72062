"""A store of a test's own, a decoy beside it, and what a directory holds as plain values."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sysbox.image import archive
from sysbox.image.catalog import Catalog
from sysbox.image.model import Image

Tree = dict[str, tuple[object, ...]]


def tree(root: Path | str) -> Tree:
    """Everything below `root` with content, owner, mode, time and attributes; times of links too."""
    found: Tree = {".": describe(str(root))}
    for directory, directories, names in os.walk(root):
        for name in [*directories, *names]:
            path = os.path.join(directory, name)
            found[os.path.relpath(path, root)] = describe(path)
    return found


def describe(path: str) -> tuple[object, ...]:
    """One file as it is."""
    status = os.lstat(path)
    content: object = None
    if stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    elif stat.S_ISREG(status.st_mode):
        content = Path(path).read_bytes()
    attributes = {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
    }
    return (
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_mtime_ns,
        status.st_rdev,
        content,
        tuple(sorted(attributes.items())),
    )


def make_decoy(path: Path) -> Path:
    """A directory that hostile archives aim at."""
    (path / "below").mkdir(parents=True)
    (path / "secret").write_text("secret")
    (path / "secret").chmod(0o600)
    (path / "below" / "link").symlink_to("../secret")
    return path


def import_bytes(store: Catalog, data: bytes, name: str = "test", **rest: object) -> Image:
    """Import an archive from memory."""
    fd = os.memfd_create("archive")
    try:
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        return archive.import_tar(store, fd, name, **rest)  # type: ignore[arg-type]
    finally:
        os.close(fd)


def names(store: Catalog) -> set[str]:
    """All files and directories of a store but its locks, contents of layers not included."""
    found = set()
    for directory, directories, files in os.walk(store.root):
        relative = os.path.relpath(directory, store.root)
        found |= {os.path.normpath(f"{relative}/{name}") for name in [*directories, *files]}
        if relative == "layers":
            directories.clear()
    return {name for name in found if not name.endswith(".lock")}
