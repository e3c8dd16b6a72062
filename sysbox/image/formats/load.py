"""Read images from a file or a directory into the store: all of them, or none.

Everything is read, verified and unpacked before the first image gets into the index.
"""

from __future__ import annotations

from sysbox.base.errors import FormatError
from sysbox.base.frozen import Frozen
from sysbox.image import fetch, removal
from sysbox.image.documents import digest_of, parse_config, parse_manifest
from sysbox.image.formats import docker_archive, docker_directory, oci_layout
from sysbox.image.formats.contents import open_contents
from sysbox.image.ingest import Ingest
from sysbox.image.reference import parse
from sysbox.image.registry.platform import own
from sysbox.image.tar import LayerLimits
from sysbox.image.trust import provenance
from sysbox.image.trust.check import check
from sysbox.image.trust.policy import load as load_policy
from sysbox.image.trust.signatures import NONE
from sysbox.image.verified import Verified

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.image.catalog import Catalog
    from sysbox.image.documents import Descriptor
    from sysbox.image.formats.contents import Contents
    from sysbox.image.formats.found import Found
    from sysbox.image.ingest import Blob, Layer
    from sysbox.image.model import Image
    from sysbox.image.registry.blobs import BlobStream
    from sysbox.image.registry.platform import Platform
    from sysbox.image.trust.provenance import Origin


class Loaded(Frozen):
    """An image that was loaded."""

    id: str
    labels: dict[str, str] = {}  # noqa: RUF012 (the metaclass makes it a default)
    names: tuple[str, ...] = ()  # as docker shows them
    moved: dict[str, str] = {}  # noqa: RUF012 (the same): a name -> the id of the image that had it


def load(
    store: Catalog,
    fd: int,
    what: str,
    tell: Callable[[int], object] = lambda _: None,
    *,
    path: str = "",
    platform: Platform | None = None,
) -> list[Loaded]:
    """The images of an archive, which is read to its end, or of a directory; `tell` gets bytes read.

    `path` is the absolute one of what is read, if it has one, for policy.json and `image inspect`;
    `platform` is this machine's by default. Raises FormatError for malformed or hostile content, NotFound
    for an index without the platform, TrustError, Unsupported, KernelError; no image is then added.
    """
    with Ingest(store, LayerLimits(unended=True)) as work:
        contents = open_contents(work, fd, what, tell)
        transport, found = _read(contents, work, platform or own())
        origins = _accepted(found, transport, path)
        verified = Verified(store)
        stacks = [_unpack(work, one, verified) for one in found]
        return [
            _commit(work, one, stack, origin)
            for one, stack, origin in zip(found, stacks, origins, strict=True)
        ]


def _read(contents: Contents, work: Ingest, platform: Platform) -> tuple[str, list[Found]]:
    """(transport, images), by the form that the names of the files show (containers-transports(5))."""
    if contents.read(oci_layout.LAYOUT, 4096) is not None:
        transport = "oci" if contents.is_directory else "oci-archive"
        return transport, oci_layout.read(contents, platform)
    if contents.read(docker_directory.VERSION, 4096) is not None:
        return "dir", docker_directory.read(contents)
    if contents.read(docker_archive.MANIFEST, docker_archive.MAX_MANIFEST) is not None:
        return "docker-archive", docker_archive.read(contents, work)
    if contents.read("repositories", docker_archive.MAX_MANIFEST) is not None:
        raise FormatError(
            f"{contents.what}: the format of docker before 1.10",
            hint="load it with a newer docker, and save it again",
        )
    raise FormatError(
        f"{contents.what}: no image: neither a manifest.json nor an oci-layout",
        hint="`sysbox import` takes the root file system of a container",
    )


def _accepted(found: list[Found], transport: str, path: str) -> list[Origin]:
    """How policy.json accepts each image. Raises TrustError; archives carry no signatures."""
    policy = load_policy()
    origins = []
    for one in found:
        digest = digest_of(one.manifest)
        verdict = check(policy, transport, path, digest, one.manifest, NONE)
        origins.append(provenance.accepted(transport, path, digest, verdict))
    return origins


def _unpack(work: Ingest, found: Found, verified: Verified) -> tuple[list[Blob], list[Layer]]:
    """The blobs and the unpacked layers of an image, lowest first; several are unpacked at a time."""
    diff_ids = parse_config(found.config, new=True).diff_ids
    layers = parse_manifest(found.manifest).layers
    local = {blob.digest: blob.path for blob in found.blobs}
    return fetch.layers(work, layers, diff_ids, _no_blob, verified=verified, local=local)


def _no_blob(descriptor: Descriptor, _: int) -> BlobStream:
    raise FormatError(f"the blob {descriptor.digest} is not in the store any more")


def _commit(
    work: Ingest, found: Found, unpacked: tuple[list[Blob], list[Layer]], origin: Origin
) -> Loaded:
    """Add an image under all of its names."""
    store = work.store
    moved = {}
    for name in found.names:
        old = next((entry.image_id for entry in store.entries() if entry.name == name), "")
        moved[parse(name).familiar()] = old
    first = found.names[0] if found.names else ""
    image = work.commit(found.manifest, found.config, *unpacked, first, origin=origin)
    for name in found.names[1:]:
        removal.tag(store, image.id, name)
    return _loaded(image, moved)


def _loaded(image: Image, moved: dict[str, str]) -> Loaded:
    return Loaded(
        id=image.id,
        labels=image.config.labels,
        names=tuple(moved),
        moved={name: old for name, old in moved.items() if old not in ("", image.id)},
    )
