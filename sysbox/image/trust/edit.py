"""Show policy.json as rows, and change one scope of it: `trust show` and `trust set`."""

from __future__ import annotations

import json
import os

from sysbox.base import codec, files, paths
from sysbox.base.errors import SpecError, TrustError
from sysbox.image.caller_files import read
from sysbox.image.reference import parse
from sysbox.image.trust import keys, policy, registries_d
from sysbox.image.trust.gpg import MAX_KEYRING, Keyring
from sysbox.image.trust.identity import is_prefix
from sysbox.image.trust.policy import Policy, Requirement

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

# the words of `trust set --type`, and of podman's listing -> the type of a requirement
TYPES = {
    "accept": policy.ACCEPT,
    "reject": policy.REJECT,
    "signedBy": policy.SIGNED_BY,
    "sigstoreSigned": policy.SIGSTORE_SIGNED,
}
_SHOWN = {policy.ACCEPT: "accept", policy.SIGNED_BY: "signed"}
_MODE = 0o644


def rows(found: Policy, registry: str = "") -> list[dict[str, str]]:
    """The rules, one row for each requirement; with `registry` those that apply to it and below it."""
    listed = list(_rules(found))
    if registry:
        within = [one for one in listed if one[0] == "docker" and _is_within(one[1], registry)]
        listed = within or [_that_applies(found, registry)]
    store = registries_d.load()
    return [
        {
            "Transport": {"": "all", "docker": "repository"}.get(transport, transport),
            "Name": scope if transport else "default",
            "Type": _SHOWN.get(one.kind, one.kind),
            "ID": _signers(one),
            "Store": _store(store, transport, scope, one),
        }
        for transport, scope, requirements in listed
        for one in requirements
    ]


def _rules(found: Policy) -> Iterator[tuple[str, str, tuple[Requirement, ...]]]:
    yield "", "", found.default
    for transport, own in found.transports.items():
        for scope, requirements in own.items():
            yield transport, scope, requirements


def _is_within(scope: str, registry: str) -> bool:
    return scope == registry or scope.startswith((f"{registry}/", f"{registry}:", f"{registry}@"))


def _that_applies(found: Policy, registry: str) -> tuple[str, str, tuple[Requirement, ...]]:
    """The rule of the next more general scope."""
    check_scope(registry)
    # every name below a scope has the same more general ones
    name = registry.replace("*.", "x.", 1)
    rule = found.rule("docker", f"{name}/x" if is_prefix(name) else name)
    transport, _, scope = rule.scope.partition(":")
    return "" if transport == "default" else transport, scope, rule.requirements


def _signers(requirement: Requirement) -> str:
    """The mail addresses of OpenPGP keys; "N/A" where other keys are needed, "" where none is."""
    if requirement.kind != policy.SIGNED_BY or requirement.unsupported:
        return "" if requirement.kind in (policy.ACCEPT, policy.REJECT) else "N/A"
    try:
        found = list(requirement.data)
        found += [_key(path, MAX_KEYRING) for path in requirement.paths]
        with Keyring(found) as keyring:
            return ", ".join(keyring.owners())
    except TrustError as error:
        return f"({error.message})"


def _store(
    store: registries_d.RegistriesD, transport: str, scope: str, requirement: Requirement
) -> str:
    if requirement.kind not in (policy.SIGNED_BY, policy.SIGSTORE_SIGNED):
        return ""
    section = store.docker.get(scope) if transport == "docker" else None
    return (section or store.default or registries_d.Section()).lookaside


def raw(path: str = "") -> str:
    """policy.json as it is. Raises TrustError if there is none."""
    path = path or paths.POLICY
    data = read(path, policy.MAX_POLICY, TrustError)
    if data is None:
        raise TrustError(f"{path}: there is no such file: every image is accepted")
    return data.decode("utf-8", "replace")


def check_scope(scope: str) -> None:
    """Raises SpecError unless it is HOST[:PORT][/PATH][:TAG|@DIGEST] in full, or `*.DOMAIN`."""
    try:
        valid = is_prefix(scope.removeprefix("*.")) if "/" not in scope else is_prefix(scope)
        valid = valid or parse(scope).full() == scope
    except SpecError:
        valid = False
    if not valid:
        raise SpecError(
            f"{scope!r} is not a registry, or a name in one, in full",
            hint="as in docker.io, docker.io/library/busybox, quay.io/ns/name:tag or *.example.org; "
            "`default` is for all others",
        )


def change(scope: str, kind: str, key_files: Sequence[str], path: str = "") -> None:
    """Set the requirements of a scope, or of `default`, and keep all else; a crash leaves the old file.

    `kind` is a key of TYPES. Several key files are several requirements: an image needs a signature by
    each, as with podman. Raises SpecError, TrustError, KernelError.
    """
    path = os.path.realpath(path or paths.POLICY)
    if scope != "default":
        check_scope(scope)
    wanted = _documents(kind, key_files)
    data = read(path, policy.MAX_POLICY, TrustError)
    if data is not None:
        policy.parse(data, path)  # nothing is built upon a file that no tool accepts
    document = (
        codec.loads(data, path) if data is not None else {"default": _documents("accept", ())}
    )
    _put(document, scope, wanted)
    text = json.dumps(document, indent=4, ensure_ascii=False) + "\n"
    policy.parse(text.encode(), path)
    mode = os.stat(path).st_mode & 0o777 if data is not None else _MODE
    os.makedirs(os.path.dirname(path), exist_ok=True)
    files.write_file(path, text.encode(), mode, limit=policy.MAX_POLICY, durable=True)


def _put(document: dict[str, Any], scope: str, wanted: list[dict[str, str]]) -> None:
    if scope == "default":
        document["default"] = wanted
        return
    transports = document.setdefault("transports", {})
    for own in transports.values():
        if scope in own:
            own[scope] = wanted
            return
    transports.setdefault("docker", {})[scope] = wanted


def _documents(kind: str, key_files: Sequence[str]) -> list[dict[str, str]]:
    """The requirements as in policy.json. Raises SpecError, TrustError."""
    if kind not in TYPES:
        raise SpecError(f"--type {kind}: unknown", hint=f"one of {', '.join(TYPES)}")
    signed = kind in ("signedBy", "sigstoreSigned")
    if signed != bool(key_files):
        need = "needs a" if signed else "takes no"
        raise SpecError(f"--type {kind} {need} --pubkeysfile FILE")
    if not signed:
        return [{"type": TYPES[kind]}]
    of_gpg = {"keyType": "GPGKeys"} if kind == "signedBy" else {}
    found = []
    for name in key_files:
        path = os.path.abspath(name)
        try:
            _check_key(kind, path)
        except TrustError as error:
            raise SpecError(f"--pubkeysfile {name}: {error.message}", hint=error.hint) from None
        found.append({"type": TYPES[kind], **of_gpg, "keyPath": path})
    return found


def _check_key(kind: str, path: str) -> None:
    if kind == "sigstoreSigned":
        keys.public(_key(path, keys.MAX_KEY))
        return
    with Keyring([_key(path, MAX_KEYRING)]):
        pass


def _key(path: str, limit: int) -> bytes:
    data = read(path, limit, TrustError)
    if data is None:
        raise TrustError(f"{path}: there is no such file")
    return data
