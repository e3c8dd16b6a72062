"""Why a document is not strict JSON, and where, for an error."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def why(content: bytes) -> str:
    """What is wrong, and in which line and column; "" where that is not the syntax (depth, a key twice)."""
    if content.startswith(b"\xef\xbb\xbf"):
        return "it begins with a byte order mark: save it as UTF-8 without one"
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "it is in UTF-16: save it as UTF-8"
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        before = content[: error.start].decode()
        return f"not UTF-8 in {_place(before)}: the byte 0x{content[error.start]:02x}"
    import json

    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        return f"not JSON in line {error.lineno}, column {error.colno}: {error.msg}"
    except (ValueError, RecursionError):
        return ""
    return _half(value)


def _place(before: str) -> str:
    """Line and column, from 1, of what follows the text."""
    return f"line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}"


def _half(value: Any) -> str:
    """Which string has half of a pair of surrogates, which is no character; "" where none has."""
    left = [("", value)]
    while left:
        place, one = left.pop()
        if isinstance(one, str) and not _is_whole(one):
            return f"{place or 'the text'}: \\u with half of a character (a lone surrogate)"
        if isinstance(one, dict):
            for key, inner in one.items():
                if not _is_whole(key):
                    return f"{place or 'the object'}: a key with half of a character (a lone surrogate)"
                left.append((f"{place}.{key}".removeprefix("."), inner))
        elif isinstance(one, list):
            left += [(f"{place}[{index}]", inner) for index, inner in enumerate(one)]
    return ""


def _is_whole(text: str) -> bool:
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True
