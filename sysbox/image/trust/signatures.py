"""The signatures of one manifest, fetched only when a requirement asks for them."""

from __future__ import annotations

from sysbox.base.errors import TrustError
from sysbox.base.frozen import Frozen
from sysbox.image.caller_files import read_below
from sysbox.image.reference import parse
from sysbox.image.trust import registries_d
from sysbox.image.trust.gpg import MAX_SIGNATURE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sysbox.image.documents import Descriptor

MAX_SIGNATURES = 128  # of one manifest and kind
SIMPLE = "simple"  # an OpenPGP message
SIGSTORE = "sigstore"  # a payload and its signature


class Signature(Frozen):
    """One signature, not verified."""

    kind: str  # SIMPLE or SIGSTORE
    content: bytes  # the message, or the payload
    signature: str = ""  # of a payload, in base64
    where: str = ""  # the URL or the name that it was read from


class Signatures:
    """No signatures: those of images that come from an archive."""

    def simple(self) -> Iterator[Signature]:
        """OpenPGP messages. Raises TrustError."""
        return iter(())

    def sigstore(self) -> Iterator[Signature]:
        """Payloads with signatures. Raises TrustError."""
        return iter(())

    def of(self, kind: str) -> Iterator[Signature]:
        """Those of one kind."""
        return self.simple() if kind == SIMPLE else self.sigstore()


NONE = Signatures()


class Given(Signatures):
    """Signatures that were fetched before."""

    def __init__(self, found: tuple[Signature, ...]) -> None:
        self._found = found

    def simple(self) -> Iterator[Signature]:
        return (one for one in self._found if one.kind == SIMPLE)

    def sigstore(self) -> Iterator[Signature]:
        return (one for one in self._found if one.kind == SIGSTORE)


class Remote(Signatures):
    """Those of a manifest in a registry: its lookaside, and its attachments if registries.d allows them.

    `fetch_url(url, limit)` returns at most `limit` bytes, or None where there is nothing (404);
    `fetch_manifest(tag)` the same of the image's own repository, and `fetch_blob(descriptor)` a blob whose
    size and digest were checked.
    """

    def __init__(
        self,
        reference: str,
        digest: str,
        *,
        fetch_url: Callable[[str, int], bytes | None],
        fetch_manifest: Callable[[str], bytes | None],
        fetch_blob: Callable[[Descriptor], bytes],
    ) -> None:
        self._reference = reference
        self._digest = digest
        self._fetch_url = fetch_url
        self._fetch_manifest = fetch_manifest
        self._fetch_blob = fetch_blob

    def simple(self) -> Iterator[Signature]:
        root = registries_d.load().lookaside(self._reference)
        for number in range(1, MAX_SIGNATURES + 1):
            path = signature_path(self._reference, self._digest, number)
            data = self._fetch(root, path)
            if data is None:
                return
            yield Signature(kind=SIMPLE, content=data, where=f"{root}/{path}")
        raise TrustError(f"{root}: more than {MAX_SIGNATURES} signatures of {self._reference}")

    def sigstore(self) -> Iterator[Signature]:
        from sysbox.image.trust import attachments

        if not registries_d.load().attachments(self._reference):
            return
        tag = attachments.tag(self._digest)
        data = self._fetch_manifest(tag)
        if data is None:
            return
        for descriptor, signature in attachments.read(data, tag):
            payload = self._fetch_blob(descriptor)
            yield Signature(kind=SIGSTORE, content=payload, signature=signature, where=tag)

    def _fetch(self, root: str, path: str) -> bytes | None:
        if not root.startswith("file://"):
            return self._fetch_url(f"{root}/{path}", MAX_SIGNATURE)
        from urllib.parse import unquote

        return read_below(unquote(root[7:]), path, MAX_SIGNATURE, TrustError)


def signature_path(reference: str, digest: str, number: int) -> str:
    """The place of a signature below the lookaside's URL; `number` from 1.

    containers/image, docs/signature-protocols.md, "docker/distribution registries -- separate storage".
    """
    return f"{parse(reference).path}@{digest.replace(':', '=')}/signature-{number}"
