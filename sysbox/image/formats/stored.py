"""What the store has of an image that is written to a file: its documents and the archives of its layers."""

from __future__ import annotations

import posix

from sysbox.base import files
from sysbox.base.errors import FormatError, NotFound
from sysbox.image.documents import LAYER_TYPES, MAX_MANIFEST, digest_of, parse_manifest
from sysbox.image.ingest import Blob

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.image.catalog import Catalog
    from sysbox.image.documents import Manifest
    from sysbox.image.formats.found import Chosen


def read_blob(store: Catalog, digest: str, limit: int) -> bytes:
    """A small blob. Raises NotFound, FormatError for a damaged one."""
    data = files.read_file(store.blob(digest), limit)
    if data is None:
        raise _missing(store, digest)
    if digest_of(data) != digest:
        raise FormatError(f"{store.blob(digest)}: damaged: its digest is {digest_of(data)}")
    return data


def manifest_of(store: Catalog, image: Chosen) -> tuple[bytes, Manifest]:
    """The manifest of an image, and what it says. Raises NotFound, FormatError."""
    data = read_blob(store, image.manifest, MAX_MANIFEST)
    return data, parse_manifest(data)


def layer_paths(store: Catalog, image: Chosen) -> list[tuple[str, Blob]]:
    """(digest, blob) of each layer, lowest first. Raises NotFound, FormatError for a truncated one."""
    found = []
    for layer in manifest_of(store, image)[1].layers:
        path = store.blob(layer.digest)
        try:
            size = posix.stat(path).st_size
        except FileNotFoundError:
            raise _missing(store, layer.digest) from None
        if size != layer.size:
            raise FormatError(f"{path}: damaged: has {size} bytes instead of {layer.size}")
        kind = LAYER_TYPES[layer.media_type]
        blob = Blob(path=path, digest=layer.digest, size=layer.size, compression=kind)
        found.append((layer.digest, blob))
    return found


def _missing(store: Catalog, digest: str) -> NotFound:
    return NotFound(
        f"the blob {digest} is missing in {store.root}", hint="import or load the image again"
    )
