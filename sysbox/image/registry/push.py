"""Push an image: the blobs that the registry lacks, byte for byte, then its manifest, then its signature.

A blob that another repository of the same registry has is mounted from there (OCI distribution spec,
"Mounting a blob from another repository"). A registry that lacks a blob refuses the manifest, so that the
tag means a whole image or what it meant before.
"""

from __future__ import annotations

import posix
import time

from sysbox.base.errors import FormatError, NotFound, SpecError, Unsupported
from sysbox.base.files import read_file
from sysbox.base.frozen import Frozen
from sysbox.image.documents import (
    DOCKER_MANIFEST,
    MAX_MANIFEST,
    OCI_MANIFEST,
    descriptor,
    load,
    parse_manifest,
)
from sysbox.image.formats.save import of_this_machine
from sysbox.image.reference import Reference, parse
from sysbox.image.registry import conf
from sysbox.image.registry.access import Access
from sysbox.image.trust import registries_d

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sysbox.image.catalog import Catalog, Entry
    from sysbox.image.documents import Descriptor
    from sysbox.image.model import Image
    from sysbox.image.registry.client import Repository

# what Report.state is called with
EXISTS, MOUNTED, PUSHING, PUSHED = "exists", "mounted", "pushing", "pushed"
FORMS = {"oci": OCI_MANIFEST, "v2s2": DOCKER_MANIFEST}  # podman's words
_MOST_SOURCES = 3  # repositories that a blob is asked to be mounted from


class Options(Access):
    """How to push."""

    form: str = ""  # a key of FORMS that the manifest must have, "" for any


class Report:
    """What happens, as it happens; this one is for a caller that does not want to know."""

    def begin(self, reference: Reference, descriptors: Sequence[Descriptor]) -> None:
        """The blobs: the layers, lowest first, and the configuration; `tell` and `state` use the index."""

    def tell(self, index: int, size: int) -> None:
        """So many bytes of a blob are sent."""

    def state(self, index: int, word: str) -> None:
        """One of the words above."""


class Pushed(Frozen):
    """What the registry has now."""

    reference: Reference
    digest: str  # of the manifest
    size: int  # bytes of it


def push(
    store: Catalog,
    image: Image,
    target: Reference,
    options: Options,
    report: Report,
    key: Any = None,
) -> Pushed:
    """Push an image of the store as `target`, and sign it with `key` (trust.keys.private) if one is given.

    The caller holds the store. Raises SpecError for a target that cannot be, Unsupported for another form
    than the image has, FormatError for a damaged store, and what the registry answers: AccessDenied,
    RegistryError, Unreachable.
    """
    _check(image, target, signed=key is not None)
    manifest = read_file(store.blob(image.manifest), MAX_MANIFEST)
    if manifest is None:
        raise FormatError(f"the store lacks the manifest {image.manifest}", hint="run `sysbox gc`")
    kinds = [one.media_type for one in store.entries() if one.digest == image.manifest]
    parsed = parse_manifest(manifest, kinds[0] if kinds else "")
    if options.form and parsed.media_type != FORMS[options.form]:
        raise Unsupported(
            f"{target.familiar()}: the image has a manifest of the type {parsed.media_type}",
            hint="an image is pushed byte for byte, so that its digest stays: leave out --format",
        )
    blobs = (*parsed.layers, parsed.config)
    report.begin(target, blobs)
    endpoint = conf.push_endpoint(target)
    with options.repository(endpoint) as repository:
        sources = _Sources(store, target)
        for index, blob in enumerate(blobs):
            _send(repository, store, blob, index, sources, report)
        digest = repository.put_manifest(manifest, parsed.media_type, target.tag)
        if key is not None:
            _sign(repository, key, target, digest)
    return Pushed(reference=target, digest=digest, size=len(manifest))


def _check(image: Image, target: Reference, *, signed: bool) -> None:
    """Raises SpecError, Unsupported for an image or a target that cannot be."""
    if target.digest:
        raise SpecError(
            f"{target.familiar()}: an image is pushed under a tag, and its digest follows from it"
        )
    if image.usr_bind:
        raise of_this_machine(target.familiar())
    if signed and not registries_d.load().attachments(target.full()):
        raise SpecError(
            f"{target.familiar()}: registries.d does not say that its signatures are in the registry",
            hint="set `use-sigstore-attachments: true` for it, see containers-registries.d(5)",
        )


def _send(
    repository: Repository,
    store: Catalog,
    blob: Descriptor,
    index: int,
    sources: _Sources,
    report: Report,
) -> None:
    """Have the registry have a blob."""
    if repository.has_blob(blob.digest):
        report.state(index, EXISTS)
        return
    for source in sources.of(blob.digest):
        if repository.mount(blob.digest, source):
            report.state(index, MOUNTED)
            return
    report.state(index, PUSHING)
    sent = 0

    def tell(count: int) -> None:
        nonlocal sent
        sent += count
        report.tell(index, sent)

    try:
        fd = posix.open(store.blob(blob.digest), posix.O_RDONLY | posix.O_CLOEXEC)
    except FileNotFoundError:
        raise FormatError(f"the store lacks the blob {blob.digest}") from None
    try:
        repository.upload(blob, fd, tell)
    finally:
        posix.close(fd)
    report.state(index, PUSHED)


class _Sources:
    """Other repositories of the target's registry that have blobs of images of this store."""

    def __init__(self, store: Catalog, target: Reference) -> None:
        self._store = store
        self._domain = target.domain
        self._path = target.path
        self._found: dict[str, list[str]] | None = None  # digest -> repositories

    def of(self, digest: str) -> list[str]:
        """The repositories that may have a blob."""
        if self._found is None:
            self._found = {}
            for entry in self._store.entries():
                self._add(entry, self._found)
        return self._found.get(digest, [])[:_MOST_SOURCES]

    def _add(self, entry: Entry, found: dict[str, list[str]]) -> None:
        if not entry.name or entry.builtin:
            return
        name = parse(entry.name)
        if name.domain != self._domain or name.path == self._path:
            return
        data = read_file(self._store.blob(entry.digest), MAX_MANIFEST)
        if data is None:
            return
        try:
            parsed = parse_manifest(data, entry.media_type)
        except FormatError:
            return  # ignoring: it only would have saved time
        for blob in (*parsed.layers, parsed.config):
            repositories = found.setdefault(blob.digest, [])
            if name.path not in repositories:
                repositories.append(name.path)


def _sign(repository: Repository, key: Any, target: Reference, digest: str) -> None:
    """Push a sigstore signature beside the image, with those that are there. Raises TrustError."""
    from sysbox.image.trust import attachments

    tag = attachments.tag(digest)
    made = attachments.sign(
        key, target.full(), digest, int(time.time()), _existing(repository, tag)
    )
    _send_bytes(repository, made.config_descriptor, made.config)
    _send_bytes(repository, made.layer_descriptor, made.layer)
    repository.put_manifest(made.manifest, made.media_type, made.tag)


def _existing(repository: Repository, tag: str) -> tuple[bytes, bytes] | None:
    """(manifest, configuration) of the signatures that the registry has."""
    try:
        manifest = repository.manifest(tag).data
    except NotFound:
        return None
    described = descriptor(load(manifest, tag, MAX_MANIFEST).get("config"), f"{tag}: config")
    return manifest, repository.document(described)


def _send_bytes(repository: Repository, described: Descriptor, data: bytes) -> None:
    if repository.has_blob(described.digest):
        return
    fd = posix.memfd_create("blob", posix.MFD_CLOEXEC)
    try:
        posix.write(fd, data)
        repository.upload(described, fd)
    finally:
        posix.close(fd)
