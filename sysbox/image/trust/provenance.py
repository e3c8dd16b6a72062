"""Where the images of the store came from, and the signatures by which they were accepted.

    provenance/<64 hex of the image id>.json    {"format": 1, "origins": [Origin...]}

One image can have several origins: the same content under two names. The file is beside the image's record
and not in it, since older versions refuse unknown keys there. Keys that a newer version adds here are
ignored; a missing or unreadable file means that the origin is unknown, which only a policy that accepts
anything accepts.
"""

from __future__ import annotations

import binascii

from sysbox.base import codec, files
from sysbox.base.errors import FormatError
from sysbox.base.flock import Lock
from sysbox.base.frozen import Frozen
from sysbox.image.catalog import Catalog
from sysbox.image.model import Image
from sysbox.image.reference import is_digest
from sysbox.image.trust.scopes import MADE_HERE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.image.trust.check import Verdict
    from sysbox.image.trust.signatures import Signature

FORMAT = 1
MAX_FILE = 16 << 20  # bytes
MAX_ORIGINS = 64


class Kept(Frozen):
    """A signature as it is kept."""

    kind: str  # signatures.SIMPLE or SIGSTORE
    content: str  # base64
    signature: str = ""
    where: str = ""


class Origin(Frozen):
    """One place that an image came from."""

    transport: str  # docker, oci-archive, ...; sysbox: it was made here
    reference: str  # a full reference, or a path; "" is an image without a name
    manifest: str  # the digest of its manifest
    index: str = ""  # the digest of the index that the manifest was chosen from
    time: str = ""  # when, RFC 3339
    verdict: str = ""  # how it was accepted, for `image inspect`
    signatures: tuple[
        Kept, ...
    ] = ()  # those that counted: the policy is checked again when it is run

    def wrong(self) -> str:
        if not is_digest(self.manifest) or (self.index and not is_digest(self.index)):
            return "manifest, index: must be sha256 digests"
        return ""

    def found(self) -> tuple[Signature, ...]:
        """The signatures, to be verified again. Raises FormatError."""
        from sysbox.image.trust.signatures import Signature

        try:
            return tuple(
                Signature(
                    kind=one.kind,
                    content=binascii.a2b_base64(one.content.encode()),
                    signature=one.signature,
                    where=one.where,
                )
                for one in self.signatures
            )
        except ValueError:
            raise FormatError(f"the provenance of {self.reference} is damaged") from None


def made_here(reference: str, manifest: str) -> Origin:
    """The origin of an image that this machine makes; `reference` is its full name or ""."""
    return Origin(transport=MADE_HERE, reference=reference, manifest=manifest, time=_now())


def accepted(
    transport: str, reference: str, manifest: str, verdict: Verdict, index: str = ""
) -> Origin:
    """The origin of an image that `check` has accepted."""
    return Origin(
        transport=transport,
        reference=reference,
        manifest=manifest,
        index=index,
        time=_now(),
        verdict=str(verdict),
        signatures=tuple(
            Kept(
                kind=one.kind,
                content=binascii.b2a_base64(one.content, newline=False).decode(),
                signature=one.signature,
                where=one.where,
            )
            for one in verdict.signatures
        ),
    )


def path_of(store: Catalog, image_id: str) -> str:
    """The file of an image. Raises FormatError for anything but an id."""
    if not is_digest(image_id):
        raise FormatError(f"{image_id!r} is not an image id")
    return f"{store.root}/provenance/{image_id[7:]}.json"


def read(store: Catalog, image_id: str) -> tuple[Origin, ...]:
    """The origins of an image, the newest first; () where they are unknown, or the file is damaged."""
    path = path_of(store, image_id)
    try:
        data = files.read_file(path, MAX_FILE)
        document = codec.loads(data, path) if data else {}
        if type(document) is not dict or document.get("format") != FORMAT:
            return ()
        items = document.get("origins")
        return tuple([_origin(item) for item in items]) if type(items) is list else ()
    except (FormatError, ValueError):
        return ()


def keep(store: Catalog, image: Image, origin: Origin) -> None:
    """Add an origin to those of an image; it replaces an older one of the same reference.

    Raises FormatError if the origin is that of another manifest, KernelError.
    """
    if origin.manifest != image.manifest:
        raise FormatError("the manifest of the image is not the one that policy.json accepted")
    path = path_of(store, image.id)
    files.make_private(f"{store.root}/provenance")
    with Lock(f"{store.root}/index.lock"):
        others = [
            one
            for one in read(store, image.id)
            if (one.transport, one.reference) != (origin.transport, origin.reference)
        ]
        origins = [origin, *others][:MAX_ORIGINS]
        document = {"format": FORMAT, "origins": [one.to_data() for one in origins]}
        files.write_file(path, codec.dumps(document), limit=MAX_FILE, durable=True)


def _origin(item: Any) -> Origin:
    """Raises ValueError."""
    known = _known(item, Origin)
    signatures = known.get("signatures")
    if type(signatures) is list:
        known["signatures"] = [_known(one, Kept) for one in signatures]
    return Origin.from_data(known)


def _known(item: Any, kind: type[Frozen]) -> dict[str, Any]:
    if type(item) is not dict:
        raise ValueError("must be an object")
    return {key: value for key, value in item.items() if key in kind._fields}


def _now() -> str:
    import time

    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
