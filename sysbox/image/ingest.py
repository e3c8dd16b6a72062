"""Add content to the store: spool blobs, unpack layers, and make an image of them in one step.

    with Ingest(store) as work:
        blob = work.spool(fd)                         digest and size, while it is written
        layer = work.unpack(blob, below=())           into temporary/, then renamed into layers/
        work.commit(manifest, config, [layer], name)  blobs, record, and last of all index.json

Nothing is visible before `commit`; a crash at any instant leaves at most orphans, which gc removes. Two
processes may add the same layer: the first rename wins, and the other process discards its copy.
"""

from __future__ import annotations

import errno
import posix

from sysbox.base import codec, files
from sysbox.base.errors import FormatError, KernelError
from sysbox.base.files import check_size, remove_tree
from sysbox.base.flock import Lock
from sysbox.base.frozen import Frozen
from sysbox.host import exists
from sysbox.image import layer as layers
from sysbox.image.catalog import (
    MAX_LAYER_RECORD,
    MAX_RECORD,
    Catalog,
    Entry,
    chain_ids,
    layer_name,
)
from sysbox.image.decompress import compression
from sysbox.image.documents import (
    MAX_CONFIG,
    MAX_MANIFEST,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    digest_of,
    parse_config,
    parse_manifest,
)
from sysbox.image.model import Image
from sysbox.image.reference import parse, refuse_host
from sysbox.image.source import CHUNK, open_source, write_sparse
from sysbox.image.tar import LayerLimits
from sysbox.image.trust import provenance
from sysbox.linux import _sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

_LAYOUT = {"imageLayoutVersion": "1.0.0"}
_RATIO = 100  # a compressed layer may unpack to this many times its size, plus _FLOOR
_FLOOR = 1 << 30  # bytes


class Blob(Frozen):
    """The archive of a layer: a file in the temporary directory, or one that is in the store already."""

    path: str
    digest: str
    size: int  # bytes
    compression: str  # "", gzip, zstd, xz, bzip2


class Layer(Frozen):
    """A layer that is unpacked in the store."""

    diff_id: str
    chain_id: str
    size: int  # bytes of its files

    @property
    def name(self) -> str:
        """The name of its directory."""
        return layer_name(self.chain_id)


