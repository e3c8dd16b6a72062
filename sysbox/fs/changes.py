"""List a container's changes: compare its writable layer with the layers of its image.

It reads the layers, not the mount, so it works whether or not the container runs. overlayfs marks what a
layer hides: a character device 0:0 hides a name, and an attribute of a directory hides its content in the
layers below (kernel: overlayfs.rst).
"""

from __future__ import annotations

import _stat
import errno
import posix

from sysbox.base import tree
from sysbox.base.frozen import Frozen
from sysbox.base.tree import TreeEntry, entries, open_entry
from sysbox.linux import overlayfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ADDED, CHANGED, DELETED = "A", "C", "D"  # docker's letters
_LINKS = 40


class Change(Frozen):
    """One line of `diff`: `kind` is A, C or D, `path` absolute."""

    kind: str
    path: str


class Layers:
    """One directory merged from several layers; the descriptors are those of the layers, highest first."""

    def __init__(self, fds: Sequence[int]) -> None:
        self._fds = tuple(fds)

    def look(self, name: str) -> TreeEntry | None:
        """The visible entry, which the caller closes; None if there is none or it is hidden."""
        for fd in self._fds:
            found = open_entry(fd, name)
            if found is None:
                continue
            if not is_whiteout(found):
                return found
            found.close()
            return None
        return None

    def below(self, name: str) -> Layers:
        """The directory `name`, merged; empty where it is not a directory. The caller closes it."""
        fds: list[int] = []
        for fd in self._fds:
            found = open_entry(fd, name)
            if found is None:
                continue
            try:
                if not found.is_directory:
                    break  # it hides the entries of lower layers
                fds.append(found.open())
                if is_opaque(fds[-1]):
                    break
            finally:
                found.close()
        return Layers(fds)

    def names(self) -> set[str]:
        """The visible names."""
        shown: set[str] = set()
        hidden: set[str] = set()
        for fd in self._fds:
            for found in entries(fd):
                if is_whiteout(found):
                    hidden.add(found.name)
                elif found.name not in hidden:
                    shown.add(found.name)
        return shown

    def close(self) -> None:
        for fd in self._fds:
            posix.close(fd)


def is_whiteout(found: TreeEntry) -> bool:
    """Whether an entry is overlayfs's mark for a deleted name."""
    return found.kind == _stat.S_IFCHR and found.status.st_rdev == 0


def is_opaque(fd: int) -> bool:
    """Whether a directory hides its content in the layers below; `fd` is readable. Raises OSError."""
    try:
        return posix.getxattr(fd, overlayfs.opaque_attribute()) == b"y"
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return False
        raise


def changes(upper: int, lower: Layers, ignored: frozenset[str]) -> list[Change]:
    """Every change in the writable layer `upper` (a readable descriptor), sorted by path.

    As in docker, a directory counts as changed when something in it is. The paths `ignored` are left out (see
    `placeholders`). Raises OSError, FormatError for a tree that is too deep.
    """
    found = list(_directory(upper, lower, "", ignored, is_new=False, depth=0))
    return sorted(found, key=lambda one: one.path)


def _directory(
    upper: int, lower: Layers, path: str, ignored: frozenset[str], *, is_new: bool, depth: int
) -> Iterator[Change]:
    tree.check_depth(depth, path)
    seen = set()
    for entry in entries(upper, path):
        seen.add(entry.name)
        if f"{path}/{entry.name}" not in ignored:
            inside = f"{path}/{entry.name}"
            yield from _entry(entry, lower, inside, ignored, is_new=is_new, depth=depth)
    if not is_new and is_opaque(upper):
        for name in lower.names() - seen:
            yield Change(kind=DELETED, path=f"{path}/{name}")


