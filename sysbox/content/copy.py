"""`sysbox cp`: files and directories into, out of and between containers, by docker's rules for paths.

    a file       onto a name that is free, or a file          becomes that
                 into a directory                             keeps its name
    a directory  onto a name that is free                     becomes that
                 into a directory                             keeps its name; with /. only its content comes
                 onto a file                                  is refused

A trailing slash demands a directory, the parent of the destination must exist, a symbolic link given as the
destination is followed, one given as the source is copied unless `follow`.
"""

from __future__ import annotations

import _stat
import errno
import posix

from sysbox.base import tree
from sysbox.base.errors import Conflict, KernelError, NotFound, SpecError
from sysbox.base.frozen import Frozen
from sysbox.base.tree import TreeEntry
from sysbox.embedded import caller_root
from sysbox.fs.treecopy import Copier, Rules
from sysbox.linux import _sys, mount
from sysbox.linux.owners import UNMAPPED, Owners, Reader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_HANDLE = posix.O_PATH | posix.O_CLOEXEC
_DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC
_KERNELS = {mount.PROC_SUPER_MAGIC: "proc", mount.SYSFS_MAGIC: "sysfs"}
_LINKS = 40  # symbolic links that are followed at most, as in the kernel


class Side(Frozen):
    """One end of a copy: a path on the host, or one in a container, whose root is a descriptor."""

    path: str
    root: int = -1  # -1 is the host
    container: str = ""  # its name, for messages
    owners: Owners = UNMAPPED  # whose ids the root shows
    reader: Reader = Reader()  # with which rights its files are read
    # of a stopped container: where something is mounted while it runs, and whether that is a tmpfs,
    # which does not exist now
    mounts: tuple[tuple[str, bool], ...] = ()

    @property
    def shown(self) -> str:
        return f"{self.container}:{self.path}" if self.root >= 0 else self.path

    def open(self, path: str, flags: int) -> int:
        """Open a path on this side. Raises KernelError."""
        if self.root >= 0:
            return mount.open_in_root(self.root, path, flags)
        return caller_root.open_path(path, flags)

    @property
    def content_only(self) -> bool:
        """Whether the path names the content of a directory: "DIR/.", ".", "/"."""
        return self.path.rstrip("/").rpartition("/")[2] in ("", ".")

    def check_exists(self, path: str) -> None:
        """Raise Conflict for a path in a tmpfs of a container that does not run: nobody would ever see it."""
        above = [one for one in self.mounts if f"{path}/".startswith(f"{one[0].rstrip('/')}/")]
        target, is_tmpfs = max(above, key=lambda one: len(one[0]), default=("", False))
        if is_tmpfs:
            raise Conflict(
                f"{self.shown}: {target} is a tmpfs, which is there only while the container runs",
                hint=f"`sysbox start {self.container}` first",
            )

    @property
    def name(self) -> str:
        """The last component, which becomes the name of the copy."""
        return self.whole.rpartition("/")[2]

    @property
    def whole(self) -> str:
        """The path without ".", ".." and doubled slashes, absolute; "/" for the root."""
        parts: list[str] = []
        path = self.path
        if not path.startswith("/"):
            path = f"{caller_root.working_directory()}/{path}"
        for part in path.split("/"):
            if part == "..":
                del parts[-1:]
            elif part not in ("", "."):
                parts.append(part)
        return "/" + "/".join(parts)


def copy(
    source: Side,
    destination: Side,
    rules: Rules,
    *,
    follow: bool = False,
    left_out: Callable[[str, str], None] = lambda _name, _why: None,
    tell: Callable[[int], object] = lambda _: None,
) -> int:
    """Copy; returns the number of bytes. `tell` is called with the size of each piece, in bytes.

    Raises NotFound, SpecError, Conflict, KernelError; SpecError too where the source itself is left out.
    """
    found = open_source(source, follow=follow)
    target = -1
    try:
        rules = rules.replace(
            source=source.owners,
            destination=destination.owners,
            readable=source.root >= 0 and destination.root >= 0,
            reader=source.reader,
        )
        if not found.is_directory:
            left_out = refusing(source, found, devices=rules.devices)
        copier = Copier(rules, left_out, tell)
        target, name = _destination(destination, found, source)
        _check_place(target, name, destination)
        if name:
            copier.put(found, target, name)
        else:
            copier.merge(found, target)
    except KernelError as error:
        raise explained(error, destination) from None
    finally:
        found.close()
        if target >= 0:
            posix.close(target)
    return copier.size


def refusing(source: Side, found: TreeEntry, *, devices: bool = True) -> Callable[[str, str], None]:
    """What to call where the very thing that was named is left out: nothing would be copied at all."""

    def refuse(_name: str, why: str) -> None:
        named = found.kind in (_stat.S_IFCHR, _stat.S_IFBLK) and not devices
        hint = "`cp -a` copies device nodes" if named else ""
        raise SpecError(f"{source.shown}: is not copied: {why}", hint=hint)

    return refuse


