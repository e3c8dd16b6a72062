"""An image that a file format brought, before it is unpacked."""

from __future__ import annotations

from sysbox.base.frozen import Frozen
from sysbox.image.ingest import Blob


class Found(Frozen):
    """Its documents byte for byte, and the archives of its layers, which match them in number and digest."""

    manifest: bytes
    config: bytes
    blobs: tuple[Blob, ...]  # lowest first
    names: tuple[str, ...] = ()  # full references


class Chosen(Frozen):
    """An image of the store that is to be written."""

    id: str  # the digest of its configuration
    manifest: str  # the digest of its manifest
    names: tuple[str, ...] = ()  # full references
