"""policy.json: what is required of an image before it is pulled, loaded or run (containers-policy.json(5)).

Without the file every image is accepted, as with docker. A file that cannot be read, or that says something
unknown, accepts none. Requirements that sysbox cannot check refuse the images of their scope alone.
"""

from __future__ import annotations

from sysbox.base import codec, paths
from sysbox.base.errors import FormatError, SpecError, TrustError
from sysbox.base.frozen import Frozen
from sysbox.conf.values import is_there
from sysbox.image.caller_files import read
from sysbox.image.trust import scopes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Scopes = dict[str, tuple["Requirement", ...]]

MAX_POLICY = 4 << 20  # bytes
MAX_KEYS = 64  # of one requirement
ACCEPT = "insecureAcceptAnything"
REJECT = "reject"
SIGNED_BY = "signedBy"
SIGSTORE_SIGNED = "sigstoreSigned"
HINT = "no image is accepted before this file is corrected; see containers-policy.json(5)"

_KEY_TYPES = ("GPGKeys", "signedByGPGKeys", "X509Certificates", "signedByX509CAs")
# type of an identity -> the other keys that it must have
_IDENTITIES = {
    "matchExact": (),
    "matchRepoDigestOrExact": (),
    "matchRepository": (),
    "exactReference": ("dockerReference",),
    "exactRepository": ("dockerRepository",),
    "remapIdentity": ("prefix", "signedPrefix"),
}
# type of a requirement -> the keys that it may have beside "type"
_REQUIREMENTS = {
    ACCEPT: (),
    REJECT: (),
    SIGNED_BY: ("keyType", "keyPath", "keyPaths", "keyData", "signedIdentity"),
    SIGSTORE_SIGNED: (
        "keyPath", "keyPaths", "keyData", "keyDatas", "signedIdentity", "fulcio", "pki",
        "rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas",
    ),
    "signedBaseLayer": ("baseLayerIdentity",),
}  # fmt: skip
_UNSUPPORTED = ("fulcio", "pki", "baseLayerIdentity") + tuple(
    key for key in _REQUIREMENTS[SIGSTORE_SIGNED] if key.startswith("rekor")
)


class Identity(Frozen):
    """Which name a signature must claim for an image (`signedIdentity`)."""

    kind: str = "matchRepoDigestOrExact"
    name: str = ""  # of exactReference and exactRepository
    prefix: str = ""  # of remapIdentity
    signed_prefix: str = ""


class Requirement(Frozen):
    """One object of a list of requirements."""

    kind: str
    paths: tuple[str, ...] = ()  # files with keys
    data: tuple[bytes, ...] = ()  # keys that the policy itself has
    identity: Identity = Identity()
    unsupported: str = ""  # what of it sysbox cannot check


class Rule(Frozen):
    """The requirements that apply to an image, and where they stand."""

    scope: str  # "default", or "TRANSPORT:SCOPE"
    requirements: tuple[Requirement, ...]

    @property
    def accepts_anything(self) -> bool:
        """Whether no signature is needed."""
        return all(one.kind == ACCEPT for one in self.requirements)


class Policy:
    """The content of policy.json."""

    def __init__(self, default: tuple[Requirement, ...], transports: dict[str, Scopes]) -> None:
        self.default = default
        self.transports = transports

    @property
    def accepts_anything(self) -> bool:
        """Whether no image is refused, wherever it came from."""
        rules = [self.default, *(rule for own in self.transports.values() for rule in own.values())]
        return all(one.kind == ACCEPT for rule in rules for one in rule)

    def rule(self, transport: str, reference: str) -> Rule:
        """What applies to an image; `reference` is as in `scopes.scopes`. Raises SpecError."""
        own = self.transports.get(transport, {})
        for scope in (*scopes.scopes(transport, reference), ""):
            if scope in own:
                return Rule(scope=f"{transport}:{scope}", requirements=own[scope])
        if transport == scopes.MADE_HERE:
            # "default" is about images from elsewhere: what was made here is refused by name only
            return Rule(scope=transport, requirements=ACCEPT_ANYTHING)
        return Rule(scope="default", requirements=self.default)

    def requirements(self, transport: str, reference: str) -> tuple[Requirement, ...]:
        """All of them must be met. Raises SpecError."""
        return self.rule(transport, reference).requirements


ACCEPT_ANYTHING = (Requirement(kind=ACCEPT),)


def load(path: str = "") -> Policy:
    """Read policy.json, by default that of the machine; one that accepts anything if there is none.

    Raises TrustError if it cannot be read or is malformed: then nothing may be accepted.
    """
    path = path or paths.POLICY
    data = read(path, MAX_POLICY, TrustError)
    if data is None:
        if is_there(path):
            raise TrustError(f"{path}: a link that leads nowhere", hint=HINT)
        return Policy(ACCEPT_ANYTHING, {})
    return parse(data, path)


def parse(data: bytes, path: str) -> Policy:
    """The policy in a document. Raises TrustError, which names the file and the place."""
    try:
        document = _object(codec.loads(data, path), path, ("default", "transports"))
        if "default" not in document:
            raise FormatError(f"{path}: 'default' is missing")
        transports = _object(document.get("transports", {}), f"{path}: transports")
        return Policy(
            _requirements(document["default"], f"{path}: default"),
            {
                transport: _scopes(own, transport, f"{path}: transports.{transport}")
                for transport, own in transports.items()
            },
        )
    except FormatError as error:
        raise TrustError(error.message, hint=HINT) from None


