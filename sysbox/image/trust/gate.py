"""Check the policy again when an image is about to be run, offline: by its provenance and kept signatures.

Only reached where policy.json exists; where that accepts anything, nothing else is read.
"""

from __future__ import annotations

from sysbox.base.errors import FormatError, SysboxError, TrustError
from sysbox.image.catalog import Catalog
from sysbox.image.model import Image
from sysbox.image.reference import HOST
from sysbox.image.trust.policy import Policy, load
from sysbox.image.trust.scopes import MADE_HERE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.image.trust.provenance import Origin

_SIGNED = "with --assert-signed, policy.json must demand a signature: see containers-policy.json(5)"


def admit(store: Catalog, image: Image, name: str) -> None:
    """Raise TrustError unless the policy accepts the image, which was found by `name`.

    An origin under exactly this name decides. Otherwise one accepted origin is enough: the content is the
    same, whichever name it came by.
    """
    policy = load()
    if policy.accepts_anything:
        return
    origins = _origins(store, image)
    if not origins:
        _admit_unknown(policy, image, name)
        return
    _admit_one(store, origins, name, lambda origin: _check(policy, origin))


def admit_signed(store: Catalog, image: Image, name: str) -> None:
    """Raise TrustError unless the policy asks for a signature of the image, which has been found by `name`,
    and accepts one. Without policy.json no image is accepted.
    """
    policy = load()
    origins = _origins(store, image)
    if not origins:
        raise TrustError(f"image {name}: it is not known where it came from", hint=_SIGNED)
    _admit_one(store, origins, name, lambda origin: _check_signed(policy, origin))


def _check_signed(policy: Policy, origin: Origin) -> None:
    rule = policy.rule(origin.transport, origin.reference)
    if rule.accepts_anything:
        about = origin.reference or f"an image of {origin.transport}"
        raise TrustError(
            f"{about}: the policy for '{rule.scope}' asks for no signature", hint=_SIGNED
        )
    _check(policy, origin)


def _admit_one(
    store: Catalog, origins: tuple[Origin, ...], name: str, check: Callable[[Origin], None]
) -> None:
    """Raise TrustError unless an origin passes: one under this name, or else any."""
    asked = _full(store, name)
    refusal = None
    for origin in [one for one in origins if one.reference == asked] or origins:
        try:
            check(origin)
        except TrustError as error:
            refusal = refusal or error
        else:
            return
    assert refusal
    # the error is about the name that it came by, which may be another one
    about = "" if asked and refusal.message.startswith(asked) else f"image {name}: "
    raise TrustError(about + refusal.message, hint=refusal.hint)


def _origins(store: Catalog, image: Image) -> tuple[Origin, ...]:
    from sysbox.image.trust import provenance  # which a policy that accepts anything does without

    if HOST in image.names:
        return (provenance.Origin(transport=MADE_HERE, reference=HOST, manifest=image.manifest),)
    return provenance.read(store, image.id)


def _check(policy: Policy, origin: Origin) -> None:
    if policy.rule(origin.transport, origin.reference).accepts_anything:
        return
    from sysbox.image.trust.check import check
    from sysbox.image.trust.signatures import Given

    try:
        kept = Given(origin.found())
    except FormatError as error:
        raise TrustError(error.message) from None
    check(policy, origin.transport, origin.reference, origin.manifest, None, kept)


def _admit_unknown(policy: Policy, image: Image, name: str) -> None:
    """An image of an older version, or with lost provenance: as one from a registry without signatures."""
    if all(policy.rule("docker", one).accepts_anything for one in image.names or ("",)):
        return
    raise TrustError(
        f"image {name}: it is not known where it came from, and policy.json does not accept anything",
        hint="pull or make it again; `sysbox trust show` shows the policy",
    )


def _full(store: Catalog, name: str) -> str:
    """The full name that the store finds the image by, which may be another one than docker.io's."""
    try:
        return store.find(name)[0]
    except SysboxError:
        return ""
