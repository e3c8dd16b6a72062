"""One repository of a registry: the calls of the OCI distribution spec 1.1, typed, without policy.

docker's registry API v2 is the same but for media types. An object belongs to one thread; after a fork the
child may go on with its copy, which makes connections of its own and keeps the tokens.
"""

from __future__ import annotations

from sysbox.base.errors import AccessDenied, FormatError, RegistryError
from sysbox.image.documents import MAX_CONFIG, MAX_MANIFEST, digest_of
from sysbox.image.reference import is_digest
from sysbox.image.registry import answers, media, session, upload
from sysbox.image.registry.blobs import BlobStream
from sysbox.image.registry.media import Fetched
from sysbox.image.registry.transport import Answer, redirected

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    from sysbox.image.documents import Descriptor
    from sysbox.image.registry.credentials import Chain
    from sysbox.image.registry.endpoint import Endpoint
    from sysbox.image.registry.paced import Patience

_MAX_TAGS = 8 << 20  # bytes of a page
_MAX_PAGES = 1000
_MOST_TAGS = 100_000  # of a repository
_PAGE = 1000  # tags asked for at a time
_DIGEST = "Docker-Content-Digest"


class Repository:
    """A repository; each method raises AccessDenied, RateLimited, Unreachable, RegistryError, FormatError.

    `credentials` are looked up only when the registry answers with a challenge.
    """

    def __init__(
        self, endpoint: Endpoint, credentials: Chain, patience: Patience | None = None
    ) -> None:
        self._session = session.Session(endpoint, credentials, patience)
        self._name = endpoint.repository
        self._uploads: dict[str, str] = {}  # digest -> the URL of an upload that `mount` has begun

    @property
    def endpoint(self) -> Endpoint:
        """Where it is; with the scheme once the first request has found that out."""
        return self._session.endpoint

    def manifest(self, tag_or_digest: str, accept: tuple[str, ...] = media.ACCEPTED) -> Fetched:
        """A manifest or index, of at most MAX_MANIFEST bytes.

        Its digest must be the one that was asked for, or else the one that the registry announces. Raises
        NotFound, and FormatError for another digest, schema 1, and a document of two kinds.
        """
        what = self._what(tag_or_digest)
        answer = self._session.send(
            "GET",
            self._manifest(tag_or_digest),
            headers={"Accept": ", ".join(accept)},
            limit=MAX_MANIFEST,
            what=what,
        )
        if answer.status != 200:
            raise answers.failure(answer, what)
        data = answer.document(MAX_MANIFEST, what)
        digest = digest_of(data)
        claimed = answer.header(_DIGEST)
        wanted = tag_or_digest if is_digest(tag_or_digest) else claimed
        # a registry may say sha512, which is not looked at
        if is_digest(wanted) and digest != wanted:
            raise FormatError(f"{what}: has the digest {digest} where {wanted} was expected")
        kind = media.type_of(data, answer.header("Content-Type"), what)
        return Fetched(data=data, media_type=kind, digest=digest)

    def digest(self, tag: str) -> str:
        """The digest of what a tag means now, "" where the registry does not say. Raises NotFound."""
        headers = {"Accept": ", ".join(media.ACCEPTED)}
        answer = self._get("HEAD", self._manifest(tag), headers)
        if answer.status != 200:
            raise answers.failure(answer, self._what(tag))
        answer.done()
        found = answer.header(_DIGEST)
        return found if is_digest(found) else ""

    def blob(self, descriptor: Descriptor, start: int = 0) -> BlobStream:
        """A blob from byte `start` on.

        Raises NotFound. Only the digest says where it is: its `urls` are not followed (CVE-2020-15157).
        """

        def open_at(start: int) -> tuple[Answer, int]:
            return self._open_blob(descriptor, start)

        transport = self._session.transport
        return BlobStream(descriptor, start, open_at, transport.pause, transport.patience.attempts)

    def document(self, descriptor: Descriptor) -> bytes:
        """A small blob of at most MAX_CONFIG bytes, verified. Raises NotFound, FormatError."""
        what = f"{self.endpoint.name()}: blob {descriptor.digest}"
        if descriptor.size > MAX_CONFIG:
            raise FormatError(f"{what}: {descriptor.size} bytes, the limit is {MAX_CONFIG}")
        pieces = []
        with self.blob(descriptor) as stream:
            while piece := stream.read(1 << 16):
                pieces.append(piece)
        data = b"".join(pieces)
        if len(data) != descriptor.size or digest_of(data) != descriptor.digest:
            raise FormatError(f"{what}: the registry has sent something else")
        return data

    def tags(self) -> Iterator[str]:
        """All tags, page by page. Raises NotFound where there is no such repository; RegistryError."""
        target = f"/v2/{self._name}/tags/list?n={_PAGE}"
        seen = {target}
        left = _MOST_TAGS
        for _ in range(_MAX_PAGES):
            what = f"{self.endpoint.name()}: the list of its tags"
            answer = self._session.send("GET", target, limit=_MAX_TAGS, what=what)
            if answer.status != 200:
                raise answers.failure(answer, self.endpoint.name())
            data = answer.document(_MAX_TAGS, what)
            found = answers.tags(data, what)
            left -= len(found)
            if left < 0:
                raise RegistryError(f"{what}: more than {_MOST_TAGS} tags")
            yield from found
            target = answers.next_page(answer, what)
            if not target:
                return
            if target in seen:
                raise RegistryError(f"{what}: the pages go round in a circle")
            seen.add(target)
        raise RegistryError(f"{self.endpoint.name()}: more than {_MAX_PAGES} pages of tags")

    def has_blob(self, digest: str) -> bool:
        """Whether the repository has a blob."""
        answer = self._session.send("HEAD", self._blob(digest), push=True, follow=False)
        answer.done()
        if answer.status == 404:
            return False
        # a redirect leads to where the blob is
        if answer.status == 200 or answer.status in (301, 302, 303, 307, 308):
            return True
        raise answers.failure(answer, f"{self.endpoint.name()}: blob {digest}")

    def mount(self, digest: str, from_repository: str) -> bool:
        """Have the registry take a blob from another of its repositories; False where it does not."""
        target = f"/v2/{self._name}/blobs/uploads/?mount={digest}&from={from_repository}"
        also = (f"repository:{from_repository}:pull",)
        try:
            answer = self._session.send(
                "POST", target, push=True, also=also, body=b"", follow=False
            )
        except AccessDenied:
            return False  # it is the other repository that these credentials may not read
        if answer.status == 202:
            # it has begun an upload instead: `upload` goes on with it
            self._uploads[digest] = str(redirected(answer))
        answer.drop()
        if answer.status == 201:
            return True
        if answer.status in (202, 400, 404, 405, 401, 403):
            return False
        raise answers.failure(answer, f"{self.endpoint.name()}: blob {digest}")

    def upload(
        self, descriptor: Descriptor, fd: int, tell: Callable[[int], None] = lambda _: None
    ) -> None:
        """Send the blob that a descriptor of a file has from its beginning; the file's offset is not used.

        `tell` gets the number of bytes sent since its last call; less than 0 where they are sent again.
        """
        begun = self._uploads.pop(descriptor.digest, "")
        upload.Upload(self._session, self._name, descriptor, fd, tell).run(begun)

    def put_manifest(self, data: bytes, media_type: str, tag_or_digest: str) -> str:
        """Send a manifest or index under a tag or its digest; returns its digest."""
        what = self._what(tag_or_digest)
        digest = digest_of(data)
        answer = self._session.send(
            "PUT",
            self._manifest(tag_or_digest),
            push=True,
            headers={"Content-Type": media_type},
            body=data,
            follow=False,
            wait=self._session.transport.patience.finish,
        )
        if answer.status not in (200, 201, 202):
            raise answers.failure(answer, what)
        answer.drop()
        claimed = answer.header(_DIGEST)
        if is_digest(claimed) and claimed != digest:
            raise FormatError(f"{what}: the registry has stored {claimed} where {digest} was sent")
        return digest

    def check(self) -> None:
        """Ask the registry whether it knows the API and takes the credentials (spec, end-1)."""
        answer = self._session.send("GET", "/v2/", scopes=())
        if answer.status != 200:
            raise answers.failure(answer, self.endpoint.name())
        answer.drop()

    def close(self) -> None:
        """Close the connections."""
        self._session.transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open_blob(self, descriptor: Descriptor, start: int) -> tuple[Answer, int]:
        headers = {"Range": f"bytes={start}-"} if start else {}
        what = f"{self.endpoint.name()}: blob {descriptor.digest}"
        answer = self._get("GET", self._blob(descriptor.digest), headers)
        if answer.status == 416 and start:
            answer.drop()
            return self._open_blob(descriptor, 0)
        if answer.status == 206 and start:
            answers.check_range(answer, start, descriptor.size, what)
            return answer, start
        if answer.status != 200:
            raise answers.failure(answer, what)
        return answer, 0

    def _get(self, method: str, target: str, headers: dict[str, str] | None = None) -> Answer:
        return self._session.send(method, target, headers=headers or {})

    def _manifest(self, tag_or_digest: str) -> str:
        return f"/v2/{self._name}/manifests/{tag_or_digest}"

    def _blob(self, digest: str) -> str:
        if not is_digest(digest):
            raise FormatError(f"{digest!r} is not a sha256 digest")
        return f"/v2/{self._name}/blobs/{digest}"

    def _what(self, tag_or_digest: str) -> str:
        return f"{self.endpoint.name()}{'@' if ':' in tag_or_digest else ':'}{tag_or_digest}"
