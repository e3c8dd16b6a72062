"""COPY and ADD: put what they name into a stage's root, by the rules of the Dockerfile reference.

    a directory            its content goes into the destination, which is made if it is missing
    a file                 becomes the destination, or goes into it where that is a directory or ends with /
    several sources        the destination is a directory
    an archive, with ADD   is unpacked into the destination

Missing directories above the destination are made. Symbolic links in the destination are followed within the
stage's root, those in a source within its tree, and those below a source are copied as links.
"""

from __future__ import annotations

import _stat
import posix

from sysbox.base import tree
from sysbox.base.errors import FormatError, KernelError, SpecError
from sysbox.base.files import remove_at, write_all
from sysbox.base.frozen import Frozen
from sysbox.build import content_sources, root
from sysbox.build.content_sources import Origin
from sysbox.build.digests import Digest, Meter
from sysbox.content.extract import Extractor
from sysbox.fs import place
from sysbox.fs.place import Attributes
from sysbox.fs.treecopy import Copier, Rules
from sysbox.image import tar
from sysbox.image.source import stream_source
from sysbox.linux import mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.base.tree import TreeEntry
    from sysbox.image.source import Source
    from sysbox.image.tar import Header

_LINKS = 40  # as in the kernel
_MOST = 64 << 30  # bytes that an archive may unpack to
_RATIO, _FLOOR = 100, 1 << 30


class Target(Frozen):
    """Where a COPY or ADD puts things, and how."""

    path: str  # absolute in the stage's root, without ".."
    is_directory: bool  # it ends with a slash, or there are several sources
    owner: tuple[int, int] | None = None  # (uid, gid) of everything; None keeps the source's
    mode: Callable[[int, bool], int] | None = None  # (mode, whether a directory) -> mode


def normal(path: str, workdir: str) -> str:
    """The absolute path of a destination, without ".", ".." and doubled slashes."""
    parts: list[str] = []
    whole = path if path.startswith("/") else f"{workdir or '/'}/{path}"
    for part in whole.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def demands_directory(path: str) -> bool:
    """Whether a destination as written can only be a directory."""
    return path.endswith("/") or path.rpartition("/")[2] in (".", "..")


class Copied(Frozen):
    """What is learned of a copy while it is made."""

    meter: Meter
    digest: Digest | None = None  # of what was copied, None where nobody can change the source


class Selected(Copier):
    """A copy without what an ignore file or --exclude leave out, with modes as --chmod says."""

    def __init__(
        self, rules: Rules, origin: Origin, path: str, target: Target, copied: Copied
    ) -> None:
        super().__init__(rules, lambda _name, _why: None, copied.meter.data)
        self._origin = origin
        self._path = path  # of the source in its tree
        self._target = target
        self._meter, self._digest = copied.meter, copied.digest
        self._extended: tuple[tuple[str, bytes], ...] = ()  # of the last file

    def begin(self, source: TreeEntry) -> None:
        """The source: of the context's own directory nothing is copied but the content."""
        if self._digest:
            self._digest.begin(self._path)
            if source.is_directory and (self._path or not self._origin.confined):
                self._digest.entry("", source)

    def _entry(
        self, source: TreeEntry, parent: int, name: str, path: str, depth: int, above: int = -1
    ) -> None:
        self._meter.entry()
        shown = path if depth else ""
        digest = self._digest
        if digest and source.kind != _stat.S_IFREG:
            digest.entry(shown, source)
        self._extended = tuple(tree.attributes(source.path)) if source.status.st_nlink > 1 else ()
        super()._entry(source, parent, name, path, depth, above)
        if digest and source.kind == _stat.S_IFREG:
            self._digest_of_copy(digest, source, parent, name, shown)

    def _digest_of_copy(
        self, digest: Digest, source: TreeEntry, parent: int, name: str, shown: str
    ) -> None:
        made = tree.open_entry(parent, name)
        if made is None:
            return  # the source was gone
        try:
            fd = made.open()
            try:
                digest.file(shown, source, self._extended, fd)
            finally:
                posix.close(fd)
        finally:
            made.close()

    def _content(self, source: TreeEntry, destination: int, prefix: str, depth: int) -> None:
        tree.check_depth(depth, prefix)
        directory = source.open()
        try:
            for inner in tree.entries(directory, prefix, self._origin.most):
                path, above = prefix + inner.name, source.status.st_dev
                whole = f"{self._path}/{path}" if self._path else path
                if not content_sources.is_left_out(self._origin, inner, whole):
                    self._entry(inner, destination, inner.name, path, depth + 1, above)
        finally:
            posix.close(directory)

    def _attributes(self, source: TreeEntry, readable: str | int | None, path: str) -> Attributes:
        given = super()._attributes(source, readable, path)
        self._extended = given.extended
        if self._target.mode is None:
            return given
        return given.replace(mode=self._target.mode(given.mode, source.is_directory))


