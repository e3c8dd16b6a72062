"""docker's archive: what `docker save` writes and `docker load` reads, with a manifest.json.

`[{"Config": "<hex>.json", "RepoTags": ["web:1"], "Layers": ["<hex>.tar.gz", ...]}]` names files of it (moby,
image/spec/v1.2.md, "Combined Image JSON + Filesystem Changeset Format"). docker and podman take layers plain
or compressed with gzip, so layers are written as they are stored; those that docker 20.10 cannot decompress
are written plain. The format before docker 1.10, without a manifest.json, is not read.
"""

from __future__ import annotations

from sysbox.base import codec
from sysbox.base.errors import FormatError, SpecError
from sysbox.image.archive import SUFFIX, manifest_document
from sysbox.image.documents import (
    MAX_CONFIG,
    MAX_LAYERS,
    OCI_LAYER,
    parse_config,
    plain,
    sequence,
    strings,
    text,
)
from sysbox.image.formats.found import Found
from sysbox.image.formats.stored import layer_paths, read_blob
from sysbox.image.ingest import descriptor_of
from sysbox.image.reference import is_host, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from sysbox.image.catalog import Catalog
    from sysbox.image.formats.contents import Contents
    from sysbox.image.formats.found import Chosen
    from sysbox.image.formats.sinks import Sink
    from sysbox.image.ingest import Blob, Ingest

    Plain = Callable[[Blob, str], Blob]

MANIFEST = "manifest.json"
MAX_MANIFEST = 16 << 20
_MOST_IMAGES = 1000
_DOCKERS = frozenset(("", "gzip"))  # the compressions that docker 20.10 and podman read


def read(contents: Contents, work: Ingest) -> list[Found]:
    """The images of an archive, in its order. Raises FormatError, KernelError."""
    return [_image(contents, work, item) for item in read_manifest(contents)]


def read_manifest(contents: Contents) -> list[dict[str, Any]]:
    """The objects of manifest.json. Raises FormatError."""
    what = f"{contents.what}: {MANIFEST}"
    data = contents.read(MANIFEST, MAX_MANIFEST)
    if data is None:
        raise contents.missing(MANIFEST)
    items = codec.loads(data, what)
    if type(items) is not list or not all(type(item) is dict for item in items):
        raise FormatError(f"{what}: must be a list of objects")
    if not 1 <= len(items) <= _MOST_IMAGES:
        raise FormatError(f"{what}: must have 1 to {_MOST_IMAGES} images")
    return items


def names_of(item: dict[str, Any], what: str) -> tuple[str, ...]:
    """The full names of an image, from its RepoTags. Raises FormatError."""
    return tuple(full_name(one, what) for one in strings(item, "RepoTags", what))


def full_name(name: str, what: str) -> str:
    """A name that an archive gives an image, in full. Raises FormatError for one that no image may have."""
    try:
        reference = parse(name)
    except SpecError as error:
        raise FormatError(f"{what}: {error.message}") from None
    if reference.digest or is_host(name):
        raise FormatError(f"{what}: an image cannot be given the name {name}")
    return reference.full()


def _image(contents: Contents, work: Ingest, item: dict[str, Any]) -> Found:
    what = f"{contents.what}: {MANIFEST}"
    name = _inside(text(item, "Config", what), what)
    config = contents.read(name, MAX_CONFIG)
    if config is None:
        raise contents.missing(name)
    diff_ids = parse_config(config, new=True).diff_ids
    layers = [plain(one, what) for one in sequence(item, "Layers", what, MAX_LAYERS)]
    if len(layers) != len(diff_ids):
        raise FormatError(f"{what}: has {len(layers)} layers, and {name} has {len(diff_ids)}")
    blobs = tuple(_layer(contents, work, _inside(one, what)) for one in layers)
    kinds = [OCI_LAYER + SUFFIX[blob.compression] for blob in blobs]
    described = [descriptor_of(blob, kind) for blob, kind in zip(blobs, kinds, strict=True)]
    manifest = manifest_document(config, described)
    return Found(manifest=manifest, config=config, blobs=blobs, names=names_of(item, what))


def _layer(contents: Contents, work: Ingest, name: str) -> Blob:
    blob = contents.blob(name)
    if blob is None:
        raise contents.missing(name)
    if blob.compression not in SUFFIX:
        return work.decompress(blob, f"{contents.what}: {name}")  # xz and bzip2: as docker does
    return blob


def _inside(name: str, what: str) -> str:
    """A file's name in manifest.json; it may not lead anywhere else. Raises FormatError."""
    if not name or name.startswith("/") or not {"", ".", ".."}.isdisjoint(name.split("/")):
        raise FormatError(f"{what}: '{name[:200]}' is not the name of a file in the archive")
    return name


def write(store: Catalog, chosen: Sequence[Chosen], sink: Sink, uncompressed: Plain) -> None:
    """Write images into one archive; a layer or configuration that several have is written once.

    `uncompressed` makes a plain blob of one whose compression docker lacks. Raises NotFound, FormatError,
    OSError.
    """
    items = []
    files: dict[str, Blob] = {}
    configs: dict[str, bytes] = {}
    for image in chosen:
        layers = []
        for digest, blob in layer_paths(store, image):
            if blob.compression not in _DOCKERS:
                blob = files.get(f"plain {digest}") or uncompressed(blob, f"the layer {digest}")
                files[f"plain {digest}"] = blob
            layers.append((f"{blob.digest[7:]}.tar{'.gz' if blob.compression else ''}", blob))
        configs[f"{image.id[7:]}.json"] = read_blob(store, image.id, MAX_CONFIG)
        items.append(
            {
                "Config": f"{image.id[7:]}.json",
                "RepoTags": [parse(name).familiar() for name in image.names] or None,
                "Layers": [name for name, _ in layers],
            }
        )
        files.update(layers)
    sink.add(MANIFEST, codec.dumps(items))
    for name, data in configs.items():
        sink.add(name, data)
    for name, blob in files.items():
        if not name.startswith("plain "):
            sink.copy(name, blob.path, blob.size)
