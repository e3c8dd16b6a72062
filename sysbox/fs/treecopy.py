"""Copy files and trees between directories, each of which may belong to a running container.

Both sides are walked by descriptor (see `base/tree.py` and `place`): an entry that is replaced by a symbolic
link meanwhile is copied as a link or refused, never followed. sendfile(2) copies the content and leaves out
holes, so a sparse file stays sparse and a large one takes no memory.
"""

from __future__ import annotations

import _stat
import errno
import posix

from sysbox.base import tree
from sysbox.base.errors import KernelError
from sysbox.base.frozen import Frozen
from sysbox.fs import place
from sysbox.fs.place import Attributes
from sysbox.linux import mount
from sysbox.linux.owners import UNMAPPED, Owners, Reader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from sysbox.base.tree import TreeEntry

_SET_ID = _stat.S_ISUID | _stat.S_ISGID
_PIECE = 1 << 26  # bytes of one sendfile(2)
_ENDLESS = 1 << 62
_READ = "files of the kernel are read as root of the container, without a capability"
_NAMES = {_stat.S_IFSOCK: "a socket", _stat.S_IFCHR: "a device", _stat.S_IFBLK: "a device"}


class Rules(Frozen):
    """What a copy keeps besides content, mode and time."""

    # (uid, gid) of all copies, as a process in the container sees them; None keeps the originals'
    owner: tuple[int, int] | None = None
    privileged: bool = True  # keep set-user-ID bits, capabilities, access control lists
    devices: bool = True  # copy device nodes; else they are left out
    directories: bool = (
        False  # give the attributes also to directories that were there, below the first
    )
    # whose ids the two sides show: the host's, or those of a running container
    source: Owners = UNMAPPED
    destination: Owners = UNMAPPED
    readable: bool = False  # refuse files that root of the source's container may not read
    reader: Reader = Reader()  # the rights with which the source is read


