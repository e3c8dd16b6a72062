"""The part of YAML that files of registries.d use: mappings, by indentation, of texts and of mappings.

Lists, flow style, block scalars, anchors and tags are errors: containers-registries.d(5) needs none of them.
"""

from __future__ import annotations

from sysbox.base.errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_MAX_LINES = 10_000
_MAX_DEPTH = 8
# a plain scalar begins with none of these (YAML 1.2.2, 7.3.3)
_INDICATORS = frozenset("-?:,[]{}#&*!|>'\"%@`")


def load(text: str, what: str) -> dict[str, Any]:
    """A document: text -> text, or a further mapping. A key without a value has an empty mapping.

    Raises FormatError, which names the line.
    """
    top: dict[str, Any] = {}
    # (indentation, mapping) of each level; -1: not known before its first line
    levels: list[tuple[int, dict[str, Any]]] = [(0, top)]
    for number, indent, content in _lines(text, what):
        where = f"{what}:{number}"
        while indent < levels[-1][0] or (levels[-1][0] < 0 and indent <= levels[-2][0]):
            levels.pop()
        known, mapping = levels[-1]
        if known < 0:
            levels[-1] = (indent, mapping)
        elif indent != known:
            raise FormatError(f"{where}: its indentation fits no line above")
        key, value = _entry(content, where)
        if key in mapping:
            raise FormatError(f"{where}: the key '{key}' appears twice")
        if value is None:
            inner: dict[str, Any] = {}
            mapping[key] = inner
            levels.append((-1, inner))
            if len(levels) > _MAX_DEPTH:
                raise FormatError(f"{where}: nested too deeply")
        else:
            mapping[key] = value
    return top


def _lines(text: str, what: str) -> Iterator[tuple[int, int, str]]:
    """(number, indentation, content) of each line that has content."""
    # not splitlines(), which knows other line breaks than YAML does
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if len(lines) > _MAX_LINES:
        raise FormatError(f"{what}: has more than {_MAX_LINES} lines")
    started = False
    for number, line in enumerate(lines, 1):
        content = line.lstrip(" ")
        if content.startswith("\t"):
            raise FormatError(f"{what}:{number}: a tab as indentation")
        if not content or content.startswith("#"):
            continue
        if line.rstrip() == "---" and not started:
            started = True
            continue
        started = True
        yield number, len(line) - len(content), content.rstrip()


def _entry(content: str, where: str) -> tuple[str, str | None]:
    """The key and its value; None where a mapping follows, or nothing."""
    if content[0] in "'\"":
        key, rest = _quoted(content, where)
        if not rest.startswith(":"):
            raise FormatError(f"{where}: no ':' after the key")
        rest = rest[1:]
        if rest[:1] not in ("", " "):
            raise FormatError(f"{where}: no space after ':'")
    else:
        key, colon, rest = (f"{content} ").partition(": ")
        if not colon:
            raise FormatError(f"{where}: is not KEY: VALUE")
        if key[:1] in _INDICATORS or " #" in key:
            raise FormatError(f"{where}: a kind of YAML that such a file has no use for")
        key = key.rstrip()
    rest = rest.strip()
    if not rest or rest.startswith("#"):
        return key, None
    return key, _scalar(rest, where)


def _scalar(text: str, where: str) -> str | None:
    if text[0] in "'\"":
        value, rest = _quoted(text, where)
        if rest.strip() and not rest.startswith(" #"):
            raise FormatError(f"{where}: something follows the closing quote")
        return value
    text = text.partition(" #")[0].rstrip()
    if text in ("{}", "null", "~"):
        return None
    if text[0] in _INDICATORS or ": " in text or text.endswith(":"):
        raise FormatError(f"{where}: a kind of YAML that such a file has no use for")
    return text


def _quoted(text: str, where: str) -> tuple[str, str]:
    """(the text in quotes, what follows them)."""
    quote, found, at = text[0], "", 1
    while at < len(text):
        character = text[at]
        if character == "\\" and quote == '"':
            if text[at + 1 : at + 2] not in ("\\", '"', "/"):
                raise FormatError(f'{where}: an escape other than \\\\ and \\"')
            at += 1
            character = text[at]
        elif character == quote:
            if quote == '"' or text[at + 1 : at + 2] != "'":
                return found, text[at + 1 :]
            at += 1
        found += character
        at += 1
    raise FormatError(f"{where}: the closing quote is missing")
