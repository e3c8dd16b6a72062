"""What the store takes on disk: of each image alone, of several together, and of none.

All is counted as du(1) counts it: allocated blocks, directories too, each inode once. So the parts add up to
`du` of the store's directory.
"""

from __future__ import annotations

import _stat
import posix

from sysbox.base import files
from sysbox.base.errors import KernelError
from sysbox.base.frozen import Frozen
from sysbox.base.tree import DIRECTORY
from sysbox.build import cache
from sysbox.image.documents import MAX_MANIFEST, parse_manifest
from sysbox.image.model import Image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sysbox.image.catalog import Catalog, Entry

_BLOCK = 512  # bytes of one of st_blocks (stat(2))


class ImageUsage(Frozen):
    """Bytes on disk of one image."""

    image: Image
    unique: int  # of what it alone needs
    shared: int  # of what another image needs too


class StoreUsage(Frozen):
    """Bytes on disk of the store."""

    images: tuple[ImageUsage, ...]
    shared: int  # of what several images need, counted once
    other: int  # of what nothing needs: the index, work in progress, what a crash left behind
    cache: int  # of what only the build cache needs, with the directories of RUN --mount=type=cache
    cached: int  # how many steps the build cache has
    sizes: dict[str, int]  # of each part that an image needs
    needs: dict[str, tuple[str, ...]]  # the id of an image -> its parts

    @property
    def total(self) -> int:
        """Of everything but the build cache."""
        return sum(one.unique for one in self.images) + self.shared + self.other

    def of(self, image_ids: Iterable[str]) -> int:
        """Bytes of what at least one of these images needs."""
        parts = {part for image_id in image_ids for part in self.needs.get(image_id, ())}
        return sum(self.sizes[part] for part in parts)


def measure(store: Catalog) -> StoreUsage:
    """Look at everything in the store. Raises FormatError for a damaged image, KernelError."""
    images = store.list()
    entries = store.entries()
    needs = {image.id: tuple(_parts(store, image, entries)) for image in images}
    wanted = {part for parts in needs.values() for part in parts}
    try:
        whole = allocated(store.root)
        sizes = {part: _size(f"{store.root}/{part}") for part in sorted(wanted)}
        steps = [made for _, made, _ in cache.all_of(store.root)]
        cached = sum(
            _size(f"{store.root}/{part}") for part in _of_cache(store.root, steps) - wanted
        )
    except OSError as error:
        raise KernelError.of("measure", store.root, error) from None
    users: dict[str, int] = {}
    for parts in needs.values():
        for part in set(parts):
            users[part] = users.get(part, 0) + 1
    found = []
    for image in images:
        own = set(needs[image.id])
        unique = sum(sizes[part] for part in own if users[part] == 1)
        shared = sum(sizes[part] for part in own if users[part] > 1)
        found.append(ImageUsage(image=image, unique=unique, shared=shared))
    return StoreUsage(
        images=tuple(found),
        shared=sum(sizes[part] for part, count in users.items() if count > 1),
        other=max(whole - sum(sizes.values()) - cached, 0),
        cache=cached,
        cached=len(steps),
        sizes=sizes,
        needs=needs,
    )


def _of_cache(root: str, steps: Sequence[cache.Cached]) -> set[str]:
    """The files and directories that the build cache needs, below the store's root."""
    # an empty directory is nobody's
    has_any = steps or files.names(cache.mounts(root))
    parts = {cache.DIRECTORY} if has_any else set()
    for one in steps:
        parts |= {f"layers/{one.layer}", f"layers/{one.layer}.json", f"blobs/sha256/{one.blob[7:]}"}
    return parts


def _parts(store: Catalog, image: Image, entries: Sequence[Entry]) -> list[str]:
    """The files and directories that an image needs, below the store's root."""
    manifests = [one.digest for one in entries if one.image_id == image.id]
    digests = [image.id, *manifests]
    for manifest in manifests:
        document = files.read_file(store.blob(manifest), MAX_MANIFEST)
        if document is not None:
            digests += [layer.digest for layer in parse_manifest(document).layers]
    parts = [f"blobs/sha256/{digest[7:]}" for digest in dict.fromkeys(digests)]
    for layer in image.layers:
        parts += [f"layers/{layer}", f"layers/{layer}.json"]
    return [*parts, f"records/{image.id[7:]}.json", f"provenance/{image.id[7:]}.json"]


def _size(path: str) -> int:
    """Bytes of a file or a directory, 0 if it is gone. Raises OSError."""
    try:
        status = posix.lstat(path)
        return allocated(path) if _stat.S_ISDIR(status.st_mode) else status.st_blocks * _BLOCK
    except FileNotFoundError:
        return 0


def allocated(path: str) -> int:
    """Bytes on disk of a directory and everything below it; 0 if it does not exist. Raises OSError."""
    try:
        fd = posix.open(path, DIRECTORY)
    except FileNotFoundError:
        return 0
    try:
        return posix.fstat(fd).st_blocks * _BLOCK + _below(fd, set())
    finally:
        posix.close(fd)


def _below(directory: int, seen: set[int]) -> int:
    """Bytes of the entries of an open directory; `seen` are inodes with several names."""
    total = 0
    inner = []
    with posix.scandir(directory) as entries:
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # removed meanwhile
            if _stat.S_ISDIR(status.st_mode):
                inner.append(entry.name)
            elif status.st_nlink > 1:
                if status.st_ino in seen:
                    continue
                seen.add(status.st_ino)
            total += status.st_blocks * _BLOCK
    for name in inner:
        try:
            fd = posix.open(name, DIRECTORY, dir_fd=directory)
        except FileNotFoundError:
            continue
        try:
            total += _below(fd, seen)
        finally:
            posix.close(fd)
    return total
