"""OCI image layouts: a directory, or the same as an archive (OCI image-layout.md).

`index.json` lists manifests, and indexes of manifests for several platforms, of which that of this machine
is taken. Documents and layers are kept and written byte for byte; only a manifest of docker's type is
written as OCI's, since an OCI layout promises its media types.
"""

from __future__ import annotations

from sysbox.base import codec
from sysbox.base.errors import FormatError, NotFound
from sysbox.base.frozen import Frozen
from sysbox.image.archive import SUFFIX, manifest_document
from sysbox.image.catalog import MAX_INDEX, OCI_INDEX, REF_NAME
from sysbox.image.documents import (
    DOCKER_MANIFEST,
    LAYER_TYPES,
    MAX_CONFIG,
    MAX_MANIFEST,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    descriptor,
    digest_of,
    load,
    mapping,
    parse_config,
    parse_manifest,
    sequence,
    text,
)
from sysbox.image.formats import docker_archive
from sysbox.image.formats.contents import path_of
from sysbox.image.formats.found import Found
from sysbox.image.formats.stored import layer_paths, manifest_of, read_blob
from sysbox.image.registry.media import INDEXES
from sysbox.image.registry.platform import MAX_DEPTH, choose, parse_index

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sysbox.image.catalog import Catalog
    from sysbox.image.formats.contents import Contents
    from sysbox.image.formats.found import Chosen
    from sysbox.image.formats.sinks import Sink
    from sysbox.image.ingest import Blob
    from sysbox.image.registry.platform import Platform

LAYOUT = "oci-layout"
INDEX = "index.json"
_MANIFESTS = frozenset((OCI_MANIFEST, DOCKER_MANIFEST))
_NAMES = ("io.containerd.image.name", REF_NAME)  # the better one first
_MOST_IMAGES = 1000
_MOST_LAYOUT = 4096  # bytes of oci-layout


class _Item(Frozen):
    """One descriptor of an index, with what it says beside the digest."""

    descriptor: Descriptor
    os: str = ""
    names: tuple[str, ...] = ()


def read(contents: Contents, platform: Platform) -> list[Found]:
    """The images of a layout, in the order of its index; of an inner index, the one for the platform.

    Raises FormatError, NotFound, KernelError.
    """
    _check_version(contents)
    data = contents.read(INDEX, MAX_INDEX)
    if data is None:
        raise contents.missing(INDEX)
    found: dict[str, Found] = {}
    for item in _items(data, f"{contents.what}: {INDEX}"):
        if item.os == "unknown":
            continue  # BuildKit's attestations
        chosen = _resolve(contents, item, platform)
        if chosen is None:
            continue
        image = found.get(chosen.digest) or _image(contents, chosen)
        found[chosen.digest] = image.replace(names=(*image.names, *item.names))
    if not found:
        raise NotFound(f"{contents.what}: has no image")
    return _named(contents, list(found.values()))


def _check_version(contents: Contents) -> None:
    what = f"{contents.what}: {LAYOUT}"
    data = contents.read(LAYOUT, _MOST_LAYOUT)
    if data is None:
        raise contents.missing(LAYOUT)
    version = text(load(data, what, _MOST_LAYOUT), "imageLayoutVersion", what)
    if not version.startswith("1."):
        raise FormatError(f"{what}: version '{version}' is not known; 1.0.0 is")


def _items(data: bytes, what: str) -> list[_Item]:
    """The descriptors of an index (OCI image-index.md). Raises FormatError."""
    document = load(data, what, MAX_INDEX)
    if "layers" in document or "config" in document:
        raise FormatError(f"{what}: is an index and a manifest at the same time")
    if document.get("schemaVersion") != 2:
        raise FormatError(f"{what}: schemaVersion must be 2")
    items = sequence(document, "manifests", what, _MOST_IMAGES)
    return [_item(item, f"{what}: manifests[{index}]") for index, item in enumerate(items)]


def _item(value: Any, what: str) -> _Item:
    found = descriptor(value, what)
    platform = mapping(value, "platform", what)
    notes = mapping(value, "annotations", what)
    names = [text(notes, key, what) for key in _NAMES]
    # a bare word is a tag without a repository, as skopeo and umoci write it: it names no image here
    whole = next((name for name in names if ":" in name or "/" in name), "")
    return _Item(
        descriptor=found,
        os=text(platform, "os", what),
        names=(docker_archive.full_name(whole, what),) if whole else (),
    )


