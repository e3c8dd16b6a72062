"""`sysbox login`: ask a registry whether it takes a user name and a password, then keep them."""

from __future__ import annotations

import os
import sys

from sysbox.base.errors import AccessDenied, NotFound, UsageError
from sysbox.cli.output import line, note
from sysbox.cli.request import registries
from sysbox.image.registry import auth_file, conf
from sysbox.image.registry.access import Access
from sysbox.image.registry.credentials import Chain, Credential, Given, registry_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values
    from sysbox.image.registry.endpoint import Endpoint

_DONE = "Login Succeeded"
_LONGEST = 64 << 10  # bytes of a password


def main(values: Values) -> int:
    """0, and the credentials are kept if the registry takes them."""
    key = registry_of(values.registry or "docker.io")
    host, _, repository = key.partition("/")
    endpoint = conf.registry(host)
    known = Chain(values.authfile or "").find(endpoint.replace(repository=repository))
    if values.get_login:
        if not known:
            raise NotFound(f"login {key}: not logged in", hint=f"sysbox login {key}")
        line(known.username or "<token>")
        return 0
    access = Access(**registries.access(values))
    _check_flags(values)
    if known and not (values.username or values.password or values.password_stdin):
        line("Authenticating with existing credentials...")
        if _accepted(access, endpoint, known):
            line(_DONE)
            return 0
        note(f"login {key}: the registry does not take those of {known.source} any more")
    credential = _ask(values, known.username)
    _check(access, endpoint, credential)
    path = auth_file.place(values.authfile or "")
    if not auth_file.save(path, key, credential):
        note(f"the password is in {path}, unencrypted; a credential helper can keep it elsewhere")
    line(_DONE)
    return 0


def _check(access: Access, endpoint: Endpoint, credential: Credential) -> None:
    """Raises AccessDenied where the registry does not take the credentials."""
    try:
        access.repository(endpoint, Given(credential, access.authfile)).check()
    except AccessDenied as error:
        error.hint = "check the user name and the password, which may have to be a token"
        raise


def _accepted(access: Access, endpoint: Endpoint, credential: Credential) -> bool:
    try:
        access.repository(endpoint, Given(credential)).check()
    except AccessDenied:
        return False
    return True


def _check_flags(values: Values) -> None:
    if values.password and values.password_stdin:
        raise UsageError("login: --password and --password-stdin are mutually exclusive")
    if values.password_stdin and not values.username:
        raise UsageError("login: must provide --username with --password-stdin")


def _ask(values: Values, before: str) -> Credential:
    """User name and password from flags, standard input or the terminal. Raises UsageError."""
    user, password = values.username or "", values.password or ""
    if values.password:
        note(
            "a password on the command line is seen by all users of this host: use --password-stdin"
        )
    if values.password_stdin:
        password = _from_stdin()
    if not (user and password):
        if not os.isatty(0):
            raise UsageError(
                "login: cannot ask for user name and password: standard input is no terminal",
                hint="give --username, and the password by --password-stdin",
            )
        user = user or _prompt(f"Username{f' ({before})' if before else ''}: ") or before
        password = password or _hidden("Password: ")
    if not user or not password:
        raise UsageError("login: a user name and a password are needed")
    if ":" in user:
        raise UsageError(f"login: the user name '{user}' holds a colon, which RFC 7617 rules out")
    return Credential(username=user, password=password)


def _from_stdin() -> str:
    data = sys.stdin.buffer.read(_LONGEST + 1)
    if len(data) > _LONGEST:
        raise UsageError(f"login: a password of more than {_LONGEST} bytes")
    text = data.decode("utf-8", "surrogateescape")
    return text.removesuffix("\n").removesuffix("\r")


def _prompt(text: str) -> str:
    try:
        return input(text).strip()
    except EOFError:
        raise UsageError("login: no user name was given") from None


def _hidden(text: str) -> str:
    from getpass import getpass

    try:
        return getpass(text)
    except EOFError:
        raise UsageError("login: no password was given") from None
