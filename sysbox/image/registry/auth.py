"""Authorisation: from a registry's challenge to the header `Authorization`.

Basic, and tokens by the specifications of the distribution project (docs/spec/auth/token.md, oauth.md). A
registry's credentials go to that registry and to the realm that it names; to the realm only over https, and
only if its host is the registry's, is in the same domain, or is named in the caller's own file of
credentials. On loopback, and for a registry that is insecure, http will do.
"""

from __future__ import annotations

import time

from sysbox.base import codec
from sysbox.base.errors import AccessDenied, FormatError, RegistryError
from sysbox.base.frozen import Frozen
from sysbox.image.registry import challenges
from sysbox.image.registry import url as urls
from sysbox.image.registry.credentials import Chain, Credential
from sysbox.image.registry.endpoint import Endpoint, is_loopback
from sysbox.image.registry.transport import Request, Transport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.image.registry.challenges import Challenge
    from sysbox.image.registry.transport import Answer
    from sysbox.image.registry.url import Url

    Scopes = tuple[str, ...]

_MAX_TOKEN = 1 << 20  # bytes of the answer that has it
_LIFETIME = 60  # seconds of a token that does not say (token.md, "expires_in")
_MARGIN = 5  # seconds before its end at which a token counts as old
_CLIENT = "sysbox"
# second labels below which a country's registry gives out domains: a.co.uk and b.co.uk are strangers
_SECOND = frozenset("ac co com edu gob gov go mil ne net nom or org sch".split())


class Token(Frozen):
    """A bearer token, and the time (monotonic, seconds) from which on it counts as old."""

    value: str
    until: float


class Authorizer:
    """The credentials and tokens of one repository's requests; a token is kept for each set of scopes."""

    def __init__(self, endpoint: Endpoint, chain: Chain, transport: Transport) -> None:
        self._endpoint = endpoint
        self._chain = chain
        self._transport = transport
        self._tokens: dict[Scopes, Token] = {}
        self._basic = ""

    def header(self, scopes: Scopes) -> str:
        """The header for a request with these scopes, "" before the registry has asked for one."""
        if self._basic:
            return self._basic
        for have, token in self._tokens.items():
            if token.until > time.monotonic() and _covers(have, scopes):
                return f"Bearer {token.value}"
        return ""

    def meet(self, answer: Answer, scopes: Scopes) -> None:
        """Meet the challenge of a 401: afterwards `header` returns what it demands.

        Raises AccessDenied where there are no credentials or the registry does not take them, FormatError for
        a malformed challenge, RegistryError for a realm that may not be asked, Unreachable.
        """
        place = self._endpoint.name()
        found = challenges.parse(answer.headers("WWW-Authenticate"), place)
        for challenge in found:
            if challenge.scheme == "bearer":
                wanted = _merged(scopes, challenge.parameters.get("scope", ""))
                self._tokens[wanted] = self._token(challenge, wanted, answer.url)
                return
        if any(challenge.scheme == "basic" for challenge in found):
            self._take_basic()
            return
        names = ", ".join(challenge.scheme for challenge in found) or "nothing"
        raise AccessDenied(
            f"{place}: the registry asks for authorisation by {names}, which sysbox does not support",
            code=answer.status,
        )

    def forget(self) -> None:
        """Drop the tokens and the password that the registry did not accept."""
        self._tokens.clear()
        self._basic = ""

    def credential(self) -> Credential:
        """The caller's credentials for this registry. Raises FormatError for a malformed file."""
        return self._chain.find(self._endpoint)

    def _take_basic(self) -> None:
        credential = self.credential()
        if not credential.username:
            raise denied(self._endpoint, credential)
        self._basic = credential.basic()

    def _token(self, challenge: Challenge, scopes: Scopes, asked_by: Url) -> Token:
        place = self._endpoint.name()
        text = challenge.parameters.get("realm", "")
        realm = urls.parse(text, f"{place}: the realm of its challenge")
        credential = self.credential()
        self._check_realm(realm, asked_by, given=bool(credential))
        service = challenge.parameters.get("service", "")
        if credential.identity_token:
            request = _by_identity_token(realm, service, scopes, credential.identity_token)
        else:
            request = _by_password(realm, service, scopes, credential)
        what = f"{realm.place()}: the token"
        answer = self._transport.send(request.replace(limit=_MAX_TOKEN, what=what))
        data = answer.document(_MAX_TOKEN, what)
        if answer.status in (400, 401, 403, 404) and credential:
            raise denied(self._endpoint, credential, realm.authority())
        if answer.status in (401, 403):
            raise denied(self._endpoint, credential)
        if answer.status != 200:
            raise RegistryError(
                f"{place}: {realm.place()} gives no token: status {answer.status}",
                code=answer.status,
            )
        return _read_token(data, realm.place())

    def _check_realm(self, realm: Url, asked_by: Url, *, given: bool) -> None:
        """Raises RegistryError for a realm that may not be asked, or may not have the credentials."""
        place = self._endpoint.name()
        plain = self._endpoint.insecure or (
            is_loopback(self._endpoint.host) and is_loopback(realm.host)
        )
        if realm.scheme != "https" and not plain:
            raise RegistryError(
                f"{place}: sends for tokens to {realm.place()}, without TLS",
                hint="nothing was sent there; the registry's realm must be https",
            )
        if not given or same_site(realm.host, asked_by.host) or self._chain.names(realm):
            return
        raise RegistryError(
            f"{place}: wants its credentials sent to {realm.authority()}, which is another host",
            hint=f"nothing was sent there; if that is right, say so with an entry "
            f'"{realm.authority()}": {{}} among the auths of {self._chain.place()}',
        )


