"""The document that a signature signs: which manifest has which name (containers-signature(5)).

Read only after the signature has been verified, and strictly: a document that can be read in two ways is
refused.
"""

from __future__ import annotations

from sysbox.base import codec
from sysbox.base.errors import FormatError
from sysbox.base.frozen import Frozen
from sysbox.image.reference import is_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SIMPLE = "atomic container signature"
SIGSTORE = "cosign container image signature"
MAX_PAYLOAD = 1 << 20  # bytes


class Claim(Frozen):
    """What the signer said."""

    reference: str  # as written: a name, with or without a tag
    digest: str  # of the manifest


def read(data: bytes, kind: str) -> Claim:
    """The claim in a document of the type `kind`, SIMPLE or SIGSTORE. Raises FormatError."""
    what = "payload"
    if len(data) > MAX_PAYLOAD:
        raise FormatError(f"{what}: larger than {MAX_PAYLOAD} bytes")
    document = _exactly(codec.loads(data, what), what, ("critical", "optional"))
    critical = _exactly(document["critical"], f"{what}: critical", ("type", "image", "identity"))
    if critical["type"] != kind:
        raise FormatError(f"{what}: its type is {critical['type']!r}, not '{kind}'")
    image = _exactly(critical["image"], f"{what}: image", ("docker-manifest-digest",))
    identity = _exactly(critical["identity"], f"{what}: identity", ("docker-reference",))
    digest, name = image["docker-manifest-digest"], identity["docker-reference"]
    if not is_digest(digest):
        raise FormatError(f"{what}: docker-manifest-digest is not a sha256 digest")
    if type(name) is not str:
        raise FormatError(f"{what}: docker-reference must be text")
    _check_optional(document["optional"], kind, f"{what}: optional")
    return Claim(reference=name, digest=digest)


def write(reference: str, digest: str, kind: str, creator: str, timestamp: int) -> bytes:
    """The document; `timestamp` in seconds since 1970."""
    return codec.dumps(
        {
            "critical": {
                "type": kind,
                "image": {"docker-manifest-digest": digest},
                "identity": {"docker-reference": reference},
            },
            "optional": {"creator": creator, "timestamp": timestamp},
        }
    ).rstrip(b"\n")


def _exactly(value: Any, what: str, keys: tuple[str, ...]) -> dict[str, Any]:
    if type(value) is not dict or set(value) != set(keys):
        raise FormatError(f"{what}: must have the keys {', '.join(keys)}, and no others")
    return value


def _check_optional(value: Any, kind: str, what: str) -> None:
    """Anything may be there; what has a meaning must have its type. cosign writes null."""
    if value is None and kind == SIGSTORE:
        return
    if type(value) is not dict:
        raise FormatError(f"{what}: must be an object")
    if "creator" in value and type(value["creator"]) is not str:
        raise FormatError(f"{what}: creator must be text")
    time = value.get("timestamp", 0)
    if type(time) not in (int, float) or time != int(time):
        raise FormatError(f"{what}: timestamp must be an integer")
