"""Which sources and contexts are addresses, and whether a build can fetch them. Pure."""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.build.errors import quoted

WORKING = (
    "these work: http://, https://, and for git repositories git://, ssh://, git@HOST:PATH, "
    "http://….git, https://….git, file://….git"
)
_OF_SCHEMES = frozenset("abcdefghijklmnopqrstuvwxyz0123456789+.-")


def is_git(text: str) -> bool:
    """Whether a context or a source is a git repository."""
    if text.startswith(("git://", "git@", "ssh://")):
        return True
    scheme, separator, rest = text.partition("#")[0].partition("://")
    return bool(separator) and scheme in ("http", "https", "file") and rest.endswith(".git")


def is_remote(text: str) -> bool:
    """Whether a source of ADD, or a context, is fetched."""
    return text.startswith(("http://", "https://")) or is_git(text)


def has_scheme(text: str) -> bool:
    """Whether a text is a URL (RFC 3986, 3.1), of whatever scheme."""
    scheme, separator, _ = text.lower().partition("://")
    return bool(separator and scheme) and scheme[0].isalpha() and _OF_SCHEMES.issuperset(scheme)


def check(text: str, keyword: str) -> None:
    """Raise SpecError for a source that is an address which the instruction cannot fetch."""
    if keyword == "COPY" and has_scheme(text):
        raise SpecError(
            f"{quoted(text)} is an address: COPY takes files alone", hint="ADD fetches addresses"
        )
    if has_scheme(text) and not is_remote(text):
        raise SpecError(f"{quoted(text)} is an address that nothing here fetches", hint=WORKING)
