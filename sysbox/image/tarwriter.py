"""Writes tar archives of trees that may change meanwhile: ustar with pax extended headers (pax(1)).

The format is the one `tar.py` reads: names as bytes, owners as numbers, times with nanoseconds, extended
attributes as SCHILY.xattr records, hard links by name. Holes are written as zeros, since image layers have no
sparse files (OCI layer.md); unpacking turns zeros into holes again. Content is copied in pieces, whatever a
file's size.
"""

from __future__ import annotations

import _stat
import posix
from _struct import Struct

from sysbox.base import tree as trees
from sysbox.image import tar
from sysbox.linux.owners import UNMAPPED, Owners, Reader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from sysbox.base.tree import TreeEntry

_pack = Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12x").pack
_PAX = b"x"
_ZEROS = bytes(trees.CHUNK)
END = bytes(2 * tar.BLOCK)  # the mark at the end
_KINDS = {
    _stat.S_IFREG: tar.REGULAR,
    _stat.S_IFDIR: tar.DIRECTORY,
    _stat.S_IFLNK: tar.SYMLINK,
    _stat.S_IFCHR: tar.CHARACTER,
    _stat.S_IFBLK: tar.BLOCK_DEVICE,
    _stat.S_IFIFO: tar.FIFO,
}
# the attributes that an image layer keeps, with access control lists, which GNU tar leaves out
_XATTRS = ("user.", "security.capability", "system.posix_acl_")
_SMALL = 1 << 16  # bytes: a file of at most so many is read before its header is written
_UNSIZED = 1 << 26  # bytes read at most of a file without a known size, as those of procfs


class Archive:
    """An archive being written; `write` takes everything it is given or raises.

    The trees show the ids of `owners`, the archive gets those of the container. `reader` says with which
    rights they are read.
    """

    def __init__(
        self,
        write: Callable[[bytes], object],
        changed: Callable[[str], None] = lambda _: None,
        left_out: Callable[[str, str], None] = lambda _name, _why: None,
        owners: Owners = UNMAPPED,
        reader: Reader | None = None,
    ) -> None:
        self._write = write
        self._reader = reader or Reader()
        self._owners = owners
        self._changed = changed  # called with the name of a file that shrank while it was read
        self._left_out = left_out  # (name, why)
        self._links: dict[tuple[int, int], bytes] = {}

    def tree(
        self,
        found: TreeEntry,
        name: str,
        grafts: dict[str, tuple[TreeEntry, Owners]] | None = None,
        depth: int = 0,
    ) -> None:
        """Write an entry and everything below it; `grafts` are trees that replace others, by name, each
        with the owners that it shows.

        Raises OSError, FormatError for a tree that is too deep.
        """
        self.entry(found, name)
        if not found.is_directory:
            return
        trees.check_depth(depth, name)
        prefix = "" if name in ("", ".") else f"{name}/"
        with self._rights(found):
            directory = found.open()
        try:
            for inner in trees.entries(directory, name):
                path = prefix + inner.name
                try:
                    if grafts and path in grafts:
                        self._graft(*grafts[path], path, depth + 1)
                    elif trees.is_pseudo_mount(inner, found.status.st_dev):
                        self.entry(inner, path)
                        self._left_out(path, "it is a file system of the kernel's")
                    else:
                        self.tree(inner, path, grafts, depth + 1)
                except trees.Gone:
                    continue  # removed meanwhile, which is no error
                except PermissionError as error:
                    if not trees.is_pseudo(inner):
                        raise
                    self._left_out(path, str(error.strerror).lower())
        finally:
            posix.close(directory)

    def _graft(self, found: TreeEntry, owners: Owners, name: str, depth: int) -> None:
        own, self._owners = self._owners, owners
        self.tree(found, name, None, depth)
        self._owners = own

    def entry(self, found: TreeEntry, name: str) -> None:
        """Write one entry with its content; a socket is left out. Raises OSError."""
        kind = _KINDS.get(found.kind)
        if kind is None:
            return
        raw = name.encode("utf-8", "surrogateescape")
        if kind == tar.DIRECTORY:
            self._header(found, kind, raw + b"/", attributes=self._attributes(found.path))
        elif found.status.st_nlink > 1 and found.identity in self._links:
            self._header(found, tar.HARD_LINK, raw, self._links[found.identity])
        else:
            if kind == tar.REGULAR:
                with self._rights(found):
                    self._file(found, raw)
            elif kind == tar.SYMLINK:
                self._header(found, kind, raw, found.link_text().encode("utf-8", "surrogateescape"))
            else:
                self._header(found, kind, raw, attributes=self._attributes(found.path))
            if found.status.st_nlink > 1:
                self._links[found.identity] = raw

    def _rights(self, found: TreeEntry) -> AbstractContextManager[None]:
        return self._reader.rights(lambda: trees.is_pseudo(found))

    def mark(self, name: str) -> None:
        """Write an empty regular file: a whiteout (OCI layer.md)."""
        raw = name.encode("utf-8", "surrogateescape")
        self._write(_headers(tar.REGULAR, raw, b"", 0, (0, 0, 0, 0), (0, 0), []))

    def finish(self) -> None:
        """Write the end mark."""
        self._write(END)

    def _header(
        self,
        found: TreeEntry,
        kind: bytes,
        name: bytes,
        link: bytes = b"",
        size: int = 0,
        attributes: list[tuple[str, bytes]] | None = None,
    ) -> None:
        status = found.status
        device = (0, 0)
        if kind in (tar.CHARACTER, tar.BLOCK_DEVICE):
            device = (posix.major(status.st_rdev), posix.minor(status.st_rdev))
        uid, gid = self._owners.inside(status.st_uid, status.st_gid)
        owned = (_stat.S_IMODE(status.st_mode), uid, gid, status.st_mtime_ns)
        self._write(_headers(kind, name, link, size, owned, device, attributes or []))

    def _file(self, found: TreeEntry, name: bytes) -> None:
        fd = found.open()
        try:
            size = posix.fstat(fd).st_size
            unsized = trees.is_unsized(fd)
            if unsized or size <= _SMALL:
                data = _read(fd, _UNSIZED if unsized else size)
                attributes = self._attributes(fd)
                self._header(found, tar.REGULAR, name, size=len(data), attributes=attributes)
                self._write(data + bytes(-len(data) % tar.BLOCK))
                return
            self._header(found, tar.REGULAR, name, size=size, attributes=self._attributes(fd))
            for is_data, position, length in trees.segments(fd, size):
                if is_data:
                    self._data(fd, position, length, name)
                else:
                    self._zeros(length)
            self._zeros(-size % tar.BLOCK)
        finally:
            posix.close(fd)

    def _attributes(self, path: str | int) -> list[tuple[str, bytes]]:
        found = (one for one in trees.attributes(path) if one[0].startswith(_XATTRS))
        return self._owners.attributes_inside(found)

    def _data(self, fd: int, position: int, length: int, name: bytes) -> None:
        while length:
            piece = posix.pread(fd, min(length, trees.CHUNK), position)
            if not piece:
                # zeros up to the size in the header
                self._changed(name.decode("utf-8", "surrogateescape"))
                self._zeros(length)
                return
            self._write(piece)
            position += len(piece)
            length -= len(piece)

    def _zeros(self, length: int) -> None:
        while length:
            piece = min(length, len(_ZEROS))
            self._write(_ZEROS if piece == len(_ZEROS) else _ZEROS[:piece])
            length -= piece