class Ingest:
    """A temporary directory, and the lock that keeps gc away meanwhile; a context manager."""

    def __init__(self, store: Catalog, limits: LayerLimits = LayerLimits()) -> None:  # noqa: B008 (frozen)
        self.store = store
        self.limits = limits
        self._lock: Lock | None = None
        self._count, self._work = 0, ""
        self._unsynced = False  # a blob was written since the last syncfs(2)

    def __enter__(self) -> Self:
        prepare(self.store)
        self._lock = self.store.hold()
        self._work = f"{self.store.root}/temporary/{posix.getpid()}-{posix.urandom(6).hex()}"
        try:
            files.make_private(self._work)
        except BaseException:
            self.__exit__()  # a signal that ends a pull may come right after the directory was made
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            remove_tree(self._work)
        except KernelError:
            pass  # ignoring: gc removes it
        if self._lock:
            self._lock.release()

    def spool(
        self,
        fd: int,
        what: str,
        limit: int = 64 << 30,
        tell: Callable[[int], object] = lambda _: None,
    ) -> Blob:
        """Read a descriptor to its end into a file; `tell` is called with the size of each chunk, in bytes.

        Raises FormatError beyond `limit` bytes, KernelError.
        """

        def fill(write: Callable[[bytes], object]) -> None:
            while chunk := posix.read(fd, CHUNK):
                write(chunk)
                tell(len(chunk))

        return self.pack(fill, what, limit)

    def pack(
        self, fill: Callable[[Callable[[bytes], object]], None], what: str, limit: int = 64 << 30
    ) -> Blob:
        """Make a blob of the bytes that `fill` passes to its argument. Raises as `spool`, and as `fill`."""
        from hashlib import sha256

        path = self.path("blob")
        digest, size, head, hole = sha256(), 0, b"", False
        out = posix.open(
            path, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o600
        )

        def write(chunk: bytes) -> None:
            nonlocal size, head, hole
            digest.update(chunk)
            hole = write_sparse(out, memoryview(chunk))
            head = head if len(head) >= 8 else (head + chunk)[:8]
            size += len(chunk)
            if size > limit:
                raise FormatError(f"{what}: larger than {limit} bytes")

        try:
            self._unsynced = True
            fill(write)
            if hole:
                posix.ftruncate(out, size)
        except OSError as error:
            raise KernelError.of("store", what, error) from None
        finally:
            posix.close(out)
        return Blob(
            path=path,
            digest=f"sha256:{digest.hexdigest()}",
            size=size,
            compression=compression(head),
        )

    def decompress(self, blob: Blob, what: str) -> Blob:
        """The same blob uncompressed, for a compression that no image layer may have (xz, bzip2)."""
        path = self.path("blob")
        fd = posix.open(blob.path, posix.O_RDONLY | posix.O_CLOEXEC)
        out = posix.open(
            path, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o600
        )
        source = None
        try:
            limit = self.limit(blob.compression, blob.size)
            source = open_source(fd, blob.compression, what, limit, blob.digest)
            self._unsynced = True
            digest = source.save(out)
            return Blob(path=path, digest=digest, size=source.position, compression="")
        except OSError as error:
            raise KernelError.of("store", what, error) from None
        finally:
            if source is not None:
                source.close()
            posix.close(out)
            posix.close(fd)

    def unpack(
        self, blob: Blob, what: str, below: Sequence[Layer] = (), diff_id: str = ""
    ) -> Layer:
        """Unpack a layer above `below` (lowest first); `diff_id`, if given, must be that of the content.

        Raises FormatError, KernelError.
        """
        path = self.path("layer")
        posix.mkdir(path, 0o755)
        root = posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
        opened = [root]
        try:
            posix.fchmod(root, 0o755)
            opened += [self._open_layer(lower) for lower in reversed(below)]
            found, size = self._extract(blob, what, root, opened[1:])
        finally:
            for fd in opened:
                posix.close(fd)
        if diff_id and diff_id != found:
            raise FormatError(f"{what}: its content is {found}, the image says {diff_id}")
        chain = chain_ids((*(lower.diff_id for lower in below), found))[-1]
        layer = Layer(diff_id=found, chain_id=chain, size=size)
        self.place([(path, layer)])
        return layer

    def place(self, unpacked: Sequence[tuple[str, Layer]]) -> None:
        """Make unpacked layers, and all blobs, durable; rename the layers: from then on they are complete.

        Raises KernelError; then none, or the first ones, have their names.
        """
        store = self.store
        for path, layer in unpacked:
            # syncfs makes it durable, too
            files.write_file(f"{path}.json", codec.dumps(layer.to_data()), limit=MAX_LAYER_RECORD)
        self._sync()
        for path, layer in unpacked:
            target = store.layer(layer.name)
            if exists(target):
                continue
            try:
                posix.rename(f"{path}.json", f"{target}.json")
                posix.rename(path, target)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise KernelError.of("rename", target, error) from None
                # another process was faster
        files.sync_directory(f"{store.root}/layers")

    def commit(
        self,
        manifest: bytes,
        config: bytes,
        blobs: Sequence[Blob],
        stack: Sequence[Layer],
        name: str = "",
        builtin: str = "",
        origin: provenance.Origin | None = None,
    ) -> Image:
        """Add the image to the index, under `name` if one is given (an image that had it loses it).

        `blobs` are the archives of `stack`, lowest first; no `origin`: it was made here. Raises FormatError.
        """
        if not builtin:
            refuse_host(name)
        parsed = parse_manifest(manifest)
        self._check(parsed, config, blobs, stack)
        image = describe(config, parsed, stack, digest_of(manifest), usr_bind=bool(builtin))
        record = codec.dumps(image.to_data())
        check_size("the image's record", record, MAX_RECORD)  # before anything is kept
        self._keep_blobs(blobs)
        _keep(self.store.blob(parsed.config.digest), config, MAX_CONFIG)
        _keep(self.store.blob(digest_of(manifest)), manifest, MAX_MANIFEST)
        files.sync_directory(f"{self.store.root}/blobs/sha256")
        _keep(self.store.record(image.id), record, MAX_RECORD)
        full = parse(name).full() if name else ""
        provenance.keep(self.store, image, origin or provenance.made_here(full, image.manifest))
        entry = Entry(
            media_type=parsed.media_type or OCI_MANIFEST,
            digest=image.manifest,
            size=len(manifest),
            image_id=image.id,
            name=full,
            builtin=builtin,
            index=origin.index if origin else "",
        )
        self.store.edit(lambda entries: with_entry(entries, entry))
        return image.replace(names=(full,) if full else ())

    def _keep_blobs(self, blobs: Sequence[Blob]) -> None:
        if self._unsynced:
            self._sync()
        for path, digest in {blob.path: blob.digest for blob in blobs}.items():
            posix.rename(path, self.store.blob(digest))

    def _sync(self) -> None:
        """Once for all that was written: what is not on the disk may not get its name."""
        sync_file_system(self.store.root)
        self._unsynced = False

    def _open_layer(self, layer: Layer) -> int:
        path = self.store.layer(layer.name)
        return posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)

    def limit(self, kind: str, size: int) -> int:
        """The most bytes that a blob of `size` bytes, compressed with `kind` ("": not), may unpack to."""
        most = self.limits.bytes
        return min(most, _FLOOR + size * _RATIO) if kind else most

    def path(self, kind: str) -> str:
        """A new path in the temporary directory."""
        self._count += 1
        return f"{self._work}/{kind}-{self._count}"

    def _extract(self, blob: Blob, what: str, root: int, lower: list[int]) -> tuple[str, int]:
        fd = posix.open(blob.path, posix.O_RDONLY | posix.O_CLOEXEC)
        source = None
        try:
            limit = self.limit(blob.compression, blob.size)
            source = open_source(fd, blob.compression, what, limit, blob.digest)
            return layers.unpack(source, root, self.limits, lower)
        except FormatError as error:
            raise labelled(error, what) from None
        finally:
            if source is not None:
                source.close()
            posix.close(fd)

    def _check(
        self, manifest: Manifest, config: bytes, blobs: Sequence[Blob], stack: Sequence[Layer]
    ) -> None:
        described: list[tuple[str, int]] = [(one.digest, one.size) for one in manifest.layers]
        if described != [(blob.digest, blob.size) for blob in blobs]:
            raise FormatError("image manifest: its layers are not those that came with it")
        if (manifest.config.digest, manifest.config.size) != (digest_of(config), len(config)):
            raise FormatError("image manifest: its config is not the one that came with it")
        if parse_config(config).diff_ids != tuple(layer.diff_id for layer in stack):
            raise FormatError("image config: its diff_ids are not those of the layers")


