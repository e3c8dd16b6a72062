"""Strict JSON in about a millisecond: the C scanner and encoder of the standard library, without `json`.

Importing `json` costs ten times as much as reading a record with it, since it imports `re`. Every document
is treated as hostile: the caller limits its size, and duplicate keys, NaN, infinity, integers over 64 bits
and deep nesting are errors. So are lone surrogates, except those that PEP 383 uses for a byte of a file name
or an argument that is not UTF-8.
"""

from __future__ import annotations

import _json

from sysbox.base.errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_DEPTH = 128
_INT_DIGITS = 20  # 2**64 has 20 digits


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key '{key}' appears twice")
            seen.add(key)
    return data


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _integer(text: str) -> int:
    if len(text) > _INT_DIGITS:
        raise ValueError("an integer over 64 bits")
    return int(text)


def _float(text: str) -> float:
    number = float(text)
    if number - number != 0:
        raise ValueError("a number that is too large")
    return number


def _check_depth(document: str, value: Any) -> None:
    """Raises RecursionError for more than MAX_DEPTH levels: later code may recurse once per level."""
    if document.count("[") + document.count("{") <= MAX_DEPTH:
        return
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        inner = [one for one in level if isinstance(one, dict | list)]
        if not inner:
            return
        level = []
        for one in inner:
            level += one.values() if isinstance(one, dict) else one
    raise RecursionError


def _check_surrogates(value: Any) -> None:
    """Raises UnicodeEncodeError for a string that cannot be encoded when it is printed or passed on."""
    level = [value]
    for one in level:
        if isinstance(one, str):
            one.encode("utf-8", "surrogateescape")
        elif isinstance(one, dict):
            level += [*one, *one.values()]
        elif isinstance(one, list):
            level += one


class _Context:
    """The seven attributes that the C scanner reads (see `json.scanner`)."""

    strict = True
    object_hook = None
    object_pairs_hook = staticmethod(_unique)
    parse_float = staticmethod(_float)
    parse_int = staticmethod(_integer)
    parse_constant = staticmethod(_constant)
    memo: dict[str, str] = {}  # noqa: RUF012 (the C scanner wants the attribute)


_context: Any = _Context()
_scan: Any = _json.make_scanner(_context)
_default: Any = None
_encode: Any = _json.make_encoder(
    None, _default, _json.encode_basestring_ascii, None, ":", ",", True, False, False
)


def loads(text: bytes | str, what: str) -> Any:
    """Parse a JSON document; `what` names it in the error.

    Raises FormatError for anything that is not exactly one strict JSON value in UTF-8.
    """
    try:
        document = text.decode("utf-8") if isinstance(text, bytes) else text
        stripped = document.strip(" \t\r\n")
        value, end = _scan(stripped, 0)
        if end != len(stripped):
            raise ValueError(f"trailing data at character {end}")
        _check_depth(stripped, value)
        if "\\u" in stripped or not (isinstance(text, bytes) or text.isascii()):
            _check_surrogates(value)
    except SystemError:
        # the C scanner wants to raise JSONDecodeError of `json.decoder`, which sysbox does not import
        raise FormatError(f"{what}: not valid JSON") from None
    except StopIteration as stop:
        raise FormatError(f"{what}: not valid JSON at character {stop.value}") from None
    except RecursionError:
        raise FormatError(f"{what}: nested too deeply") from None
    except UnicodeEncodeError:
        raise FormatError(f"{what}: a lone surrogate") from None
    except ValueError as error:
        raise FormatError(f"{what}: {error}") from None
    return value


def take_format(values: Any, where: str, newest: int) -> None:
    """Take the number of a file's format out of its values; absent is 1. Raises FormatError."""
    number = values.pop("format", 1) if type(values) is dict else 1
    if type(number) is not int or not 1 <= number <= newest:
        raise FormatError(f"{where}.format: must be a number from 1 to {newest}")


def dumps(value: Any) -> bytes:
    """Compact JSON with sorted keys, ASCII only, and a newline."""
    return ("".join(_encode(value, 0)) + "\n").encode("ascii")
