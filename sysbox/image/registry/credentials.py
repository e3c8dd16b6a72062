"""Credentials of registries: the files where podman and docker keep them, and the programs that they name.

The order is containers-auth.json(5)'s, then docker's own file. The first file with an entry for the registry
counts; in a file the entry of the longest prefix of the name does: host/namespace before host.
"""

from __future__ import annotations

import binascii
import os

from sysbox.base import codec
from sysbox.base.errors import FormatError, SpecError
from sysbox.base.frozen import Frozen
from sysbox.image import caller_files
from sysbox.image.reference import DEFAULT_DOMAIN
from sysbox.image.registry import helpers
from sysbox.image.registry.endpoint import Endpoint, split_host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.image.registry.url import Url

VARIABLE = "REGISTRY_AUTH_FILE"
HUB_KEY = "https://index.docker.io/v1/"  # under which docker keeps the credentials of docker.io
_HUB_HOSTS = ("index.docker.io", "registry-1.docker.io", "registry.hub.docker.com")
_TOKEN_USER = "<token>"  # a helper's user name where the secret is an identity token


class Credential(Frozen):
    """A user name with its password, or an identity token."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    source: str = ""  # where it comes from, for messages

    def __bool__(self) -> bool:
        return bool(self.username or self.identity_token)

    def __repr__(self) -> str:
        return f"Credential(username={self.username!r}, source={self.source!r})"

    def basic(self) -> str:
        """The header `Authorization` of the scheme Basic (RFC 7617)."""
        text = f"{self.username}:{self.password}".encode("utf-8", "surrogateescape")
        return f"Basic {binascii.b2a_base64(text, newline=False).decode('ascii')}"


ANONYMOUS = Credential()


class Chain:
    """All places, in their order, or one file alone where the caller names it."""

    def __init__(self, authfile: str = "") -> None:
        self._paths = [authfile] if authfile else paths()

    def find(self, endpoint: Endpoint) -> Credential:
        """The credentials for a repository, or ANONYMOUS. Raises FormatError, KernelError."""
        for path in self._paths:
            found = _in_file(path, load(path), endpoint)
            if found:
                return found
        return ANONYMOUS

    def names(self, realm: Url) -> bool:
        """Whether the caller's files have an entry, which may be empty, for the host of a realm."""
        return any(
            normal(key) in (realm.host, realm.authority())
            for path in self._paths
            for key in auths(load(path), path)
        )

    def place(self) -> str:
        """The file that goes before the others, for messages."""
        return self._paths[0]


class Given(Chain):
    """Credentials that the caller has given, for their registry alone."""

    def __init__(self, credential: Credential, authfile: str = "") -> None:
        super().__init__(authfile)
        self._credential = credential

    def find(self, endpoint: Endpoint) -> Credential:  # noqa: ARG002 (a Chain)
        return self._credential


def paths() -> list[str]:
    """The files that are looked at, in order; only the one of $REGISTRY_AUTH_FILE where that is set."""
    given = os.environ.get(VARIABLE, "")
    if given:
        return [given]
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    found = [f"/run/containers/{os.getuid()}/auth.json"]
    found += [f"{runtime}/containers/auth.json"] if runtime else []
    own = caller_files.config_directory()
    found += [f"{own}/containers/auth.json"] if own else []
    home = caller_files.home()
    docker = os.environ.get("DOCKER_CONFIG") or (f"{home}/.docker" if home else "")
    found += [f"{docker}/config.json"] if docker else []
    return [*found, f"{home}/.dockercfg"] if home else found


def load(path: str) -> dict[str, Any]:
    """A file's document; {} where it does not exist. Raises FormatError, KernelError."""
    data = caller_files.read(path)
    if not data or not data.strip():
        return {}
    document = codec.loads(data, path)
    if type(document) is not dict:
        raise FormatError(f"{path}: must be an object")
    if path.endswith("/.dockercfg"):  # docker's first format: the entries alone
        return {"auths": document}
    return document


def auths(document: dict[str, Any], path: str) -> dict[str, dict[str, Any]]:
    """The entries of a file. Raises FormatError."""
    found = document.get("auths")
    if found is None:
        return {}
    if type(found) is not dict or not all(type(entry) is dict for entry in found.values()):
        raise FormatError(f"{path}: auths must be an object of objects")
    return found


def helper_of(document: dict[str, Any], registry: str, path: str) -> str:
    """The name of the program that keeps a registry's credentials, "" for none. Raises FormatError."""
    table = document.get("credHelpers")
    if table is not None and type(table) is not dict:
        raise FormatError(f"{path}: credHelpers must be an object")
    for key, name in (table or {}).items():
        if normal(key) == registry:
            return helpers.checked(name, path)
    store = document.get("credsStore")
    return helpers.checked(store, path) if store else ""


def normal(key: str) -> str:
    """The registry, or registry/namespace, that a key means."""
    for scheme in ("https://", "http://"):
        if key.startswith(scheme):
            key = key[len(scheme) :].partition("/")[0]
    host, slash, rest = key.partition("/")
    return f"{DEFAULT_DOMAIN if host in _HUB_HOSTS else host}{slash}{rest}"


def registry_of(text: str) -> str:
    """The key of a registry that the user names: `HOST[:PORT]`, that with a namespace, or docker's URL.

    Raises SpecError.
    """
    key = normal(text.strip().rstrip("/"))
    host, slash, namespace = key.partition("/")
    split_host(host, "registry")
    if slash and (not namespace or not namespace.isprintable() or " " in namespace):
        raise SpecError(f"registry: '{text}' is not HOST[:PORT][/NAMESPACE]")
    return key


def server_key(registry: str) -> str:
    """How docker and its helpers call a registry."""
    return HUB_KEY if registry == DEFAULT_DOMAIN else registry


def _in_file(path: str, document: dict[str, Any], endpoint: Endpoint) -> Credential:
    helper = helper_of(document, endpoint.registry, path)
    if helper:
        found = helpers.get(helper, server_key(endpoint.registry))
        if found is not None:
            user, secret = found
            source = f"{helpers.PREFIX}{helper}"
            if user == _TOKEN_USER:
                return Credential(identity_token=secret, source=source)
            return Credential(username=user, password=secret, source=source)
    entries = auths(document, path)
    known = {normal(key): entry for key, entry in entries.items()}
    name = endpoint.name()
    while name:
        if name in known:
            found_here = _decoded(known[name], name, path)
            if found_here:
                return found_here
        name = name.rpartition("/")[0]
    return ANONYMOUS


def _decoded(entry: dict[str, Any], key: str, path: str) -> Credential:
    """The credentials of an entry, ANONYMOUS for an empty one."""
    what = f"{path}: the entry of {key}"
    token = entry.get("identitytoken") or ""
    encoded = entry.get("auth") or ""
    if type(token) is not str or type(encoded) is not str:
        raise FormatError(f"{what}: auth and identitytoken must be strings")
    if not encoded:
        return Credential(identity_token=token, source=path)
    try:
        data = binascii.a2b_base64(encoded.strip(), strict_mode=True)
    except ValueError:
        raise FormatError(f"{what}: auth is not base64") from None
    text = data.decode("utf-8", "surrogateescape")
    user, colon, password = text.partition(":")
    if not colon:
        raise FormatError(f"{what}: auth is not USER:PASSWORD in base64")
    return Credential(
        username=user, password=password.rstrip("\0"), identity_token=token, source=path
    )