def _scopes(value: Any, transport: str, what: str) -> Scopes:
    found = {}
    for scope, items in _object(value, what).items():
        where = f"{what}.'{scope}'"
        if scope and transport in scopes.NAMELESS:
            raise FormatError(f"{where}: this transport has the scope '' alone")
        if scope and transport in scopes.PATHS and not _is_plain_path(scope):
            raise FormatError(f"{where}: must be an absolute path without '.', '..' and '//'")
        found[scope] = _requirements(items, where)
    return found


def _is_plain_path(scope: str) -> bool:
    path = scope.partition(":")[0]
    return path.startswith("/") and not {"", ".", ".."} & set(path[1:].split("/"))


def _requirements(value: Any, what: str) -> tuple[Requirement, ...]:
    if type(value) is not list or not value:
        raise FormatError(f"{what}: must be a list of requirements, and not empty")
    return tuple([_requirement(item, f"{what}[{index}]") for index, item in enumerate(value)])


def _requirement(value: Any, what: str) -> Requirement:
    kind = _kind(value, what, _REQUIREMENTS)
    item = _object(value, what, ("type", *_REQUIREMENTS[kind]))
    if kind in (ACCEPT, REJECT):
        return Requirement(kind=kind)
    lacks = [key for key in _UNSUPPORTED if key in item]
    if kind == SIGNED_BY:
        key_type = _text(item, "keyType", what)
        if key_type not in _KEY_TYPES:
            raise FormatError(f"{what}: keyType must be GPGKeys, not '{key_type}'")
        lacks += [f"keyType {key_type}"] if key_type != "GPGKeys" else []
    if lacks:
        return Requirement(kind=kind, unsupported=f"{kind} with {lacks[0]}")
    if kind == "signedBaseLayer":
        raise FormatError(f"{what}: baseLayerIdentity is missing")
    files, data = _keys(item, what)
    return Requirement(
        kind=kind,
        paths=files,
        data=data,
        identity=_identity(item.get("signedIdentity"), f"{what}.signedIdentity"),
    )


def _keys(item: dict[str, Any], what: str) -> tuple[tuple[str, ...], tuple[bytes, ...]]:
    """(paths, keys): exactly one of the keys that say where the keys are must be there."""
    given = [key for key in ("keyPath", "keyPaths", "keyData", "keyDatas") if key in item]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise FormatError(
            f"{what}: exactly one of keyPath, keyPaths and keyData is needed: {found}"
        )
    (key,) = given
    values = item[key] if key[-1] == "s" else [item[key]]
    if type(values) is not list or not 0 < len(values) <= MAX_KEYS:
        raise FormatError(f"{what}.{key}: must be a list of 1 to {MAX_KEYS} strings")
    if not all(type(one) is str and one for one in values):
        raise FormatError(f"{what}.{key}: must be text, and not empty")
    if key.startswith("keyPath"):
        if not all(one.startswith("/") and "\0" not in one for one in values):
            raise FormatError(f"{what}.{key}: must be an absolute path")
        return tuple(values), ()
    return (), tuple([from_base64(one, f"{what}.{key}") for one in values])


def _identity(value: Any, what: str) -> Identity:
    if value is None:
        return Identity()
    kind = _kind(value, what, _IDENTITIES)
    keys = _IDENTITIES[kind]
    item = _object(value, what, ("type", *keys))
    texts = [_text(item, key, what) for key in keys]
    if kind == "remapIdentity":
        from sysbox.image.trust.identity import is_prefix

        for key, text in zip(keys, texts, strict=True):
            if not is_prefix(text):
                raise FormatError(f"{what}.{key}: '{text}' is not a registry or a repository")
        return Identity(kind=kind, prefix=texts[0], signed_prefix=texts[1])
    if texts:
        _check_name(texts[0], f"{what}.{keys[0]}", tagged=kind == "exactReference")
    return Identity(kind=kind, name="".join(texts))


def _check_name(text: str, what: str, *, tagged: bool) -> None:
    from sysbox.image.trust.identity import named

    try:
        name = named(text)
    except SpecError as error:
        raise FormatError(f"{what}: {error.message}") from None
    if tagged != bool(name.tag or name.digest):
        raise FormatError(
            f"{what}: '{text}' must {'have a' if tagged else 'have no'} tag or digest"
        )


def _kind(value: Any, what: str, known: dict[str, tuple[str, ...]]) -> str:
    kind = _text(_object(value, what), "type", what)
    if kind not in known:
        raise FormatError(f"{what}: unknown type '{kind}'")
    return kind


def _object(value: Any, what: str, keys: tuple[str, ...] | None = None) -> dict[str, Any]:
    """An object without other keys than `keys`."""
    if type(value) is not dict:
        raise FormatError(f"{what}: must be an object")
    for key in value:
        if keys is not None and key not in keys:
            raise FormatError(f"{what}: unknown key '{key}'")
    return value


def _text(item: dict[str, Any], key: str, what: str) -> str:
    value = item.get(key)
    if type(value) is not str or not value:
        raise FormatError(f"{what}: {key} must be text, and not empty")
    return value


def from_base64(text: str, what: str) -> bytes:
    """The bytes that standard base64 stands for. Raises FormatError."""
    import binascii

    try:
        return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except (ValueError, UnicodeEncodeError):
        raise FormatError(f"{what}: is not base64") from None
