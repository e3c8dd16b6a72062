"""Media types of manifests: what is accepted; documents that could be read in two ways are refused."""

from __future__ import annotations

from sysbox.base.errors import FormatError
from sysbox.base.frozen import Frozen
from sysbox.image.catalog import OCI_INDEX
from sysbox.image.documents import DOCKER_MANIFEST, MAX_MANIFEST, OCI_MANIFEST, load, text

MAX_INDEX = MAX_MANIFEST
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
INDEXES = (OCI_INDEX, DOCKER_LIST)
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
ACCEPTED = (*MANIFESTS, *INDEXES)
_SCHEMA_1 = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)
# what servers say that know nothing of the type
_VAGUE = ("", "application/json", "application/octet-stream", "text/plain", "binary/octet-stream")


class Fetched(Frozen):
    """A manifest or an index as the registry has it, byte for byte."""

    data: bytes
    media_type: str  # one of ACCEPTED
    digest: str  # of `data`


def is_index(media_type: str) -> bool:
    """Whether a media type is that of an index of several manifests."""
    return media_type in INDEXES


def type_of(data: bytes, header: str, what: str) -> str:
    """The media type of a document that came with a Content-Type, one of ACCEPTED.

    The type of the header must be the document's own (OCI manifest.md, "mediaType"), and the document must be
    of one kind alone (CVE-2021-41190). Raises FormatError.
    """
    sent = header.partition(";")[0].strip().lower()
    document = load(data, what, MAX_MANIFEST)
    if sent in _SCHEMA_1 or document.get("schemaVersion") == 1:
        raise FormatError(
            f"{what}: is a manifest of schema 1, which says nothing that could be verified",
            hint="push the image again with a newer tool; sysbox reads OCI and docker schema 2",
        )
    named = text(document, "mediaType", what)
    if named and sent not in (*_VAGUE, named):
        raise FormatError(f"{what}: is sent as '{sent}' and says that it is '{named}'")
    many = "manifests" in document
    if many and ("layers" in document or "config" in document):
        raise FormatError(f"{what}: has both 'manifests' and 'layers' or 'config'")
    found = named or (sent if sent not in _VAGUE else OCI_INDEX if many else OCI_MANIFEST)
    if found not in ACCEPTED:
        raise FormatError(f"{what}: '{found}' is not the type of an image manifest or an index")
    if many != (found in INDEXES):
        raise FormatError(
            f"{what}: is called '{found}' and {'has' if many else 'lacks'} 'manifests'"
        )
    return found
