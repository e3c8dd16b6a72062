"""The layers of a stage while it is built: a step's directory becomes a layer as it is, without a copy.

One walk writes the layer's archive, which gives the layer its name, and takes out of the directory what is no
part of a layer: mount points and sockets. Until it is durable the layer has a name that nobody else can know:
one syncfs(2) serves all steps up to `settle`, which gives layers and archives their own names, and only then
writes the records of the cache. A build that is killed leaves orphans, which gc removes.
"""

from __future__ import annotations

import _stat
import errno
import posix
import time

from sysbox.base import files, tree
from sysbox.base.errors import FormatError, KernelError
from sysbox.base.frozen import Frozen
from sysbox.build import cache
from sysbox.fs import changes, relabel
from sysbox.fs.changes import Layers
from sysbox.host import exists
from sysbox.image.catalog import chain_ids
from sysbox.image.documents import MAX_LAYERS
from sysbox.image.ingest import Blob, Ingest, Layer
from sysbox.image.rebuild import read_layer
from sysbox.linux import mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sysbox.base.tree import TreeEntry
    from sysbox.image.catalog import Catalog
    from sysbox.image.tarwriter import Archive

_OPEN = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC
_MOST = 64 << 30  # bytes of all files of a layer, holes included
_PLAIN_ROOT = (0o755, 0, 0)  # what the root of a layer has that its archive does not mention


class StackLayer(Frozen):
    """A layer of a stage, with its archive."""

    name: str  # of its directory below the store's layers, for now
    diff_id: str
    chain_id: str
    size: int  # bytes of its files
    blob: str  # the digest of its archive
    blob_size: int  # bytes
    compression: str = ""
    created_ns: int = 0  # since 1970; 0: it is the base image's

    def layer(self) -> Layer:
        return Layer(diff_id=self.diff_id, chain_id=self.chain_id, size=self.size)


class _Fresh:
    """A layer of this build that is not durable yet."""

    def __init__(self, made: StackLayer, path: str, key: str, note: str) -> None:
        self.made = made
        self.path = path  # of its archive
        self.key = key  # of the step in the cache, "" where it is not kept there
        self.note = note


class Workshop:
    """Makes layers of directories; a context manager, within which gc leaves the store alone."""

    def __init__(self, store: Catalog, epoch: int = -1) -> None:
        """`epoch`: nanoseconds since 1970 that no time in a layer may exceed; -1 is no bound."""
        self.store = store
        self.work = Ingest(store)
        self._epoch = epoch
        self._fresh: list[_Fresh] = []

    def __enter__(self) -> Workshop:
        self.work.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.work.__exit__()

    def directory(self, kind: str) -> str:
        """A new directory for the work on one step."""
        path = self.work.path(kind)
        posix.mkdir(path, 0o700)
        return path

    def take(
        self,
        upper: str,
        below: tuple[StackLayer, ...],
        targets: Iterable[str] = (),
        *,
        key: str = "",
        note: str = "",
    ) -> StackLayer:
        """Make a layer of the directory `upper`, which is gone then; `below` are the layers under it.

        `targets` are the paths at which something was mounted. Raises FormatError for too many layers,
        KernelError.
        """
        check_count(len(below) + 1)
        blob, size = self._pack(upper, below, tuple(targets), note or "a layer")
        chain = chain_ids((*(one.diff_id for one in below), blob.digest))[-1]
        layer = Layer(diff_id=blob.digest, chain_id=chain, size=size)
        made = stacked(posix.urandom(16).hex(), layer, blob, created_ns=time.time_ns())
        relabel.layer(upper)
        try:
            posix.rename(upper, self._path(made.name))
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise KernelError.of("rename", upper, error) from None
            return self._unpacked(blob, below, key, note)
        self._fresh.append(_Fresh(made, blob.path, key, note))
        return made

    def pack(self, fill: Callable[[Callable[[bytes], object]], None], note: str) -> Blob:
        """The archive that `fill` writes: never compressed, whatever the name at its beginning looks like."""
        return self.work.pack(fill, note).replace(compression="")

    def _pack(
        self, upper: str, below: tuple[StackLayer, ...], targets: tuple[str, ...], note: str
    ) -> tuple[Blob, int]:
        """(the archive of a directory, the bytes of its files); it has nothing else than a layer then."""
        taken = _Taking(self._epoch)
        opened = posix.open(upper, _OPEN)
        lower = self.lower(below)
        try:
            _clear(opened, lower, targets)
            return self.pack(lambda write: taken.write(opened, write), note), taken.size
        except OSError as error:
            raise KernelError.of("read", note, error) from None
        finally:
            lower.close()
            posix.close(opened)

    def _unpacked(
        self, blob: Blob, below: tuple[StackLayer, ...], key: str, note: str
    ) -> StackLayer:
        """The same where containers and images are on different file systems."""
        self.settle()
        stack = [settled(one).layer() for one in below]
        layer = self.work.unpack(blob, note or "a layer", stack)
        posix.rename(blob.path, self.store.blob(blob.digest))
        made = stacked(layer.name, layer, blob, created_ns=time.time_ns())
        if key:
            cache.keep(self.store.root, key, cached(made, note))
        return made

    def settle(self) -> None:
        """Make the layers durable, give them their names, record them in the cache. Raises KernelError."""
        if not self._fresh:
            return
        store, fresh = self.store, self._fresh
        self.work.place([(self._path(one.made.name), one.made.layer()) for one in fresh])
        for one in fresh:
            posix.rename(one.path, store.blob(one.made.blob))
        for one in fresh:
            if one.key:
                cache.keep(store.root, one.key, cached(one.made, one.note))
            # where another build was faster, its layer has the name, and this one is not needed
            files.remove_tree(self._path(one.made.name))
            files.unlink(f"{self._path(one.made.name)}.json")
        self._fresh = []

    def named(self, stack: tuple[StackLayer, ...]) -> tuple[StackLayer, ...]:
        """A stage's layers under the names that they have now: their own, unless one is not durable yet."""
        return stack if self._fresh else tuple(settled(one) for one in stack)

    def lower(self, below: tuple[StackLayer, ...]) -> Layers:
        """The layers as one directory, to look at; the caller closes it. Raises OSError."""
        return Layers([posix.open(self._path(one.name), _OPEN) for one in reversed(below)])

    def _path(self, name: str) -> str:
        return self.store.layer(name)


