"""Which blobs have been unpacked, and to which content."""

from __future__ import annotations

from sysbox.base.files import read_file
from sysbox.image.documents import MAX_CONFIG, MAX_MANIFEST, parse_config, parse_manifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.image.catalog import Catalog


class Verified:
    """Which blob has which content, by the images of the store and those that were just unpacked.

    A layer that the store has is not unpacked again, and the blob that a manifest names for it could be that
    of another layer: what is run would not be what is pushed.
    """

    def __init__(self, store: Catalog) -> None:
        self._store = store
        self._pairs: set[tuple[str, str]] = set()
        self._read = False

    def __contains__(self, pair: tuple[str, str]) -> bool:
        """Whether (the digest of a blob, a diff id) belong together. Raises FormatError."""
        if pair not in self._pairs and not self._read:
            self._read = True
            for entry in self._store.entries():
                manifest = read_file(self._store.blob(entry.digest), MAX_MANIFEST)
                config = read_file(self._store.blob(entry.image_id), MAX_CONFIG)
                if manifest and config:
                    self._add(manifest, config)
        return pair in self._pairs

    def note(self, digest: str, diff_id: str) -> None:
        """Note that a blob has this content."""
        self._pairs.add((digest, diff_id))

    def _add(self, manifest: bytes, config: bytes) -> None:
        layers = parse_manifest(manifest).layers
        diff_ids = parse_config(config).diff_ids
        self._pairs.update(
            (layer.digest, diff_id) for layer, diff_id in zip(layers, diff_ids, strict=True)
        )