def labelled(error: FormatError, what: str) -> FormatError:
    """The same error, naming what was read."""
    text = error.message
    return FormatError(text if text.startswith(what) else f"{what}: {text}", hint=error.hint)


def _keep(path: str, data: bytes, limit: int) -> None:
    files.write_file(path, data, limit=limit, durable=True)


def prepare(store: Catalog) -> None:
    """Make the directories of the store; those that exist stay as they are."""
    for name in ("blobs/sha256", "layers", "provenance", "records", "temporary"):
        files.make_private(f"{store.root}/{name}")
    if not exists(f"{store.root}/oci-layout"):
        _keep(f"{store.root}/oci-layout", codec.dumps(_LAYOUT), MAX_LAYER_RECORD)


def describe(
    config: bytes,
    manifest: Manifest,
    stack: Sequence[Layer],
    digest: str,
    *,
    usr_bind: bool = False,
) -> Image:
    """The record of an image, without names. Raises FormatError."""
    parsed = parse_config(config)
    return Image(
        id=manifest.config.digest,
        manifest=digest,
        created=parsed.created,
        size=sum(layer.size for layer in stack),
        config=parsed.image,
        layers=tuple(layer.name for layer in stack),
        usr_bind=usr_bind,
    )


def with_entry(entries: list[Entry], new: Entry) -> list[Entry]:
    """The entries and `new`; an image that had its name loses it, and stays, perhaps without a name."""
    rest = []
    for entry in entries:
        if entry.name == new.name and new.name:
            # the previous image `host` leaves the index: a container that uses it keeps its record
            keep = entry.image_id != new.image_id and not new.builtin.startswith("host:")
            if keep and not _has_other(entries, entry):
                rest.append(entry.replace(name=""))
        elif entry.image_id != new.image_id or entry.name:
            rest.append(entry)
    if new.name or not any(entry.image_id == new.image_id for entry in rest):
        rest.append(new)
    return rest


def descriptor_of(blob: Blob, media_type: str) -> Descriptor:
    """The descriptor of a spooled blob."""
    return Descriptor(media_type=media_type, digest=blob.digest, size=blob.size)


def sync_file_system(path: str) -> None:
    """syncfs(2): a layer is tens of thousands of files, and one call makes them all durable."""
    fd = posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    try:
        _sys.syncfs(fd)
    except OSError as error:
        raise KernelError.of("syncfs", path, error) from None
    finally:
        posix.close(fd)


def _has_other(entries: list[Entry], entry: Entry) -> bool:
    return any(other.image_id == entry.image_id and other.name != entry.name for other in entries)
