"""Check an image that is about to come into the store, and make what is kept about that.

origin = admit.from_registry(repository, reference, fetched.digest, fetched.data, index)
...                                                     fetch the layers
work.commit(manifest, config, blobs, stack, name, origin=origin)
"""

from __future__ import annotations

from sysbox.base.errors import FormatError, NotFound, RegistryError, TrustError
from sysbox.image.trust import policy, provenance
from sysbox.image.trust.check import check
from sysbox.image.trust.signatures import Remote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.image.documents import Descriptor
    from sysbox.image.reference import Reference
    from sysbox.image.registry.client import Repository
    from sysbox.image.trust.provenance import Origin


def from_registry(
    repository: Repository, reference: Reference, digest: str, manifest: bytes, index: str = ""
) -> Origin:
    """The origin of an image that the policy accepts under the name `reference`.

    `manifest` is that of one platform, `digest` its digest, and `index` the digest of the index that it was
    chosen from. `repository` may be a mirror's: signatures must be for `reference`. Called before anything
    else of the image is fetched. Raises TrustError, RegistryError.
    """
    found = Remote(
        reference.full(),
        digest,
        fetch_url=_fetch_url,
        fetch_manifest=lambda tag: _manifest(repository, tag),
        fetch_blob=lambda descriptor: read_blob(repository, descriptor),
    )
    verdict = check(policy.load(), "docker", reference, digest, manifest, found)
    return provenance.accepted("docker", reference.full(), digest, verdict, index)


def _manifest(repository: Repository, tag: str) -> bytes | None:
    try:
        return repository.manifest(tag).data
    except NotFound:
        return None
    except FormatError as error:
        raise TrustError(error.message) from None


def read_blob(repository: Repository, descriptor: Descriptor) -> bytes:
    """The whole of a small blob, whose size was checked. Raises TrustError for another digest."""
    from hashlib import sha256

    data = b""
    with repository.blob(descriptor) as stream:
        while part := stream.read(descriptor.size):
            data += part
    if descriptor.digest != f"sha256:{sha256(data).hexdigest()}":
        raise TrustError(f"a payload is not {descriptor.digest}")
    return data


def _fetch_url(text: str, limit: int) -> bytes | None:
    """A file of the lookaside. No credentials are sent."""
    from sysbox.image.registry import url as urls
    from sysbox.image.registry.endpoint import Endpoint
    from sysbox.image.registry.transport import Request, Transport

    url = urls.parse(text, "lookaside")
    transport = Transport(Endpoint(registry=url.authority(), host=url.host, port=url.port))
    try:
        answer = transport.send(Request(method="GET", url=url))
        if answer.status == 404:
            answer.drop()
            return None
        if answer.status != 200:
            answer.close()
            raise RegistryError(f"{url.place()}: the status is {answer.status}")
        return answer.document(limit, url.place())
    except FormatError as error:
        raise TrustError(error.message) from None
    finally:
        transport.close()
