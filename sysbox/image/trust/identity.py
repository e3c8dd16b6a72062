"""Compare the name that a signature claims with the image's (containers-policy.json(5), signedIdentity)."""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.image.reference import Reference, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.image.trust.policy import Identity


def named(text: str) -> Reference:
    """A reference as it is written: without a tag if it has none. Raises SpecError."""
    found = parse(text)
    last = text.partition("@")[0].rpartition("/")[2]
    return found if ":" in last else found.replace(tag="")


def is_prefix(text: str) -> bool:
    """Whether a text is a registry, or a name in one, in full and without tag and digest."""
    below = f"{text}/x/x"
    try:
        return parse(below).repository() == below
    except SpecError:
        return False


def mismatch(identity: Identity, image: Reference | None, claimed: str) -> str:
    """Why a signature is not about an image of this name; "" if it is.

    `image` is None where the transport gives images no names (dir, oci, archives).
    """
    try:
        signed = named(claimed)
    except SpecError as error:
        return f"it is for {error.message}"
    if identity.kind == "exactReference":
        wanted = named(identity.name)
        agrees = wanted.full() == signed.full()
    elif identity.kind == "exactRepository":
        wanted = named(identity.name)
        agrees = wanted.repository() == signed.repository()
    elif image is None:
        return f"{identity.kind} needs an image with a name: use exactReference or exactRepository"
    else:
        wanted = _remapped(identity, image)
        agrees = _agrees(identity.kind, wanted, signed)
    return "" if agrees else f"it is for {signed.full()}, not for {wanted.full()}"


def _agrees(kind: str, image: Reference, signed: Reference) -> bool:
    if kind == "matchRepository" or (image.digest and kind != "matchExact"):
        # the digest of the manifest is compared in any case
        return image.repository() == signed.repository()
    if not (image.tag or image.digest) or not (signed.tag or signed.digest):
        return False
    return image.full() == signed.full()


def _remapped(identity: Identity, image: Reference) -> Reference:
    """The name with the other prefix, if it is the prefix's own or below it."""
    if identity.kind != "remapIdentity":
        return image
    repository, prefix = image.repository(), identity.prefix
    if repository != prefix and not repository.startswith(f"{prefix}/"):
        return image
    domain, _, path = f"{identity.signed_prefix}{repository[len(prefix) :]}".partition("/")
    return image.replace(domain=domain, path=path)
