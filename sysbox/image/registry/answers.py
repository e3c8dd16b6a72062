"""What a registry's answers say: errors, pages, ranges (OCI distribution spec 1.1)."""

from __future__ import annotations

from sysbox.base import codec
from sysbox.base.errors import (
    AccessDenied,
    FormatError,
    NotFound,
    RateLimited,
    RegistryError,
    SysboxError,
)
from sysbox.image.reference import is_tag
from sysbox.image.registry import url as urls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.image.registry.transport import Answer

_MAX_ERROR = 64 << 10  # bytes of a body that explains a failure
_SHOWN = 200  # characters of it


def failure(answer: Answer, what: str) -> SysboxError:
    """The error for an answer that is none of those that the spec has for success; closes it.

    NotFound for 404, AccessDenied for 401 and 403, RateLimited for 429, else RegistryError.
    """
    code = answer.status
    said = _said(answer)
    answer.close()
    because = f": {said}" if said else ""
    if code == 404:
        return NotFound(f"{what}: not found{because}")
    if code in (401, 403):
        return AccessDenied(
            f"{what}: access denied{because}",
            hint="it may not exist, or need a login with other credentials: `sysbox login`",
            code=code,
        )
    if code == 429:
        asked = answer.header("Retry-After")
        return RateLimited(
            f"{what}: too many requests{because}",
            hint=f"the registry asks to wait for {asked} s"
            if asked.isdecimal()
            else "try again later",
            code=code,
        )
    if code >= 500:
        return RegistryError(
            f"{what}: the server fails with status {code}{because}",
            hint="try again later, or another mirror",
            code=code,
        )
    return RegistryError(f"{what}: the server answers with status {code}{because}", code=code)


def _said(answer: Answer) -> str:
    """What the body says of the reason, in one line (spec, "Error codes"); "" where it says nothing."""
    try:
        data = answer.document(_MAX_ERROR, "")
        document = codec.loads(data, "")
        first = document["errors"][0]
        parts = [str(first[key]) for key in ("code", "message") if first.get(key)]
    except (SysboxError, KeyError, IndexError, TypeError, AttributeError):
        return ""
    text = ": ".join(dict.fromkeys(parts))
    line = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(line.split())[:_SHOWN]


def tags(data: bytes, what: str) -> list[str]:
    """The tags of one page; `null` is none. Raises FormatError."""
    document = codec.loads(data, what)
    if type(document) is not dict:
        raise FormatError(f"{what}: must be an object")
    found = document.get("tags")
    if found is None:
        return []
    if type(found) is not list:
        raise FormatError(f"{what}: tags must be a list")
    for tag in found:
        if type(tag) is not str or not is_tag(tag):
            raise FormatError(f"{what}: holds something that is not a tag")
    return found


def next_page(answer: Answer, what: str) -> str:
    """The path of the next page by the header Link (RFC 8288), "" for the last.

    Raises FormatError for a page on another server.
    """
    for part in answer.header("Link").split(","):
        address, _, parameters = part.strip().partition(">")
        if not address.startswith("<") or "rel" not in parameters or "next" not in parameters:
            continue
        found = urls.parse(address[1:], f"{what}: Link", answer.url)
        if found.origin() != answer.url.origin():
            raise FormatError(f"{what}: goes on at another server, {found.authority()}")
        return found.target
    return ""


def check_range(answer: Answer, start: int, size: int, what: str) -> None:
    """Raises FormatError where a 206 is not about what was asked for (RFC 9110, 14.4)."""
    given = answer.header("Content-Range")
    unit, _, rest = given.partition(" ")
    begin, _, total = rest.partition("/")
    if (
        unit.lower() != "bytes"
        or begin.strip() != f"{start}-{size - 1}"
        or total not in ("*", str(size))
    ):
        answer.drop()
        raise FormatError(
            f"{what}: sends the range '{given[:80]}' where bytes {start}-{size - 1}/{size} were asked for"
        )
