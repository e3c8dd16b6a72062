"""An image on top of another: one more layer, and a changed configuration (docker commit).

The new configuration starts from the old document on disk, so that keys unknown to sysbox are kept.
"""

from __future__ import annotations

import posix

from sysbox.base import codec, files
from sysbox.base.errors import FormatError, NotFound
from sysbox.image import archive
from sysbox.image.catalog import DERIVED
from sysbox.image.documents import (
    LAYER_TYPES,
    MAX_CONFIG,
    MAX_LAYERS,
    MAX_MANIFEST,
    OCI_LAYER,
    load,
    mapping,
    parse_manifest,
    sequence,
)
from sysbox.image.ingest import Blob, Ingest, descriptor_of
from sysbox.image.rebuild import read_layer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from sysbox.image.catalog import Catalog
    from sysbox.image.ingest import Layer
    from sysbox.image.model import Image, ImageConfig

    Write = Callable[[bytes], object]

# the keys that `archive.config_document` writes
WRITTEN = frozenset(
    "Cmd Entrypoint Env ExposedPorts Healthcheck Labels StopSignal User Volumes WorkingDir".split()
)


def commit(
    store: Catalog,
    base: Image,
    config: ImageConfig,
    fill: Callable[[Write], None],
    name: str,
    *,
    author: str = "",
    message: str = "",
    created_by: str = "",
) -> Image:
    """Make the image `name` ("" for none): `base` and one layer, which `fill` writes as a tar archive.

    Raises SpecError for an invalid name, NotFound, FormatError, KernelError; the store is then unchanged.
    """
    archive.check_name(name)
    if len(base.layers) >= MAX_LAYERS:
        raise FormatError(
            f"the image has {len(base.layers)} layers already, and {MAX_LAYERS} are the most",
            hint="make one layer of them: sysbox export CONTAINER | sysbox import - NAME",
        )
    with Ingest(store) as work:
        blob = work.pack(fill, "the container's changes")
        below = [read_layer(store, one) for one in base.layers]
        stack = [*below, work.unpack(blob, "the container's changes", below)]
        blobs = [*blobs_of(store, base), blob]
        notes = {"created": archive.now(), "created_by": created_by, "author": author}
        document = _document(store, base, config, stack, {**notes, "comment": message})
        suffixes = [OCI_LAYER + archive.SUFFIX[one.compression] for one in blobs]
        manifest = archive.manifest_document(
            document, [descriptor_of(one, kind) for one, kind in zip(blobs, suffixes, strict=True)]
        )
        # the new image needs the host's /usr as well; it was the user who chose `host`, not an image
        builtin = DERIVED if base.usr_bind else ""
        return work.commit(manifest, document, blobs, stack, name, builtin)


def blobs_of(store: Catalog, image: Image) -> list[Blob]:
    """The archives of an image's layers, in the store. Raises NotFound, FormatError."""
    data = files.read_file(store.blob(image.manifest), MAX_MANIFEST)
    if data is None:
        raise NotFound(f"the manifest of the image {image.id} is missing in {store.root}")
    found = []
    for layer in parse_manifest(data).layers:
        path = store.blob(layer.digest)
        try:
            posix.stat(path)
        except FileNotFoundError:
            raise NotFound(
                f"the blob {layer.digest} is missing in {store.root}", hint="import the image again"
            ) from None
        kind = LAYER_TYPES[layer.media_type]
        found.append(Blob(path=path, digest=layer.digest, size=layer.size, compression=kind))
    return found


def _document(
    store: Catalog,
    base: Image,
    config: ImageConfig,
    stack: Sequence[Layer],
    notes: dict[str, str],
) -> bytes:
    """The document of `base` with the layers of `stack` and the values of `config`."""
    data = files.read_file(store.blob(base.id), MAX_CONFIG)
    if data is None:
        raise NotFound(f"the configuration of the image {base.id} is missing in {store.root}")
    document = load(data, "image config", MAX_CONFIG)
    container = mapping(document, "config", "image config")
    fresh: dict[str, Any] = codec.loads(
        archive.config_document(config, stack, notes["created"], ""), "image config"
    )
    # `fresh` lacks empty values: an old value of such a key must not stay
    kept = {key: value for key, value in container.items() if key not in WRITTEN}
    history = [
        *sequence(document, "history", "image config"),
        {k: v for k, v in notes.items() if v},
    ]
    author = {"author": notes["author"]} if notes["author"] else {}
    return codec.dumps(
        {
            **document,
            **author,
            "created": notes["created"],
            "config": {**kept, **fresh["config"]},
            "rootfs": fresh["rootfs"],
            "history": history,
        }
    )
