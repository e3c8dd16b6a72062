"""Sigstore signatures in a registry: an image of their own, under a tag made of the manifest's digest.

Each layer is a payload; an annotation of its descriptor is the signature (cosign, specs/SIGNATURE_SPEC.md).
"""

from __future__ import annotations

import binascii

from sysbox.base import codec, program
from sysbox.base.errors import FormatError, TrustError
from sysbox.base.frozen import Frozen
from sysbox.image.documents import (
    MAX_CONFIG,
    MAX_MANIFEST,
    OCI_CONFIG,
    OCI_MANIFEST,
    Descriptor,
    descriptor,
    digest_of,
    load,
    mapping,
    sequence,
    text,
)
from sysbox.image.trust import keys, payload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
MAX_LAYERS = 128


class Attachment(Frozen):
    """What is pushed for a new signature: two blobs, then the manifest under the tag."""

    tag: str
    config: bytes
    config_descriptor: Descriptor
    layer: bytes  # the payload
    layer_descriptor: Descriptor
    annotations: dict[str, str]  # of the layer
    manifest: bytes
    media_type: str = OCI_MANIFEST


def tag(digest: str) -> str:
    """The tag of the signatures of a manifest: `sha256-<hex>.sig`."""
    return f"{digest.replace(':', '-')}.sig"


def read(data: bytes, what: str) -> list[tuple[Descriptor, str]]:
    """(descriptor of a payload, its signature in base64) of each signature in a manifest.

    Other attachments are left out. Raises TrustError for a malformed manifest.
    """
    try:
        found = []
        for item in _layers(_manifest(data, what), what):
            blob = descriptor(item, f"{what}: layer")
            notes = mapping(item, "annotations", f"{what}: layer")
            signature = text(notes, SIGNATURE, f"{what}: annotations")
            if blob.media_type != PAYLOAD or not signature:
                continue
            if blob.size > payload.MAX_PAYLOAD:
                raise FormatError(f"{what}: a payload is larger than {payload.MAX_PAYLOAD} bytes")
            found.append((blob, signature))
    except FormatError as error:
        raise TrustError(error.message) from None
    return found


def sign(
    key: Any, reference: str, digest: str, created: int, existing: tuple[bytes, bytes] | None = None
) -> Attachment:
    """Sign the manifest `digest` as `reference`, a name with a tag; `key` is from `keys.private`.

    `existing` is (manifest, config) of the signatures that the registry has: they are kept. `created` is in
    seconds since 1970. Raises TrustError if these are malformed.
    """
    signed = payload.write(
        reference, digest, payload.SIGSTORE, f"sysbox {program.VERSION}", created
    )
    notes = {SIGNATURE: binascii.b2a_base64(keys.sign(key, signed), newline=False).decode()}
    layer = _descriptor(signed, PAYLOAD)
    what = tag(digest)
    try:
        old = _layers(_manifest(existing[0], what), what) if existing else []
        config = _config(existing[1] if existing else b"", layer.digest, what)
    except FormatError as error:
        raise TrustError(error.message) from None
    described = _descriptor(config, OCI_CONFIG)
    manifest = codec.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": described.to_json(),
            "layers": [*old, {**layer.to_json(), "annotations": notes}],
        }
    )
    return Attachment(
        tag=what,
        config=config,
        config_descriptor=described,
        layer=signed,
        layer_descriptor=layer,
        annotations=notes,
        manifest=manifest,
    )


def _manifest(data: bytes, what: str) -> dict[str, Any]:
    """Only a config of an image and layers: unlike an image it may have none of these."""
    document = load(data, what, MAX_MANIFEST)
    if document.get("schemaVersion") != 2 or "manifests" in document:
        raise FormatError(f"{what}: is not an image manifest")
    if text(document, "mediaType", what) not in ("", OCI_MANIFEST):
        raise FormatError(f"{what}: is not an OCI image manifest")
    return document


def _layers(manifest: dict[str, Any], what: str) -> list[Any]:
    found = sequence(manifest, "layers", what, MAX_LAYERS)
    if not all(type(item) is dict for item in found):
        raise FormatError(f"{what}: layers must be objects")
    return found


def _config(existing: bytes, digest: str, what: str) -> bytes:
    """The configuration: it lists the payloads, as if they were layers."""
    document = load(existing, f"{what}: config", MAX_CONFIG) if existing else {}
    rootfs = mapping(document, "rootfs", what)
    diff_ids = [*sequence(rootfs, "diff_ids", what), digest]
    empty = {"architecture": "", "os": "", "config": {}}
    return codec.dumps({**empty, **document, "rootfs": {"type": "layers", "diff_ids": diff_ids}})


def _descriptor(data: bytes, media_type: str) -> Descriptor:
    return Descriptor(media_type=media_type, digest=digest_of(data), size=len(data))
