"""Unpack one layer into a directory of its own, through descriptors only.

Every name is opened relative to the descriptor of its parent with O_NOFOLLOW; a symbolic link on the way is
followed only by openat2(RESOLVE_IN_ROOT), so nothing outside the directory can be named, whatever the
archive says (CVE-2021-29136, CVE-2021-32760, CVE-2014-9356 and similar ones). A whiteout becomes what
overlayfs(5) understands: a character device 0:0, or an attribute of the directory (linux/overlayfs.py).

As docker does: set-user-ID bits, device nodes and fifos are kept. Nodes do no harm: the layers are below a
directory of mode 0700, and in a container the device policy of its scope decides. The only extended
attributes set are `security.capability`, `user.*` and access control lists: no image may set overlayfs' own.
"""

from __future__ import annotations

import _stat
import errno
import posix

from sysbox.base.errors import FormatError, KernelError
from sysbox.base.tree import open_entry
from sysbox.fs import policy_contexts
from sysbox.image import sparse, tar
from sysbox.image.layertree import ACL, Tree, set_attribute
from sysbox.image.tar import Header, LayerLimits, shown
from sysbox.linux import _layer, userns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sysbox.image.source import Source

_CREATE = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC
_SPECIAL = _stat.S_ISUID | _stat.S_ISGID | _stat.S_ISVTX
_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_AUFS = b".wh..wh."
_NAME_MAX = 255
_AT_ONCE = 1000  # entries, between which no signal is handled
_NODES = {tar.CHARACTER: _stat.S_IFCHR, tar.BLOCK_DEVICE: _stat.S_IFBLK, tar.FIFO: _stat.S_IFIFO}


def unpack(
    source: Source,
    root: int,
    limits: LayerLimits,
    lower: Sequence[int] = (),
    implied: list[bytes] | None = None,
) -> tuple[str, int]:
    """Unpack `source` into the empty directory `root` (a descriptor); returns (diff id, bytes of files).

    `lower` are the layers below, the highest first: a directory that the archive does not list takes its mode
    and owner from there. Where these are not unpacked yet, `implied` gets the paths of such directories, for
    `layertree.settle`, the lowest first. Raises FormatError for a malformed or hostile archive, KernelError
    for a full disk and the like; the caller then removes the directory, which holds a part.
    """
    policy_contexts.label_layer(root)
    umask = posix.umask(0)
    tree = Tree(root, lower, implied)
    try:
        size = _apply_all(tree, source, limits)
        tree.finish()
    finally:
        posix.umask(umask)
        tree.close()
    return source.drain(), size


def _apply_all(tree: Tree, source: Source, limits: LayerLimits) -> int:
    runs = _Runs(tree, source, limits)
    size = 0
    for header in tar.headers(source, limits, runs.run):
        path = clean(header.name, limits)
        tree.trim()
        try:
            _apply(tree, source, header, path, limits)
        except OSError as error:
            _explain(header, error)
        size += header.whole
        runs.after(header, path)
    return size + runs.size


class _Runs:
    """Regular files and links that follow an entry in the same directory: C makes many with one call.

    C takes an entry only if this module would make the same of it without an error, and stops at any other.
    """

    def __init__(self, tree: Tree, source: Source, limits: LayerLimits) -> None:
        self.size = 0  # bytes of files
        self._tree = tree
        self._source = source
        self._limits = limits
        self._directory: bytes | None = None
        self._prefix = b""  # of the names in it, as the archive has them

    def after(self, header: Header, path: bytes) -> None:
        """Note the directory in which the next entries may be: this one, or the one that this is in."""
        name, limits = header.name, self._limits
        above, _, base = path.rpartition(b"/")
        self._directory = None
        if path.count(b"/") + 2 > limits.depth or len(name) + _NAME_MAX + 1 > limits.path:
            return
        if header.kind == tar.DIRECTORY:
            self._directory = path
            self._prefix = name if name.endswith(b"/") else name + b"/"
        elif base and name.endswith(base):  # "d/f/" and "d/f/." are "d/f" as well
            self._directory = above
            self._prefix = name[: -len(base)]

    def run(self, entries: int, most: int) -> tuple[int, int]:
        """As `tar.headers` asks for it."""
        fd = -1 if self._directory is None else self._tree.opened(self._directory)
        if fd < 0:
            return 0, 0
        with self._source.view() as view:
            used, made, size = _layer.files(view, fd, self._prefix, min(entries, _AT_ONCE), most)
        self._source.skip_to(self._source.position + used)
        self.size += size
        return made, size


