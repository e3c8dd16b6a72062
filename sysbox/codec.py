"""Strict JSON in about a millisecond: the C scanner and encoder of the standard library, without `json`.

Importing `json` costs ten times as much as reading a record with it (it pulls in `re`). Every document
is treated as hostile: its size is capped by the caller, duplicate keys, NaN, lone surrogates, integers
over 64 bits and deep nesting are refused.
"""

from __future__ import annotations

import _json

from sysbox.errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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


class _Context:
    """The seven attributes that the C scanner reads (see `json.scanner`)."""

    strict = True
    object_hook = None
    object_pairs_hook = staticmethod(_unique)
    parse_float = float
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
    except SystemError:
        # the C scanner looks for JSONDecodeError in `json.decoder`, which we never import
        raise FormatError(f"{what}: not valid JSON") from None
    except StopIteration as stop:
        raise FormatError(f"{what}: not valid JSON at character {stop.value}") from None
    except RecursionError:
        raise FormatError(f"{what}: nested too deeply") from None
    except ValueError as error:
        raise FormatError(f"{what}: {error}") from None
    return value


def dumps(value: Any) -> bytes:
    """Compact JSON with sorted keys, ASCII only, and a newline."""
    return ("".join(_encode(value, 0)) + "\n").encode("ascii")