def copy(stage: int, origin: Origin, path: str, target: Target, copied: Copied) -> None:
    """Copy one source into the root `stage` (a descriptor). Raises SysboxError."""
    source = origin.entry(path)
    try:
        copier = Selected(Rules(owner=target.owner, directories=True), origin, path, target, copied)
        copier.begin(source)
        if source.is_directory:
            fd, made = root.make_directory(stage, target.path, target.owner or (0, 0))
            # the context's own directory is the caller's affair: what it becomes has 0755, as with docker
            whole = made and not (origin.confined and not path)
            try:
                copier.merge(source, fd, whole=whole)
            finally:
                posix.close(fd)
            return
        parent, name = slot(stage, target, path.rpartition("/")[2])
        try:
            copier.put(source, parent, name)
        finally:
            posix.close(parent)
    finally:
        source.close()


def write(stage: int, name: str, data: bytes, target: Target, *, mode: int, mtime: int) -> None:
    """Make one file with this content, as of a here-document. Raises SysboxError."""

    def fill(fd: int) -> None:
        write_all(fd, data)

    _new_file(stage, name, fill, target, mode, mtime)


def store(stage: int, name: str, source: int, target: Target, *, mode: int, mtime: int) -> None:
    """Make one file with the content of an open one, as of a URL. Raises SysboxError."""

    def fill(fd: int) -> None:
        posix.lseek(source, 0, 0)
        while data := posix.read(source, tree.CHUNK):
            write_all(fd, data)

    _new_file(stage, name, fill, target, mode, mtime)


def _new_file(
    stage: int, name: str, fill: Callable[[int], None], target: Target, mode: int, mtime: int
) -> None:
    parent, base = slot(stage, target, name)
    try:
        fd = place.make_file(parent, base, base)
        try:
            fill(fd)
            _finish(fd, target, mode, mtime)
        finally:
            posix.close(fd)
    except OSError as error:
        raise KernelError.of("write", tree.printable(name), error) from None
    finally:
        posix.close(parent)


def _finish(fd: int, target: Target, mode: int, mtime: int) -> None:
    uid, gid = target.owner or (0, 0)
    mode = target.mode(mode, False) if target.mode else mode
    place.set_attributes(fd, Attributes(mode=mode, uid=uid, gid=gid, mtime=mtime))


def slot(stage: int, target: Target, name: str) -> tuple[int, str]:
    """(descriptor of the directory, name in it) for a file `name`; a final link is followed.

    Raises SpecError, KernelError.
    """
    owner = target.owner or (0, 0)
    path = target.path
    if target.is_directory or is_directory(stage, path):
        path = f"{path.rstrip('/')}/{name}"
    for _ in range(_LINKS):
        above, _, base = path.rpartition("/")
        parent, _ = root.make_directory(stage, above or "/", owner)
        found = tree.open_entry(parent, base)
        if found is None:
            return parent, base
        try:
            if found.kind != _stat.S_IFLNK:
                return parent, base
            text = found.link_text()
        finally:
            found.close()
        posix.close(parent)
        path = normal(text, above or "/")
        if is_directory(stage, path):
            path = f"{path.rstrip('/')}/{name}"
    raise SpecError(f"{target.path}: too many symbolic links")


def is_directory(stage: int, path: str) -> bool:
    """Whether a path of the root is a directory, links followed within it."""
    try:
        posix.close(mount.open_in_root(stage, path, posix.O_PATH | posix.O_DIRECTORY))
    except KernelError:
        return False
    return True


def archive_of(origin: Origin, path: str) -> int:
    """A descriptor of the local archive that a source is, -1 where it is none. Raises as `Origin.open`."""
    found = origin.entry(path)
    try:
        if found.kind != _stat.S_IFREG:
            return -1
        fd = found.open()
    finally:
        found.close()
    if is_archive(fd):
        return fd
    posix.close(fd)
    return -1


def is_archive(fd: int) -> bool:
    """Whether an open file is a tar archive, compressed or not: whether it has a valid first header."""
    source = None
    try:
        posix.lseek(fd, 0, 0)
        source = stream_source(posix.dup(fd), "the archive", _MOST)
        return next(tar.headers(source, tar.LayerLimits(bytes=_MOST)), None) is not None
    except Exception:  # noqa: BLE001 (whatever is wrong with it, it is no archive: it is copied as it is)
        return False
    finally:
        if source is not None:
            source.close()
        posix.lseek(fd, 0, 0)


class Replacing(Extractor):
    """Unpacks into a root where an entry of another kind gives way, as with docker."""

    def _entry(self, source: Source, header: Header, name: str) -> None:
        if name:
            above, _, base = name.rpartition("/")
            parent = self._parent(above)
            found = tree.open_entry(parent, base)
            if found is not None:
                is_directory = found.is_directory
                found.close()
                if is_directory != (header.kind == tar.DIRECTORY):
                    remove_at(parent, base)
        super()._entry(source, header, name)


def unpack(stage: int, fd: int, title: str, target: Target) -> None:
    """Unpack an archive into the destination; it is closed then. Raises SysboxError.

    It may unpack to a hundred times its size and 1 GiB, and have as many entries as a layer.
    """
    posix.close(root.make_directory(stage, target.path, target.owner or (0, 0))[0])
    limit = min(_MOST, _RATIO * posix.fstat(fd).st_size + _FLOOR)
    source = stream_source(fd, title, limit)
    try:
        Replacing(stage, target.path, limits=tar.LayerLimits(bytes=limit)).run(source)
    except FormatError as error:
        if title in error.message:
            raise
        raise FormatError(f"{title}: {error.message}", hint=error.hint) from None
    finally:
        source.close()
