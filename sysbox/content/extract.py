"""Unpacks a tar archive into a directory of a container, as `sysbox cp -` and docker do.

Unlike an image's layer (`image/layer.py`), the directory has entries already. A symbolic link among the
parents of an entry is followed inside the container's root, as tar would do there; the entry itself replaces
one of its name.
"""

from __future__ import annotations

import _stat
import errno
import posix

from sysbox.base import tree
from sysbox.base.errors import FormatError, KernelError
from sysbox.fs import place
from sysbox.fs.place import Attributes
from sysbox.image import sparse, tar
from sysbox.image.tar import Header, LayerLimits, shown
from sysbox.linux import mount
from sysbox.linux.owners import UNMAPPED, Owners

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.image.source import Source

_HANDLE = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC
_NODES = {tar.CHARACTER: _stat.S_IFCHR, tar.BLOCK_DEVICE: _stat.S_IFBLK, tar.FIFO: _stat.S_IFIFO}
_LIMITS = LayerLimits(bytes=1 << 62, entries=1 << 40)
_MOST_HELD = 128 << 20  # bytes of names and attributes that are kept to the end
_KEPT = ("user.", "security.capability", "system.posix_acl_")


class Extractor:
    """One archive going into the directory `path` below the root `root` (a descriptor).

    The archive has the container's ids, the root shows those of `owners`.
    """

    def __init__(
        self, root: int, path: str, owners: Owners = UNMAPPED, limits: LayerLimits = _LIMITS
    ) -> None:
        self._root = root
        self._path = path.rstrip("/")
        self._owners = owners
        self._limits = limits
        self._deferred: dict[str, Attributes] = {}
        self._held = 0  # bytes
        self._open = ("", -1)

    def run(self, source: Source) -> None:
        """Unpack all of it. Raises FormatError, Conflict, SpecError, KernelError naming the entry."""
        try:
            for header in tar.headers(source, self._limits):
                name = clean(header.name)
                try:
                    self._entry(source, header, name)
                except OSError as error:
                    raise KernelError.of("unpack", shown(header.name), error) from None
            source.drain()
            self._finish()
        finally:
            self._close_parent()

    def _entry(self, source: Source, header: Header, name: str) -> None:
        if not name:
            return  # the destination itself, which is not changed
        above, _, base = name.rpartition("/")
        given = self._attributes(header)
        parent, there = self._parent(above), self._owners
        if header.kind == tar.DIRECTORY:
            fd, _ = place.make_directory(parent, base, name, there)
            posix.close(fd)
            self._held += len(name) + sum(len(value) for _, value in given.extended)
            if self._held > _MOST_HELD:
                raise FormatError(
                    f"the archive's directories have more than {_MOST_HELD} bytes of names"
                )
            self._deferred[name] = given
        elif header.kind == tar.REGULAR:
            fd = place.make_file(parent, base, name, there)
            try:
                sparse.write(source, fd, header)
                place.set_attributes(fd, given, name, there)
            finally:
                posix.close(fd)
        elif header.kind == tar.SYMLINK:
            text = header.link.decode("utf-8", "surrogateescape")
            place.make_symlink(parent, base, text, given, name, there)
        elif header.kind == tar.HARD_LINK:
            self._hard_link(clean(header.link), parent, base, name)
        else:
            kind = _NODES[header.kind]
            device = posix.makedev(header.major, header.minor) if kind != _stat.S_IFIFO else 0
            place.make_node(parent, base, kind, device, given, name, there)

    def _hard_link(self, target: str, parent: int, base: str, name: str) -> None:
        if target == name:
            return  # tar writes this for a file that is named twice
        above, _, old = target.rpartition("/")
        origin = mount.open_in_root(self._root, f"{self._path}/{above}", _HANDLE)
        try:
            found = tree.open_entry(origin, old)
            if found is None or found.is_directory:
                raw = name.encode("utf-8", "surrogateescape")
                raise FormatError(f"{shown(raw)}: a hard link to something that is not a file")
            identity = found.identity
            found.close()
            there = self._owners
            if not place.make_hard_link(origin, old, parent, base, identity, name, there):
                raise OSError(errno.EXDEV, posix.strerror(errno.EXDEV))
        finally:
            posix.close(origin)

    def _parent(self, path: str) -> int:
        """The directory of an entry, made if the archive does not list it; the last one is kept open."""
        if self._open[1] >= 0 and self._open[0] == path:
            return self._open[1]
        self._close_parent()
        where = f"{self._path}/{path}"
        try:
            fd = mount.open_in_root(self._root, where, _HANDLE)
        except KernelError as error:
            if error.errno != errno.ENOENT or not path:
                raise
            above, _, base = path.rpartition("/")
            made, is_new = place.make_directory(self._parent(above), base, path, self._owners)
            if is_new:
                posix.fchmod(made, 0o755)
            posix.close(made)
            fd = mount.open_in_root(self._root, where, _HANDLE)
            self._close_parent()
        self._open = (path, fd)
        return fd

    def _finish(self) -> None:
        """Set the attributes of directories, the deepest first: their entries have changed their times."""
        for name in sorted(self._deferred, reverse=True):
            try:
                fd = mount.open_in_root(
                    self._root, f"{self._path}/{name}", _HANDLE | posix.O_NOFOLLOW
                )
            except KernelError:
                continue  # a later entry has replaced it
            try:
                place.set_attributes(fd, self._deferred[name], name, self._owners)
            finally:
                posix.close(fd)

    def _attributes(self, header: Header) -> Attributes:
        name = shown(header.name)
        uid, gid = self._owners.outside(header.uid, header.gid, name)
        extended = [
            (key, value)
            for raw, value in header.xattrs
            if (key := raw.decode("utf-8", "surrogateescape")).startswith(_KEPT)
            and not key.startswith("user.overlay.")
        ]
        return Attributes(
            mode=header.mode,
            uid=uid,
            gid=gid,
            mtime=header.mtime,
            extended=tuple(self._owners.attributes_outside(extended, name)),
        )

    def _close_parent(self) -> None:
        if self._open[1] >= 0:
            posix.close(self._open[1])
        self._open = ("", -1)


def clean(name: bytes) -> str:
    """An entry's name without ".", doubled and leading slashes. Raises FormatError for ".." and NUL."""
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts or b"\0" in name:
        raise FormatError(f"{shown(name)}: a name that leads out of the destination")
    if len(parts) > tree.DEPTH:
        raise FormatError(f"{shown(name)}: more than {tree.DEPTH} directories deep")
    return b"/".join(parts).decode("utf-8", "surrogateescape")