class Copier:
    """One copy of a tree; hard links within the tree stay hard links."""

    def __init__(
        self,
        rules: Rules,
        left_out: Callable[[str, str], None],
        tell: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._rules = rules
        self._left_out = left_out  # called with (name, reason) for each entry that is not copied
        self._tell = tell  # called with each number of bytes that was copied
        # (device, inode) of a source -> (path of its copy below `_base`, (device, inode) of the copy)
        self._links: dict[tuple[int, int], tuple[str, tuple[int, int]]] = {}
        self._base = -1
        # (device, inode) of the destination, which must not be copied into itself
        self._own: tuple[int, int] = (0, 0)
        self.size = 0  # bytes of content

    def put(self, source: TreeEntry, parent: int, name: str) -> None:
        """Copy an entry to `name` in the open directory `parent`.

        Raises Conflict, KernelError naming the entry, FormatError for a tree that is too deep.
        """
        self._base = parent
        self._entry(source, parent, name, name, 0)

    def merge(self, source: TreeEntry, destination: int, *, whole: bool = False) -> None:
        """Copy the content of a directory into an open directory; with `whole`, also its attributes.

        Raises the same as `put`.
        """
        self._base = destination
        self._own = tree.identity(destination)
        given = self._attributes(source, source.path, source.name) if whole else None
        self._content(source, destination, "", 0)
        if given:
            place.set_attributes(destination, given, source.name, self._rules.destination)

    def _entry(
        self, source: TreeEntry, parent: int, name: str, path: str, depth: int, above: int = -1
    ) -> None:
        try:
            if source.is_directory:
                # a pseudo file system is copied only if the user named it
                entered = depth == 0 or not tree.is_pseudo_mount(source, above)
                self._directory(source, parent, name, path, depth, entered=entered)
            elif not self._linked(source, parent, name, path):
                self._other(source, parent, name, path)
        except tree.Gone as error:
            if not depth:
                raise KernelError.of("copy", tree.printable(path), error) from None
            # ignoring: an entry may disappear while its directory is copied
        except PermissionError as error:
            if not tree.is_pseudo(source):
                raise KernelError.of("copy", tree.printable(path), error) from None
            if not depth:
                number = error.errno or errno.EACCES
                raise KernelError("copy", tree.printable(path), number, hint=_READ) from None
            # some files of pseudo file systems are write-only, others are for the host alone
            self._left_out(tree.printable(path), str(error.strerror).lower())
        except OSError as error:
            raise KernelError.of("copy", tree.printable(path), error) from None

    def _directory(
        self, source: TreeEntry, parent: int, name: str, path: str, depth: int, *, entered: bool
    ) -> None:
        if source.identity == self._own:
            self._left_out(tree.printable(path), "it is where the copy goes")
            return
        given = self._attributes(source, source.path, path)
        fd, made = place.make_directory(parent, name, path, self._rules.destination)
        try:
            if depth == 0:
                self._own = tree.identity(fd)
            if entered:
                self._content(source, fd, f"{path}/", depth)
            else:
                self._left_out(tree.printable(path), "it is a file system of the kernel's")
            if made or self._rules.owner is None or self._rules.directories:
                # after the content, whose copying changes the directory's time
                place.set_attributes(fd, given, path, self._rules.destination)
        finally:
            posix.close(fd)

    def _content(self, source: TreeEntry, destination: int, prefix: str, depth: int) -> None:
        tree.check_depth(depth, prefix)
        directory = self._open(source)
        try:
            for inner in tree.entries(directory, prefix):
                path, above = prefix + inner.name, source.status.st_dev
                self._entry(inner, destination, inner.name, path, depth + 1, above)
        finally:
            posix.close(directory)

    def _linked(self, source: TreeEntry, parent: int, name: str, path: str) -> bool:
        """Make a hard link, if the source is another name of a copied file; whether that was done."""
        known = self._links.get(source.identity) if source.status.st_nlink > 1 else None
        if known is None:
            return False
        first, identity = known
        above, _, old = first.rpartition("/")
        try:
            origin = mount.open_beneath(self._base, above or ".", posix.O_PATH | posix.O_DIRECTORY)
        except KernelError:
            return False
        try:
            there = self._rules.destination
            return place.make_hard_link(origin, old, parent, name, identity, path, there)
        finally:
            posix.close(origin)

    def _other(self, source: TreeEntry, parent: int, name: str, path: str) -> None:
        kind, there = source.kind, self._rules.destination
        if kind == _stat.S_IFREG:
            self._file(source, parent, name, path)
        elif kind == _stat.S_IFLNK:
            text = source.link_text()
            given = self._attributes(source, None, path)
            place.make_symlink(parent, name, text, given, path, there)
        elif kind == _stat.S_IFIFO or (kind != _stat.S_IFSOCK and self._rules.devices):
            given = self._attributes(source, source.path, path)
            device = source.status.st_rdev
            try:
                place.make_node(parent, name, kind, device, given, path, there)
            except PermissionError as error:
                if kind == _stat.S_IFIFO:
                    raise
                # in a user namespace, as when a volume is filled, no process makes devices
                self._left_out(tree.printable(path), str(error.strerror).lower())
                return
        else:
            self._left_out(tree.printable(path), f"it is {_NAMES.get(kind, 'of an unknown kind')}")
            return
        if source.status.st_nlink > 1:
            made = posix.stat(name, dir_fd=parent, follow_symlinks=False)
            self._links.setdefault(source.identity, (path, (made.st_dev, made.st_ino)))

    def _file(self, source: TreeEntry, parent: int, name: str, path: str) -> None:
        if self._rules.readable:
            what = f"the source of {tree.printable(path)}"
            self._rules.source.check_content(source.status, what)
        reader = self._open(source)
        writer = -1
        try:
            given = self._attributes(source, reader, path)
            writer = place.make_file(parent, name, path, self._rules.destination)
            with self._rights(source):
                size = copy_content(writer, reader, self._tell)
            self.size += size
            place.set_attributes(writer, given, path, self._rules.destination)
        finally:
            for fd in (reader, writer):
                if fd >= 0:
                    posix.close(fd)

    def _rights(self, source: TreeEntry) -> AbstractContextManager[None]:
        return self._rules.reader.rights(lambda: tree.is_pseudo(source))

    def _open(self, source: TreeEntry) -> int:
        with self._rights(source):
            return source.open()

    def _attributes(self, source: TreeEntry, readable: str | int | None, path: str) -> Attributes:
        """Those of the copy; `readable` leads to the source's extended attributes.

        Raises SpecError for an id that the destination does not have.
        """
        status, rules, shown = source.status, self._rules, tree.printable(path)
        mode = _stat.S_IMODE(status.st_mode)
        owner = rules.owner or rules.source.inside(status.st_uid, status.st_gid)
        uid, gid = rules.destination.outside(*owner, shown)
        extended = tree.attributes(readable) if readable is not None else []
        extended = rules.source.attributes_inside(one for one in extended if self._keeps(one[0]))
        return Attributes(
            mode=mode if rules.privileged else mode & ~_SET_ID,
            uid=uid,
            gid=gid,
            mtime=status.st_mtime_ns,
            atime=status.st_atime_ns,
            extended=tuple(rules.destination.attributes_outside(extended, shown)),
        )

    def _keeps(self, name: str) -> bool:
        if name.startswith("user."):
            return True
        return self._rules.privileged and name.startswith(
            ("security.capability", "system.posix_acl_")
        )


def copy_content(writer: int, reader: int, tell: Callable[[int], object]) -> int:
    """Copy the content of a file, with its holes; returns the bytes of the copy.

    Files of pseudo file systems may have more content than their size, or less.
    """
    size = posix.fstat(reader).st_size
    if tree.is_unsized(reader):
        return _send(writer, reader, 0, _ENDLESS, tell)
    for is_data, position, length in tree.segments(reader, size):
        if is_data and (sent := _send(writer, reader, position, length, tell)) < length:
            size = position + sent
            break
    posix.ftruncate(writer, size)
    return size


def _send(
    writer: int, reader: int, position: int, length: int, tell: Callable[[int], object]
) -> int:
    """Copy `length` bytes to the same position in another file; returns how many there were."""
    posix.lseek(writer, position, 0)
    start = position
    while length:
        try:
            sent = posix.sendfile(writer, reader, position, min(length, _PIECE))
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS):
                raise
            # not every file system supports sendfile(2): not procfs, nor some of FUSE
            piece = posix.pread(reader, min(length, tree.CHUNK), position)
            sent = posix.write(writer, piece) if piece else 0
        if not sent:
            break
        tell(sent)
        position += sent
        length -= sent
    return position - start