def same_site(one: str, other: str) -> bool:
    """Whether two hosts are one or belong to one domain: auth.example.com and registry.example.com."""
    if one == other:
        return True
    if is_loopback(one) and is_loopback(other):
        return True
    if any(":" in host or host.rpartition(".")[2].isdecimal() for host in (one, other)):
        return False  # addresses have no domain
    return _domain(one) == _domain(other) != ""


def _domain(host: str) -> str:
    labels = host.rstrip(".").split(".")
    count = 3 if len(labels[-1]) == 2 and len(labels) > 2 and labels[-2] in _SECOND else 2
    return ".".join(labels[-count:]) if len(labels) >= count else ""


def denied(endpoint: Endpoint, credential: Credential, by: str = "") -> AccessDenied:
    """The error where credentials are missing or not accepted; `by` names the server that refused them."""
    if credential:
        return AccessDenied(
            f"{endpoint.name()}: {by or 'the registry'} does not accept the credentials of "
            f"{credential.source or 'the command line'}",
            hint=f"log in again: sysbox login {endpoint.registry}",
            code=401,
        )
    return AccessDenied(
        f"{endpoint.name()}: access denied: it does not exist, or needs a login",
        hint=f"sysbox login {endpoint.registry}",
        code=401,
    )


def _by_password(realm: Url, service: str, scopes: Scopes, credential: Credential) -> Request:
    """token.md: a GET with the scopes in its query, and basic authorisation where there are credentials."""
    from urllib.parse import urlencode

    query = [("service", service)] if service else []
    query += [("account", credential.username)] if credential.username else []
    query += [("scope", scope) for scope in scopes]
    joint = "&" if "?" in realm.target else "?"
    url = realm.replace(
        target=f"{realm.target}{joint}{urlencode(query)}" if query else realm.target
    )
    return Request(
        method="GET", url=url, authorization=credential.basic() if credential.username else ""
    )


def _by_identity_token(realm: Url, service: str, scopes: Scopes, identity_token: str) -> Request:
    """oauth.md: a POST of a form. It follows no redirect, since the token is in its body."""
    from urllib.parse import urlencode

    form = {
        "grant_type": "refresh_token",
        "service": service,
        "client_id": _CLIENT,
        "scope": " ".join(scopes),
        "refresh_token": identity_token,
    }
    return Request(
        method="POST",
        url=realm,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        body=urlencode(form).encode(),
        follow=False,
    )


def _read_token(data: bytes, place: str) -> Token:
    document = codec.loads(data, f"{place}: the token")
    if type(document) is not dict:
        raise FormatError(f"{place}: the token: must be an object")
    value = document.get("token") or document.get("access_token")
    if type(value) is not str or not value.isascii() or not value.isprintable() or " " in value:
        raise FormatError(f"{place}: sends no token")
    lifetime = document.get("expires_in")
    seconds = lifetime if type(lifetime) is int and lifetime > 0 else _LIFETIME
    return Token(value=value, until=time.monotonic() + max(seconds - _MARGIN, 1))


def _merged(scopes: Scopes, asked: str) -> Scopes:
    """Our own scopes, and those of the challenge that they do not cover."""
    extra = [scope for scope in asked.split(" ") if scope and not _covers(scopes, (scope,))]
    return (*scopes, *extra)


def _covers(have: Scopes, wanted: Scopes) -> bool:
    return all(any(_includes(one, scope) for one in have) for scope in wanted)


def _includes(have: str, wanted: str) -> bool:
    """`repository:NAME:pull,push` includes `repository:NAME:pull`."""
    name, _, actions = have.rpartition(":")
    wanted_name, _, wanted_actions = wanted.rpartition(":")
    return name == wanted_name and set(wanted_actions.split(",")) <= set(actions.split(","))