def _apply(tree: Tree, source: Source, header: Header, path: bytes, limits: LayerLimits) -> None:
    kind = header.kind
    if not path:
        if kind != tar.DIRECTORY:
            raise FormatError(f"{shown(header.name)}: the root of a layer must be a directory")
        tree.set_directory(b"", header)
        return
    parent, _, base = path.rpartition(b"/")
    if base.startswith(_WHITEOUT):
        _whiteout(tree, header, parent, base)
    elif kind == tar.REGULAR:
        _regular(tree, source, header, parent, base)
    elif kind == tar.DIRECTORY:
        tree.make(path)
        tree.set_directory(path, header)
    elif kind == tar.SYMLINK:
        _symlink(tree, header, parent, base)
    elif kind == tar.HARD_LINK:
        _hard_link(tree, header, clean(header.link, limits), parent, base)
    else:
        _node(tree, header, parent, base)


def clean(name: bytes, limits: LayerLimits) -> bytes:
    """A name as the archive has it, made relative: no leading or doubled slash, no "."; b"" is the root.

    Raises FormatError for "..", a NUL, an overlong name, and for the whiteout prefix on a directory.
    """
    if len(name) > limits.path:
        raise FormatError(f"{shown(name)}: a name longer than {limits.path} bytes")
    if b"\0" in name:
        raise FormatError(f"{shown(name)}: a name with a NUL in it")
    parts = [part for part in name.split(b"/") if part and part != b"."]
    if len(parts) > limits.depth:
        raise FormatError(f"{shown(name)}: more than {limits.depth} directories deep")
    for index, part in enumerate(parts):
        if part == b"..":
            raise FormatError(f"{shown(name)}: a name with '..' leads out of the layer")
        if len(part) > _NAME_MAX:
            raise FormatError(f"{shown(name)}: a component longer than {_NAME_MAX} bytes")
        if part.startswith(_WHITEOUT) and index < len(parts) - 1:
            raise FormatError(f"{shown(name)}: a whiteout cannot hold anything")
    return b"/".join(parts)


def _regular(tree: Tree, source: Source, header: Header, parent: bytes, base: bytes) -> None:
    directory = tree.open(parent)
    mode = header.mode
    try:
        fd = posix.open(base, _CREATE, mode & 0o777, dir_fd=directory)
    except FileExistsError:
        tree.replace(directory, base)
        fd = posix.open(base, _CREATE, mode & 0o777, dir_fd=tree.open(parent))
    try:
        sparse.write(source, fd, header)
        if header.uid or header.gid:
            posix.fchown(fd, header.uid, header.gid)
        if mode & _SPECIAL:
            posix.fchmod(fd, mode)  # after fchown(2), which clears these bits
        for key, value in header.xattrs:
            if key == b"security.capability":
                posix.setxattr(fd, key, value)
            else:
                set_attribute(fd, key, value)
        posix.utime(fd, ns=(header.mtime, header.mtime))
    finally:
        posix.close(fd)


def _symlink(tree: Tree, header: Header, parent: bytes, base: bytes) -> None:
    target = header.link
    if not target or b"\0" in target or len(target) > 4095:
        raise FormatError(f"{shown(header.name)}: a symbolic link to an impossible name")
    directory = tree.open(parent)
    try:
        posix.symlink(target, base, dir_fd=directory)
    except FileExistsError:
        tree.replace(directory, base)
        directory = tree.open(parent)
        posix.symlink(target, base, dir_fd=directory)
    _own(header, directory, base)


