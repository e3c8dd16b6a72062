"""Check an image against policy.json: each requirement of its scope must be met.

    policy = load()
    verdict = check(policy, "docker", reference.full(), digest, manifest, Remote(...))

Called before anything of the image but its manifest is fetched.
"""

from __future__ import annotations

import binascii

from sysbox.base.errors import FormatError, SpecError, TrustError
from sysbox.base.frozen import Frozen
from sysbox.image.caller_files import read
from sysbox.image.documents import digest_of
from sysbox.image.reference import Reference, parse
from sysbox.image.trust import payload
from sysbox.image.trust.identity import mismatch
from sysbox.image.trust.policy import ACCEPT, REJECT, SIGNED_BY, Requirement
from sysbox.image.trust.scopes import NAMED
from sysbox.image.trust.signatures import SIGSTORE, SIMPLE, Signature, Signatures

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sysbox.image.trust.policy import Policy, Rule

_SHOWN = 3  # reasons why signatures do not count, in an error


class Verdict(Frozen):
    """How an image was accepted."""

    by: tuple[str, ...]  # for each requirement: insecureAcceptAnything, "signedBy FINGERPRINT", ...
    signatures: tuple[Signature, ...] = ()  # those that counted

    def __str__(self) -> str:
        return ", ".join(self.by)


class _Image(Frozen):
    """What the requirements are checked against."""

    shown: str
    name: Reference | None  # None: of a transport without names
    digest: str


def check(
    policy: Policy,
    transport: str,
    reference: Reference | str,
    manifest_digest: str,
    manifest: bytes | None,
    signatures: Signatures,
) -> Verdict:
    """Whether the policy accepts the image whose manifest has this digest, and by what.

    `reference` is a reference, or a path for transports without names ("" for none). `manifest` is compared
    with the digest; None where this was done before. Raises TrustError with the reason.
    """
    text = reference if isinstance(reference, str) else reference.full()
    shown = text or f"an image of {transport}"
    if manifest is not None and manifest_digest != digest_of(manifest):
        raise TrustError(f"{shown}: its manifest is not {manifest_digest}")
    rule = policy.rule(transport, text)
    image = _Image(
        shown=shown,
        name=parse(text) if transport in NAMED and text else None,
        digest=manifest_digest,
    )
    by, counted = [], []
    for requirement in rule.requirements:
        if requirement.unsupported or requirement.kind == REJECT:
            raise _rejected(requirement, rule, shown)
        if requirement.kind == ACCEPT:
            by.append(ACCEPT)
            continue
        how, signature = _one_that_counts(requirement, image, signatures)
        by.append(how)
        counted.append(signature)
    return Verdict(by=tuple(by), signatures=tuple(dict.fromkeys(counted)))


def _rejected(requirement: Requirement, rule: Rule, shown: str) -> TrustError:
    lacks = requirement.unsupported
    why = f"needs {lacks}, which is not supported" if lacks else "rejects it"
    return TrustError(
        f"{shown}: the policy for '{rule.scope}' {why}",
        hint="see `sysbox trust show`, and containers-policy.json(5)",
    )


def _one_that_counts(
    requirement: Requirement, image: _Image, signatures: Signatures
) -> tuple[str, Signature]:
    """(how it was signed, the signature). Raises TrustError with the reason of the first ones."""
    reasons = []
    kind = SIMPLE if requirement.kind == SIGNED_BY else SIGSTORE
    attempt = _by_gpg if kind == SIMPLE else _by_sigstore
    try:
        for how, signature in attempt(requirement, image, signatures.of(kind)):
            if signature is not None:
                return how, signature
            reasons.append(how)
    except TrustError as error:
        reasons.append(error.message)
    what = "OpenPGP" if kind == SIMPLE else "sigstore"
    why = "; ".join(reasons[:_SHOWN]) or f"it has no {what} signature"
    more = f"; and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else ""
    raise TrustError(
        f"{image.shown}: no signature that the policy accepts: {why}{more}",
        hint=f"the image must be signed as policy.json says ({requirement.kind}), and registries.d "
        "must say where its signatures are",
    )


def _by_gpg(
    requirement: Requirement, image: _Image, found: Iterator[Signature]
) -> Iterator[tuple[str, Signature | None]]:
    """(how, signature) of one that counts, (why not, None) of another."""
    from sysbox.image.trust.gpg import MAX_KEYRING, Keyring

    with Keyring([key for _, key in _keys(requirement, MAX_KEYRING)]) as keyring:
        for signature in found:
            try:
                signed = keyring.verify(signature.content)
                _check_claim(signed.content, payload.SIMPLE, requirement, image)
            except TrustError as error:
                yield f"{signature.where}: {error.message}", None
            else:
                yield f"{requirement.kind} {signed.fingerprint}", signature


def _by_sigstore(
    requirement: Requirement, image: _Image, found: Iterator[Signature]
) -> Iterator[tuple[str, Signature | None]]:
    """The same for sigstore's."""
    from sysbox.image.trust import keys

    public = []
    for name, data in _keys(requirement, keys.MAX_KEY):
        try:
            public.append((name, keys.public(data)))
        except TrustError as error:
            raise TrustError(f"{name}: {error.message}") from None
    for signature in found:
        try:
            raw = binascii.a2b_base64(signature.signature.encode(), strict_mode=True)
        except ValueError:
            yield f"{signature.where}: its signature is not base64", None
            continue
        names = [name for name, key in public if keys.verifies(key, raw, signature.content)]
        try:
            if not names:
                raise TrustError("another key has signed it")
            _check_claim(signature.content, payload.SIGSTORE, requirement, image)
        except TrustError as error:
            yield f"{signature.where}: {error.message}", None
        else:
            yield f"{requirement.kind} {names[0]}", signature


def _check_claim(content: bytes, kind: str, requirement: Requirement, image: _Image) -> None:
    """Raises TrustError unless the verified content is about this image."""
    try:
        claim = payload.read(content, kind)
        if claim.digest != image.digest:
            raise TrustError(f"it is for the manifest {claim.digest}")
        if why := mismatch(requirement.identity, image.name, claim.reference):
            raise TrustError(why)
    except (FormatError, SpecError) as error:
        raise TrustError(error.message) from None


def _keys(requirement: Requirement, limit: int) -> list[tuple[str, bytes]]:
    """(name, content) of each key of a requirement. Raises TrustError."""
    found = [("a key in policy.json", data) for data in requirement.data]
    for path in requirement.paths:
        data = read(path, limit, TrustError)
        if data is None:
            raise TrustError(f"{path}: the file with the key is not there")
        found.append((path, data))
    return found
