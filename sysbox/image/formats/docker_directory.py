"""The directory of the container tools' `dir:` transport: a manifest, and its blobs under their hex digests.

    version         "Directory Transport Version: 1.1"
    manifest.json   the manifest as a registry has it; not docker's manifest.json of an archive
    <64 hex>        the configuration, and each layer

It holds one image, without a name (containers-transports(5), "dir:path").
"""

from __future__ import annotations

from sysbox.base.errors import FormatError
from sysbox.image.documents import MAX_CONFIG, MAX_MANIFEST, digest_of, parse_config, parse_manifest
from sysbox.image.formats.found import Found
from sysbox.image.formats.stored import layer_paths, manifest_of, read_blob

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.image.catalog import Catalog
    from sysbox.image.formats.contents import Contents
    from sysbox.image.formats.found import Chosen
    from sysbox.image.formats.sinks import Sink
    from sysbox.image.ingest import Blob

VERSION = "version"
MANIFEST = "manifest.json"
_VERSION = b"Directory Transport Version: 1."


def read(contents: Contents) -> list[Found]:
    """The one image of a directory. Raises FormatError, KernelError."""
    version = contents.read(VERSION, MAX_MANIFEST)
    if version is None or not version.startswith(_VERSION):
        raise FormatError(f"{contents.what}: {VERSION}: not a version that is known (1.1)")
    manifest = contents.read(MANIFEST, MAX_MANIFEST)
    if manifest is None:
        raise contents.missing(MANIFEST)
    parsed = parse_manifest(manifest)
    name = parsed.config.digest[7:]
    config = contents.read(name, MAX_CONFIG)
    if config is None:
        raise contents.missing(name)
    if digest_of(config) != parsed.config.digest or len(config) != parsed.config.size:
        raise FormatError(f"{contents.what}: {name}: its content is not that of its digest")
    if len(parse_config(config, new=True).diff_ids) != len(parsed.layers):
        raise FormatError(f"{contents.what}: not as many diff_ids as layers")
    blobs = []
    for layer in parsed.layers:
        blob = contents.blob(layer.digest[7:])
        if blob is None:
            raise contents.missing(layer.digest[7:])
        if (blob.digest, blob.size) != (layer.digest, layer.size):
            raise FormatError(f"{contents.what}: {layer.digest[7:]}: not the content of its digest")
        blobs.append(blob)
    return [Found(manifest=manifest, config=config, blobs=tuple(blobs))]


def write(store: Catalog, image: Chosen, sink: Sink) -> None:
    """Write an image, byte for byte as it is stored. Raises NotFound, FormatError, OSError."""
    manifest, _ = manifest_of(store, image)
    layers: dict[str, Blob] = dict(layer_paths(store, image))
    sink.add(VERSION, _VERSION + b"1\n")
    sink.add(MANIFEST, manifest)
    sink.add(image.id[7:], read_blob(store, image.id, MAX_CONFIG))
    for digest, blob in layers.items():
        sink.copy(digest[7:], blob.path, blob.size)