def _resolve(
    contents: Contents, item: _Item, platform: Platform, above: tuple[str, ...] = ()
) -> Descriptor | None:
    """The manifest that a descriptor leads to; None for something else than an image.

    Raises FormatError for indexes that contain themselves, and for too many within one another; NotFound.
    """
    found = item.descriptor
    if found.media_type not in INDEXES:
        return found if found.media_type in _MANIFESTS else None
    if found.digest in above or len(above) > MAX_DEPTH:
        raise FormatError(f"{contents.what}: indexes within indexes: {found.digest}")
    data = _document(contents, found, MAX_INDEX)
    inner = choose(
        parse_index(data, found.media_type), platform.os, platform.architecture, platform.variant
    )
    return _resolve(contents, _Item(descriptor=inner), platform, (*above, found.digest))


def _image(contents: Contents, found: Descriptor) -> Found:
    manifest = _document(contents, found, MAX_MANIFEST)
    parsed = parse_manifest(manifest, found.media_type)
    config = _document(contents, parsed.config, MAX_CONFIG)
    if len(parse_config(config, new=True).diff_ids) != len(parsed.layers):
        raise FormatError(f"{contents.what}: {found.digest}: not as many diff_ids as layers")
    blobs = tuple(_layer(contents, one) for one in parsed.layers)
    return Found(manifest=manifest, config=config, blobs=blobs)


def _document(contents: Contents, found: Descriptor, limit: int) -> bytes:
    """A manifest, an index or a configuration, verified. Raises FormatError."""
    name = path_of(found.digest)
    data = contents.read(name, limit)
    if data is None:
        raise contents.missing(name)
    if len(data) != found.size or digest_of(data) != found.digest:
        raise FormatError(f"{contents.what}: {name}: its content is not that of its digest")
    return data


def _layer(contents: Contents, found: Descriptor) -> Blob:
    name = path_of(found.digest)
    blob = contents.blob(name)
    if blob is None:
        raise contents.missing(name)
    if (blob.digest, blob.size) != (found.digest, found.size):
        raise FormatError(f"{contents.what}: {name}: its content is not that of its digest")
    return blob


def _named(contents: Contents, found: list[Found]) -> list[Found]:
    """Images without a name get those that a manifest.json of docker's beside the layout gives them."""
    if (
        all(image.names for image in found)
        or contents.read(docker_archive.MANIFEST, 1 << 24) is None
    ):
        return found
    known: dict[str, tuple[str, ...]] = {}
    what = f"{contents.what}: {docker_archive.MANIFEST}"
    for item in docker_archive.read_manifest(contents):
        known[text(item, "Config", what)] = docker_archive.names_of(item, what)
    return [
        image
        if image.names
        else image.replace(names=known.get(path_of(digest_of(image.config)), ()))
        for image in found
    ]


def write(store: Catalog, chosen: Sequence[Chosen], sink: Sink) -> None:
    """Write images as one layout. Raises NotFound, FormatError, OSError."""
    small: dict[str, bytes] = {}
    layers: dict[str, Blob] = {}
    manifests = []
    for image in chosen:
        manifest = _oci_manifest(store, image)
        small[digest_of(manifest)] = manifest
        small[image.id] = read_blob(store, image.id, MAX_CONFIG)
        layers.update(layer_paths(store, image))
        described = Descriptor(
            media_type=OCI_MANIFEST, digest=digest_of(manifest), size=len(manifest)
        )
        for name in image.names or ("",):
            notes = {"annotations": dict.fromkeys(_NAMES, name)} if name else {}
            manifests.append({**described.to_json(), **notes})
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
    sink.add(LAYOUT, codec.dumps({"imageLayoutVersion": "1.0.0"}))
    sink.add(INDEX, codec.dumps(index))
    sink.directory("blobs")
    sink.directory("blobs/sha256")
    for digest, data in small.items():
        sink.add(path_of(digest), data)
    for digest, blob in layers.items():
        sink.copy(path_of(digest), blob.path, blob.size)


def _oci_manifest(store: Catalog, image: Chosen) -> bytes:
    """The manifest as it is stored, or with OCI's media types instead of docker's."""
    data, parsed = manifest_of(store, image)
    if parsed.media_type == OCI_MANIFEST:
        return data
    kinds = [OCI_LAYER + SUFFIX[LAYER_TYPES[layer.media_type]] for layer in parsed.layers]
    config = read_blob(store, image.id, MAX_CONFIG)
    return manifest_document(
        config,
        [one.replace(media_type=kind) for one, kind in zip(parsed.layers, kinds, strict=True)],
    )
