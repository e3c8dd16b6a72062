"""Sign a manifest that was pushed, and push the signature: `push --sign-by-sigstore-private-key`.

key = publish.load_key(path, passphrase_file)      before anything is pushed
publish.check(reference)
...                                                push the image
publish.sign(repository, key, reference, digest)
"""

from __future__ import annotations

import os
import time

from sysbox.base.errors import NotFound, SpecError, TrustError
from sysbox.image.documents import MAX_CONFIG, descriptor, load
from sysbox.image.trust import attachments, keys, registries_d
from sysbox.image.trust.admit import read_blob
from sysbox.image.trust.files import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.image.documents import Descriptor
    from sysbox.image.reference import Reference
    from sysbox.image.registry.client import Repository

_MAX_PASSPHRASE = 4096  # bytes


def load_key(path: str, passphrase_file: str = "") -> Any:
    """The private key of --sign-by-sigstore-private-key; the passphrase is the first line of its file.

    Raises SpecError, Unsupported, TrustError for a file that cannot be read.
    """
    data = read(path, keys.MAX_KEY)
    if data is None:
        raise SpecError(f"--sign-by-sigstore-private-key {path}: there is no such file")
    passphrase = b""
    if passphrase_file:
        found = read(passphrase_file, _MAX_PASSPHRASE)
        if found is None:
            raise SpecError(f"--sign-passphrase-file {passphrase_file}: there is no such file")
        passphrase = found.partition(b"\n")[0]
    return keys.private(data, passphrase, path)


def check(reference: Reference) -> None:
    """Raise TrustError unless registries.d allows attachments there: others would not find them."""
    if not reference.tag:
        raise TrustError(
            f"{reference.full()}: a signature names a tag, and there is none",
            hint="push it under a tag",
        )
    if not registries_d.load().attachments(reference.full()):
        raise TrustError(
            f"{reference.full()}: registries.d does not allow sigstore signatures there",
            hint="set `use-sigstore-attachments: true` for it; see containers-registries.d(5)",
        )


def sign(repository: Repository, key: Any, reference: Reference, digest: str) -> None:
    """Sign the manifest `digest` as `reference`, and push that beside the signatures that are there.

    Raises TrustError if these are malformed, RegistryError.
    """
    check(reference)
    existing = _existing(repository, attachments.tag(digest))
    made = attachments.sign(key, reference.full(), digest, int(time.time()), existing)
    _upload(repository, made.config_descriptor, made.config)
    _upload(repository, made.layer_descriptor, made.layer)
    repository.put_manifest(made.manifest, made.media_type, made.tag)


def _existing(repository: Repository, tag: str) -> tuple[bytes, bytes] | None:
    """(manifest, configuration) of the signatures that the registry has."""
    try:
        found = repository.manifest(tag).data
    except NotFound:
        return None
    config = descriptor(load(found, tag, len(found)).get("config"), f"{tag}: config")
    if config.size > MAX_CONFIG:
        raise TrustError(f"{tag}: its config is larger than {MAX_CONFIG} bytes")
    return found, read_blob(repository, config)


def _upload(repository: Repository, described: Descriptor, data: bytes) -> None:
    if repository.has_blob(described.digest):
        return
    fd = os.memfd_create("signature", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        repository.upload(described, fd)
    finally:
        os.close(fd)
