"""Check values of instructions once their variables are replaced. Each raises SpecError."""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.build import modes
from sysbox.build.errors import quoted
from sysbox.parse.common import is_digits
from sysbox.parse.time import parse_signal

_PROTOCOLS = ("tcp", "udp", "sctp")
_HEX = frozenset("0123456789abcdef")


def path(text: str, written: str) -> str:
    """A path that is not empty and holds no NUL."""
    if not text:
        hint = "a variable in it is not set" if "$" in written else ""
        raise SpecError(f"{quoted(written)} is an empty path", hint=hint)
    if "\0" in text:
        raise SpecError(f"{quoted(text)}: a NUL character")
    return text


def variable(name: str, written: str) -> str:
    """The name of an environment variable."""
    if not name or "=" in name or "\0" in name:
        raise SpecError(f"{quoted(written)} is not the name of a variable")
    return name


def user(text: str, written: str) -> str:
    """USER, as NAME|UID[:GROUP|GID]."""
    name, colon, group = text.partition(":")
    if not name or (colon and not group) or ":" in group or len(text.split()) != 1:
        hint = "NAME or UID, then perhaps :GROUP"
        hint = "a variable in it is not set" if "$" in written else hint
        raise SpecError(f"{quoted(text)} is not one user", hint=hint)
    return text


def owner(text: str) -> str:
    """--chown, as USER[:GROUP], or "" where it is not given."""
    name, colon, group = text.partition(":")
    if text and (not name or (colon and not group) or ":" in group or len(text.split()) != 1):
        raise SpecError(f"--chown={quoted(text)}: must be USER[:GROUP], names or numbers")
    return text


def mode(text: str) -> str:
    """--chmod: octal, or symbolic as chmod(1) has it, or "" where it is not given."""
    if text:
        modes.parse(text)
    return text


def checksum(text: str) -> str:
    """ADD --checksum: `sha256:` and its digits, or a git commit or its beginning, or ""."""
    algorithm, colon, digits = text.partition(":")
    if not colon:
        algorithm, digits = "", text
    fits = _HEX.issuperset(digits)
    fits = fits and (len(digits) == 64 if colon else len(digits) <= 64)
    if text and (not fits or algorithm not in ("", "sha256")):
        raise SpecError(
            f"--checksum={quoted(text)}: must be sha256: and 64 hexadecimal digits, or a git commit"
        )
    return text


def signal(text: str) -> str:
    """STOPSIGNAL."""
    parse_signal(text, "STOPSIGNAL")
    return text


def ports(text: str) -> list[str]:
    """EXPOSE: PORT[-PORT][/PROTOCOL], each port with its protocol."""
    span, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    low, dash, high = span.partition("-")
    first, last = _port(low), _port(high if dash else low)
    if not 0 < first <= last:
        raise SpecError(f"{quoted(text)} is not a port: 1 to 65535, then perhaps /tcp or /udp")
    if protocol not in _PROTOCOLS:
        raise SpecError(f"{quoted(text)}: the protocol must be tcp, udp or sctp")
    return [f"{number}/{protocol}" for number in range(first, last + 1)]


def _port(text: str) -> int:
    """0 for what is no port."""
    number = int(text) if is_digits(text) and len(text) <= 5 else 0
    return number if number < 65536 else 0