def stacked(name: str, layer: Layer, blob: Blob, *, created_ns: int = 0) -> StackLayer:
    """A layer in the directory `name`, with its archive."""
    return StackLayer(
        name=name,
        diff_id=layer.diff_id,
        chain_id=layer.chain_id,
        size=layer.size,
        blob=blob.digest,
        blob_size=blob.size,
        compression=blob.compression,
        created_ns=created_ns,
    )


def settled(one: StackLayer) -> StackLayer:
    """The layer under the name that it has once it is durable."""
    return one.replace(name=one.layer().name)


def cached(made: StackLayer, note: str) -> cache.Cached:
    """What the cache keeps of a layer."""
    return cache.Cached(
        diff_id=made.diff_id,
        chain_id=made.chain_id,
        size=made.size,
        blob=made.blob,
        blob_size=made.blob_size,
        compression=made.compression,
        note=note,
        created_ns=made.created_ns,
    )


def hit(store: Catalog, key: str) -> StackLayer | None:
    """The layer of a step that was made before, if it is all there."""
    found = cache.find(store.root, key)
    if found is None:
        return None
    if not (exists(store.layer(found.layer)) and exists(store.blob(found.blob))):
        return None
    return StackLayer(
        name=found.layer,
        diff_id=found.diff_id,
        chain_id=found.chain_id,
        size=found.size,
        blob=found.blob,
        blob_size=found.blob_size,
        compression=found.compression,
        created_ns=found.created_ns,
    )


def of_image(store: Catalog, names: Iterable[str], blobs: Iterable[Blob]) -> tuple[StackLayer, ...]:
    """The layers of an image, the lowest first, each with its archive. Raises NotFound, FormatError."""
    return tuple(
        stacked(name, read_layer(store, name), blob)
        for name, blob in zip(names, blobs, strict=True)
    )


def check_count(count: int) -> None:
    """Raise FormatError for more layers than an image may have."""
    if count > MAX_LAYERS:
        raise FormatError(
            f"the image would have {count} layers, and {MAX_LAYERS} are the most",
            hint="join RUN instructions with &&, or use --squash",
        )


def _clear(upper: int, lower: Layers, targets: tuple[str, ...]) -> None:
    """Remove what was made only to mount on it, and what above it has no other reason. Raises OSError."""
    if not targets:
        return
    for path in sorted(changes.placeholders(upper, lower, targets), reverse=True):
        _remove(upper, path.strip("/"))
        above = path.rpartition("/")[0]
        while above and _is_copy(upper, lower, above):
            _remove(upper, above.strip("/"))
            above = above.rpartition("/")[0]


