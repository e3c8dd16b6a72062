"""Rebuild a lost record of an image: all of it is derived from the image's blobs and the index."""

from __future__ import annotations

from sysbox.base import codec, files
from sysbox.base.errors import FormatError, NotFound
from sysbox.host import exists
from sysbox.image.catalog import (
    MAX_LAYER_RECORD,
    MAX_RECORD,
    Catalog,
    Entry,
    chain_ids,
    layer_name,
)
from sysbox.image.documents import MAX_CONFIG, MAX_MANIFEST, digest_of, parse_config, parse_manifest
from sysbox.image.ingest import Layer, describe
from sysbox.image.model import Image


def record(store: Catalog, image_id: str, entries: list[Entry]) -> Image:
    """Write the record of an image again; returns the image.

    Raises NotFound if a blob or a layer is missing, FormatError if one is damaged.
    """
    if not entries:
        raise NotFound(f"no such image: {image_id}")
    entry = entries[0]
    manifest = _blob(store, entry.digest, MAX_MANIFEST)
    config = _blob(store, image_id, MAX_CONFIG)
    chains = chain_ids(parse_config(config).diff_ids)
    stack = [read_layer(store, layer_name(chain)) for chain in chains]
    image = describe(
        config,
        parse_manifest(manifest),
        stack,
        entry.digest,
        usr_bind=any(e.builtin for e in entries),
    )
    with store.hold():
        files.write_file(
            store.record(image_id), codec.dumps(image.to_data()), limit=MAX_RECORD, durable=True
        )
    return image


def read_layer(store: Catalog, name: str) -> Layer:
    """The record of a layer; raises NotFound, FormatError."""
    path = f"{store.layer(name)}.json"
    data = files.read_file(path, MAX_LAYER_RECORD)
    if data is None or not exists(store.layer(name)):
        raise NotFound(
            f"the layer {name} is missing in {store.root}", hint="import the image again"
        )
    try:
        return Layer.from_data(codec.loads(data, path), path)
    except ValueError as error:
        raise FormatError(str(error)) from None


def _blob(store: Catalog, digest: str, limit: int) -> bytes:
    data = files.read_file(store.blob(digest), limit)
    if data is None:
        raise NotFound(
            f"the blob {digest} is missing in {store.root}", hint="import the image again"
        )
    if digest_of(data) != digest:
        raise FormatError(f"{store.blob(digest)}: damaged: its digest is {digest_of(data)}")
    return data