def _hard_link(tree: Tree, header: Header, target: bytes, parent: bytes, base: bytes) -> None:
    if not target or target == (parent + b"/" + base if parent else base):
        raise FormatError(f"{shown(header.name)}: a hard link to itself or to the root")
    where, _, name = target.rpartition(b"/")
    origin = tree.open(where, create=False)
    directory = tree.open(parent)
    status = posix.stat(name, dir_fd=origin, follow_symlinks=False)
    if _stat.S_ISDIR(status.st_mode):
        raise FormatError(
            f"{shown(header.name)}: a hard link to the directory {shown(header.link)}"
        )
    try:
        # without AT_SYMLINK_FOLLOW: a hard link to a symbolic link is not one to its target
        posix.link(name, base, src_dir_fd=origin, dst_dir_fd=directory, follow_symlinks=False)
    except FileExistsError:
        tree.replace(directory, base)
        origin, directory = tree.open(where, create=False), tree.open(parent)
        posix.link(name, base, src_dir_fd=origin, dst_dir_fd=directory, follow_symlinks=False)


def _node(tree: Tree, header: Header, parent: bytes, base: bytes) -> None:
    kind = _NODES[header.kind]
    if header.kind == tar.CHARACTER and not header.major and not header.minor:
        raise FormatError(
            f"{shown(header.name)}: a character device 0:0, which overlayfs takes for a whiteout"
        )
    if header.kind != tar.FIFO and not userns.is_initial():
        return  # no user namespace may make it, and the /dev of every container is its own
    device = posix.makedev(header.major, header.minor) if header.kind != tar.FIFO else 0
    directory = tree.open(parent)
    mode = header.mode & 0o777 | kind
    try:
        posix.mknod(base, mode, device, dir_fd=directory)
    except FileExistsError:
        tree.replace(directory, base)
        directory = tree.open(parent)
        posix.mknod(base, mode, device, dir_fd=directory)
    _finish_node(header, directory, base)


def _own(header: Header, directory: int, base: bytes) -> None:
    """Set owner and time of a symbolic link."""
    if header.uid or header.gid:
        posix.chown(base, header.uid, header.gid, dir_fd=directory, follow_symlinks=False)
    posix.utime(base, ns=(header.mtime, header.mtime), dir_fd=directory, follow_symlinks=False)


def _finish_node(header: Header, directory: int, base: bytes) -> None:
    """Set owner, mode, access control list and time of a node, which must not be opened."""
    found = open_entry(directory, base)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, posix.strerror(errno.ENOENT))
    try:
        if header.uid or header.gid:
            posix.chown(found.path, header.uid, header.gid)
        if header.mode & _SPECIAL:
            posix.chmod(found.path, header.mode)
        for key, value in header.xattrs:
            if key.startswith(ACL):
                set_attribute(found.path, key, value)
        posix.utime(found.path, ns=(header.mtime, header.mtime))
    finally:
        found.close()


def _whiteout(tree: Tree, header: Header, parent: bytes, base: bytes) -> None:
    if header.kind != tar.REGULAR:
        raise FormatError(f"{shown(header.name)}: a whiteout must be a regular file")
    if base == _OPAQUE:
        tree.hide(tree.open(parent))
        return
    if base.startswith(_AUFS):
        return  # AUFS' own bookkeeping (.wh..wh.plnk, .wh..wh.orph), which no other file system needs
    hidden = base[len(_WHITEOUT) :]
    if hidden in (b"", b".", b".."):
        raise FormatError(f"{shown(header.name)}: a whiteout of nothing")
    directory = tree.open(parent)
    try:
        posix.mknod(hidden, _stat.S_IFCHR, 0, dir_fd=directory)
    except FileExistsError:
        # a whiteout hides entries of the layers below, never those of its own layer (OCI layer.md)
        path = parent + b"/" + hidden if parent else hidden
        if _stat.S_ISDIR(posix.stat(hidden, dir_fd=directory, follow_symlinks=False).st_mode):
            tree.hide(tree.open(path))


def _explain(header: Header, error: OSError) -> None:
    name = shown(header.name)
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
        what = f" or its target {shown(header.link)}" if header.kind == tar.HARD_LINK else ""
        raise FormatError(
            f"{name}: its directory{what} is not in the layer: {error.strerror}"
        ) from None
    raise KernelError.of("unpack", name, error) from None
