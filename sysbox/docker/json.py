"""JSON as docker prints it: keys in their own order, text not escaped, four spaces of indentation.

Records are written by `codec.dumps` instead: it sorts keys, and escapes text, so that no byte is lost.
"""

from __future__ import annotations

import _json

from sysbox.base.errors import SpecError
from sysbox.docker.shapes import Null

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _encode_string(text: str) -> str:
    if not text.isascii():
        # JSON cannot have a byte that is not UTF-8
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return str(_json.encode_basestring(text))


_make_encoder: Any = _json.make_encoder
_encode: Any = _make_encoder(None, None, _encode_string, None, ":", ",", False, False, False)


def to_json(value: Any) -> str:
    """Compact JSON, keys in their own order. Raises SpecError."""
    try:
        return "".join(_encode(_plain(value), 0))
    except (TypeError, ValueError) as error:
        raise SpecError(f"cannot be written as JSON: {error}") from None


def _plain(value: Any) -> Any:
    """The value with None for each Null, which only templates take for a list, a map or a pointer."""
    if isinstance(value, Null):
        return None
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def pretty(value: Any, indent: str = "") -> str:
    """JSON with docker's four-space indentation, keys in their own order."""
    inner = indent + "    "
    if isinstance(value, dict) and value:
        items = [
            f"{inner}{_encode_string(key)}: {pretty(one, inner)}" for key, one in value.items()
        ]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    if isinstance(value, list | tuple) and value:
        items = [inner + pretty(one, inner) for one in value]
        return "[\n" + ",\n".join(items) + f"\n{indent}]"
    return to_json(value)