def _check_place(directory: int, name: str, side: Side) -> None:
    """Raise Conflict for a tmpfs that is not there, SpecError for a new file of procfs or sysfs."""
    if side.mounts:
        # by links too: the kernel names the directory by its path in the detached root
        where = posix.readlink(f"/proc/self/fd/{directory}")
        side.check_exists(f"{where.rstrip('/')}/{name}")
    kind = _KERNELS.get(_sys.fstatfs_type(directory))
    if kind and name:
        there = tree.open_entry(directory, name)
        if there is None:
            raise SpecError(f"{side.shown}: {kind} takes no files: they are the kernel's")
        there.close()


def explained(error: KernelError, destination: Side) -> Exception:
    """A mount on which root of the container cannot write as a SpecError with a hint; others as they are."""
    if destination.root >= 0 and error.errno == errno.EOVERFLOW:
        return SpecError(
            f"{destination.shown}: root of the container has no id in that mount",
            hint="its `idmap=` leaves out root; name the file by its path on the host",
        )
    if error.errno != errno.EROFS or destination.root < 0:
        return error
    return SpecError(
        f"{destination.shown}: it is mounted read-only in the container",
        hint="it was made with --read-only, or with `:ro` on that mount, or `:noidmap` and does not run",
    )


def open_source(source: Side, *, follow: bool) -> TreeEntry:
    """Open the entry to copy. Raises NotFound, SpecError, KernelError."""
    directory = source.content_only or source.path.endswith("/")
    nofollow = 0 if follow or directory else posix.O_NOFOLLOW
    try:
        found = TreeEntry(source.name, source.open(source.path, _HANDLE | nofollow))
    except KernelError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise NotFound(f"{source.shown}: {posix.strerror(error.errno).lower()}") from None
        raise
    if directory and not found.is_directory:
        found.close()
        raise SpecError(f"{source.shown}: not a directory")
    return found


def open_directory(destination: Side) -> int:
    """Open the directory that an archive is unpacked into.

    Raises NotFound, SpecError, Conflict, KernelError.
    """
    destination.check_exists(destination.whole)
    try:
        found = destination.open(destination.path, _DIRECTORY)
    except KernelError as error:
        if error.errno == errno.ENOENT:
            raise NotFound(f"{destination.shown}: no such directory") from None
        if error.errno == errno.ENOTDIR:
            raise SpecError(
                f"{destination.shown}: not a directory, which an archive needs"
            ) from None
        raise
    try:
        _check_place(found, "", destination)
    except BaseException:
        posix.close(found)
        raise
    return found


def _destination(side: Side, found: TreeEntry, source: Side) -> tuple[int, str]:
    """An open directory, and the name of the copy in it; "" copies the source's content into it."""
    side.check_exists(side.whole)
    try:
        directory = side.open(side.path, _DIRECTORY)
    except KernelError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise
    else:
        if found.is_directory and (source.content_only or not source.name):
            return directory, ""
        return directory, source.name
    parent, name, there = _slot(side)
    if there is None and (side.path.endswith("/") or side.content_only) and not found.is_directory:
        posix.close(parent)
        raise NotFound(
            f"{side.shown}: no such directory", hint="without the slash, it is the new file's name"
        )
    if there is not None and (found.is_directory or side.path.endswith("/")):
        posix.close(parent)
        if found.is_directory:
            raise SpecError(f"{side.shown}: a directory cannot be copied onto a file")
        raise SpecError(f"{side.shown}: not a directory")
    return parent, name


def _slot(side: Side) -> tuple[int, str, TreeEntry | None]:
    """(open directory, name, existing entry) that a path leads to, with all symbolic links followed.

    The entry is closed; None: there is none.
    Raises NotFound, SpecError, KernelError.
    """
    path = side.path
    for _ in range(_LINKS):
        above, _, name = path.rstrip("/").rpartition("/")
        if name in ("", ".", ".."):
            raise NotFound(f"{side.shown}: no such directory")
        above = above or ("/" if path.startswith("/") else "")
        try:
            parent = side.open(above, _DIRECTORY)
        except KernelError as error:
            raise _no_parent(side, above, error) from None
        there = tree.open_entry(parent, name)
        if there is None:
            return parent, name, None
        try:
            if there.kind != _stat.S_IFLNK:
                return parent, name, there
            text = there.link_text()
        finally:
            there.close()
        posix.close(parent)
        path = text if text.startswith("/") else f"{above}/{text}" if above else text
    raise SpecError(f"{side.shown}: {posix.strerror(errno.ELOOP).lower()}")


def _no_parent(side: Side, above: str, error: KernelError) -> Exception:
    if error.errno == errno.ENOENT:
        where = f"{side.container}:{above}" if side.root >= 0 else above
        return NotFound(f"{side.shown}: there is no {where}", hint="make that directory first")
    if error.errno == errno.ENOTDIR:
        return Conflict(f"{side.shown}: {above} is not a directory")
    return error