def _remove(upper: int, path: str) -> None:
    above, _, name = path.rpartition("/")
    directory = mount.open_beneath(upper, above or ".", _OPEN | posix.O_NOFOLLOW)
    try:
        found = tree.open_entry(directory, name)
        if found is None:
            return
        found.close()
        if found.is_directory:
            posix.rmdir(name, dir_fd=directory)
        else:
            posix.unlink(name, dir_fd=directory)
    finally:
        posix.close(directory)


def _is_copy(upper: int, lower: Layers, path: str) -> bool:
    """Whether a directory is empty, and else as in the layers below: it was copied up for a mount point."""
    here, below = changes.at(Layers((upper,)), path), changes.at(lower, path)
    try:
        if here is None or below is None or not (here.is_directory and below.is_directory):
            return False
        own, old = here.status, below.status
        if (own.st_mode, own.st_uid, own.st_gid) != (old.st_mode, old.st_uid, old.st_gid):
            return False
        directory = here.open()
        try:
            return not posix.listdir(directory) and not changes.is_opaque(directory)
        finally:
            posix.close(directory)
    finally:
        for one in (here, below):
            if one is not None:
                one.close()


class _Taking:
    """The walk through a step's directory."""

    def __init__(self, epoch: int) -> None:
        self.size = 0  # bytes of files
        self._epoch = epoch
        self._seen: set[tuple[int, int]] = set()

    def write(self, upper: int, write: Callable[[bytes], object]) -> None:
        """Write the archive of the layer. Raises OSError, FormatError for a tree that is too deep."""
        from sysbox.image.tarwriter import Archive

        archive = Archive(write)
        _drop_sockets(upper)
        root = tree.TreeEntry(".", posix.dup(upper))
        try:
            own = root.status
            if (_stat.S_IMODE(own.st_mode), own.st_uid, own.st_gid) != _PLAIN_ROOT:
                self._clamp(root)
                archive.entry(root, ".")
        finally:
            root.close()
        self._directory(archive, upper, "", 0)
        archive.finish()

    def _directory(self, archive: Archive, directory: int, prefix: str, depth: int) -> None:
        tree.check_depth(depth, prefix)
        if prefix and changes.is_opaque(directory):
            archive.mark(f"{prefix}.wh..wh..opq")
        for found in tree.entries(directory, prefix):
            if changes.is_whiteout(found):
                archive.mark(f"{prefix}.wh.{found.name}")
                continue
            if found.name.startswith(".wh."):
                shown = tree.printable(f"{prefix}{found.name}")
                raise FormatError(
                    f"/{shown}: no layer can have a file of this name",
                    hint="names that begin with .wh. mean deleted files (OCI layer.md)",
                )
            self._count(found, f"{prefix}{found.name}")
            if found.is_directory:
                self._into(archive, found, f"{prefix}{found.name}", depth)
            else:
                self._clamp(found)
                archive.entry(found, f"{prefix}{found.name}")

    def _into(self, archive: Archive, found: TreeEntry, name: str, depth: int) -> None:
        # sockets first: that changes the directory's time, which the archive has before its content
        inner = found.open()
        try:
            _drop_sockets(inner)
            self._clamp(found)
            archive.entry(found, name)
            self._directory(archive, inner, f"{name}/", depth + 1)
        finally:
            posix.close(inner)

    def _count(self, found: TreeEntry, name: str) -> None:
        if found.kind != _stat.S_IFREG:
            return
        if found.status.st_nlink > 1:
            if found.identity in self._seen:
                return
            self._seen.add(found.identity)
        self.size += found.status.st_size
        if self.size > _MOST:
            # said before the zeros of a hole are hashed, which the archive has to have
            raise FormatError(
                f"/{tree.printable(name)}: the layer would have more than {_MOST >> 30} GiB",
                hint="a hole counts too: no image layer has sparse files (OCI layer.md)",
            )

    def _clamp(self, found: TreeEntry) -> None:
        if 0 <= self._epoch < found.status.st_mtime_ns:
            posix.utime(found.path, ns=(self._epoch, self._epoch))
            found.status = posix.fstat(found.fd)


def _drop_sockets(directory: int) -> None:
    """Remove sockets, which no layer has: their processes have ended. Raises OSError."""
    with posix.scandir(directory) as entries:
        sockets = [
            entry.name
            for entry in entries
            if not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False))
            and _stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode)
        ]
    for name in sockets:
        posix.unlink(name, dir_fd=directory)