def _read(fd: int, most: int) -> bytes:
    """The content of a file, at most `most` bytes of it. Raises OSError."""
    data = b""
    while len(data) < most:
        piece = posix.pread(fd, min(most - len(data), trees.CHUNK), len(data))
        if not piece:
            break
        data += piece
    return data


def _headers(
    kind: bytes,
    name: bytes,
    link: bytes,
    size: int,
    owned: tuple[int, int, int, int],
    device: tuple[int, int],
    attributes: list[tuple[str, bytes]],
) -> bytes:
    """The blocks before an entry's content; `owned` is (mode, uid, gid, mtime in ns)."""
    mode, uid, gid, mtime = owned
    records = []
    if len(name) > 100:
        records.append((b"path", name))
    if len(link) > 100:
        records.append((b"linkpath", link))
    for key, value, digits in ((b"uid", uid, 7), (b"gid", gid, 7), (b"size", size, 11)):
        if value >= 8**digits:
            records.append((key, b"%d" % value))
    seconds, nanoseconds = divmod(mtime, 10**9)
    if nanoseconds or not 0 <= seconds < 8**11:
        records.append((b"mtime", _decimal(mtime)))
        seconds = min(max(seconds, 0), 8**11 - 1)
    records += [(f"SCHILY.xattr.{key}".encode(), value) for key, value in attributes]
    block = _block(kind, name, link, (mode, uid % 8**7, gid % 8**7, size % 8**11, seconds), device)
    if not records:
        return block
    body = b"".join(_record(key, value) for key, value in records)
    before = _block(_PAX, b"PaxHeaders/" + name[-80:], b"", (0o644, 0, 0, len(body), 0), (0, 0))
    return before + body + bytes(-len(body) % tar.BLOCK) + block


def _block(
    kind: bytes,
    name: bytes,
    link: bytes,
    numbers: tuple[int, int, int, int, int],
    device: tuple[int, int],
) -> bytes:
    """One header; `numbers` are mode, uid, gid, size and mtime in seconds, each fits its field."""
    mode, uid, gid, size, mtime = numbers
    fields = [
        name[:100], b"%07o" % mode, b"%07o" % uid, b"%07o" % gid, b"%011o" % size, b"%011o" % mtime,
        b" " * 8, kind, link[:100], b"ustar\x0000", b"", b"", b"%07o" % device[0], b"%07o" % device[1], b"",
    ]  # fmt: skip
    fields[6] = b"%06o\0 " % sum(_pack(*fields))
    return _pack(*fields)


def _record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE\\n`, where the length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _decimal(nanoseconds: int) -> bytes:
    """Seconds with a fraction, as pax has them."""
    whole, fraction = divmod(abs(nanoseconds), 10**9)
    sign = b"-" if nanoseconds < 0 else b""
    return b"%s%d.%09d" % (sign, whole, fraction)


def plain_header(name: str, size: int, *, directory: bool = False) -> bytes:
    """The header of a file or directory of the superuser's, without a time."""
    raw = name.encode("utf-8", "surrogateescape") + (b"/" if directory else b"")
    kind, mode = (tar.DIRECTORY, 0o755) if directory else (tar.REGULAR, 0o644)
    return _headers(kind, raw, b"", size, (mode, 0, 0, 0), (0, 0), [])


def padding(size: int) -> bytes:
    """The zeros after `size` bytes of content."""
    return bytes(-size % tar.BLOCK)