def _entry(
    entry: TreeEntry, lower: Layers, path: str, ignored: frozenset[str], *, is_new: bool, depth: int
) -> Iterator[Change]:
    before = None if is_new else lower.look(entry.name)
    try:
        if is_whiteout(entry):
            if before is not None:
                yield Change(kind=DELETED, path=path)
            return
        inner: list[Change] = []
        if entry.is_directory:
            inner = _inner(entry, before, lower, path, ignored, depth)
        if before is None:
            yield Change(kind=ADDED, path=path)
        elif inner or _differs(before.status, entry.status):
            yield Change(kind=CHANGED, path=path)
        yield from inner
    finally:
        if before is not None:
            before.close()


def _inner(
    entry: TreeEntry,
    before: TreeEntry | None,
    lower: Layers,
    path: str,
    ignored: frozenset[str],
    depth: int,
) -> list[Change]:
    is_new = before is None or not before.is_directory
    below = Layers(()) if is_new else lower.below(entry.name)
    directory = entry.open()
    try:
        return list(_directory(directory, below, path, ignored, is_new=is_new, depth=depth + 1))
    finally:
        posix.close(directory)
        below.close()


def _differs(old: posix.stat_result, new: posix.stat_result) -> bool:
    """Whether two entries differ by docker's rule, which ignores a directory's size and time."""
    if (old.st_mode, old.st_uid, old.st_gid, old.st_rdev) != (
        new.st_mode, new.st_uid, new.st_gid, new.st_rdev
    ):  # fmt: skip
        return True
    if _stat.S_ISDIR(new.st_mode):
        return False
    return (old.st_size, old.st_mtime_ns) != (new.st_size, new.st_mtime_ns)


def placeholders(upper: int, lower: Layers, targets: Sequence[str]) -> frozenset[str]:
    """The paths in the writable layer that sysbox made only to mount something on `targets`.

    These are empty files and directories that the image lacks, and their parents with nothing else in them.
    """
    candidates: set[str] = set()
    for target in targets:
        parts = resolve(target, lower).split("/")[1:]
        candidates.update("/" + "/".join(parts[: end + 1]) for end in range(len(parts)))
    written = Layers((upper,))
    found: set[str] = set()
    for path in sorted(candidates, key=lambda one: one.count("/"), reverse=True):
        entry = at(written, path)
        if entry is None:
            continue
        before = at(lower, path)
        if before is None and _is_empty(entry, path, found):
            found.add(path)
        for one in (entry, before):
            if one is not None:
                one.close()
    return frozenset(found)


def _is_empty(entry: TreeEntry, path: str, ignored: set[str]) -> bool:
    if entry.kind == _stat.S_IFREG:
        return entry.status.st_size == 0
    if not entry.is_directory:
        return False
    directory = entry.open()
    try:
        return all(f"{path}/{name}" in ignored for name in posix.listdir(directory))
    finally:
        posix.close(directory)


def resolve(path: str, lower: Layers) -> str:
    """The absolute path that `path` leads to in the image, with symbolic links followed inside it."""
    waiting = [part for part in reversed(path.split("/")) if part]
    done: list[str] = []
    links = 0
    while waiting:
        part = waiting.pop()
        if part == "..":
            del done[-1:]
        elif part != ".":
            text = _link_at(done, part, lower)
            if text is None or links >= _LINKS:
                done.append(part)
                continue
            links += 1
            if text.startswith("/"):
                done = []
            waiting += [one for one in reversed(text.split("/")) if one]
    return "/" + "/".join(done)


def _link_at(directory: list[str], name: str, lower: Layers) -> str | None:
    """The target of the symbolic link `name` in a directory of the image; None where it is not a link."""
    found = at(lower, "/".join((*directory, name)))
    if found is None:
        return None
    try:
        return found.link_text() if found.kind == _stat.S_IFLNK else None
    finally:
        found.close()


def at(layers: Layers, path: str) -> TreeEntry | None:
    """The entry at a path, which the caller closes; no symbolic link is followed."""
    *above, name = [part for part in path.split("/") if part]
    opened: Layers | None = None
    try:
        for part in above:
            inner = (opened or layers).below(part)
            if opened is not None:
                opened.close()
            opened = inner
        return (opened or layers).look(name)
    finally:
        if opened is not None:
            opened.close()
