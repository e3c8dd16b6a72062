"""Credential helpers: docker-credential-NAME get|store|erase, with JSON on standard input and output.

The protocol is that of the docker-credential-helpers project; its programs serve docker and podman too.
"""

from __future__ import annotations

import shutil
import subprocess

from sysbox.base import codec
from sysbox.base.errors import FormatError, SysboxError

PREFIX = "docker-credential-"
_PATIENCE = 120.0  # seconds: one may ask for a passphrase
_NOT_FOUND = "credentials not found"


def checked(name: object, path: str) -> str:
    """A helper's name as a file of credentials has it. Raises FormatError for one that is a path."""
    if type(name) is not str or not name or "/" in name or "\0" in name:
        raise FormatError(f"{path}: {name!r} is not the name of a credential helper")
    return name


def get(name: str, server: str) -> tuple[str, str] | None:
    """(user name, secret) of a server, None where the helper has none. Raises SysboxError, FormatError."""
    status, output = _run(name, "get", server.encode())
    what = f"{PREFIX}{name} get"
    if status:
        if _NOT_FOUND in output.lower():
            return None
        raise SysboxError(f"{what}: {_line(output) or f'failed with status {status}'}")
    document = codec.loads(output, what)
    if type(document) is not dict:
        raise FormatError(f"{what}: its answer must be an object")
    user, secret = document.get("Username", ""), document.get("Secret", "")
    if type(user) is not str or type(secret) is not str:
        raise FormatError(f"{what}: Username and Secret must be strings")
    return (user, secret) if user or secret else None


def store(name: str, server: str, user: str, secret: str) -> None:
    """Give a helper the credentials of a server. Raises SysboxError."""
    data = codec.dumps({"ServerURL": server, "Username": user, "Secret": secret})
    status, output = _run(name, "store", data)
    if status:
        raise SysboxError(
            f"{PREFIX}{name} store: {_line(output) or f'failed with status {status}'}"
        )


def erase(name: str, server: str) -> bool:
    """Have a helper forget a server; False where it had nothing. Raises SysboxError."""
    if get(name, server) is None:
        return False
    status, output = _run(name, "erase", server.encode())
    if status:
        raise SysboxError(
            f"{PREFIX}{name} erase: {_line(output) or f'failed with status {status}'}"
        )
    return True


def _run(name: str, action: str, data: bytes) -> tuple[int, str]:
    program = shutil.which(f"{PREFIX}{name}")
    if program is None:
        raise SysboxError(
            f"{PREFIX}{name}: no such program in PATH, and a file of credentials names it",
            hint="install it, or take its name out of credHelpers and credsStore",
        )
    try:
        # its standard error is the terminal's: it may ask there
        done = subprocess.run(
            [program, action], input=data, stdout=subprocess.PIPE, timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        raise SysboxError(f"{PREFIX}{name} {action}: no answer in {_PATIENCE:.0f} s") from None
    except OSError as error:
        raise SysboxError(f"{PREFIX}{name}: {error.strerror}") from None
    return done.returncode, done.stdout.decode("utf-8", "replace")


def _line(output: str) -> str:
    return " ".join(output.split())[:200]
