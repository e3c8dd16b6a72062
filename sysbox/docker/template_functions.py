"""The functions of the template language: Go's own and docker's.

Sources: Go's documentation of package text/template, "Functions"; docker's "Format command and log output".
Text is counted in bytes of UTF-8, as in Go.
"""

from __future__ import annotations

from sysbox.docker.json import to_json
from sysbox.docker.template_values import go_string, plain, truth, type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    # takes characters off the template's allowance; raises when that is used up
    Spend = Callable[[int], None]


def call(
    name: str, arguments: list[Any], fail: Callable[[str], NoReturn], spend: Spend, *, titles: bool
) -> Any:
    """The function's value; on an error, `fail` is called with the reason.

    With `titles` the arguments are headings of columns, which docker does not convert.
    """
    spend(sum(len(one) for one in arguments if isinstance(one, str | list)))
    try:
        if titles and name in _OF_TITLES:
            value = _OF_TITLES[name](*arguments)
        elif name in _WRITERS:
            value = _WRITERS[name](spend, *arguments)
        else:
            value = FUNCTIONS[name](*arguments)
    except TypeError:
        fail(f"wrong number or type of args for {name}")
    except (IndexError, KeyError, ValueError) as error:
        fail(f"error calling {name}: {error}")
    spend(len(value) if isinstance(value, str | list) else 1)
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _whole(value: object) -> int:
    if type(value) is not int:
        raise TypeError
    return value


def _bytes(value: object) -> bytes:
    return _text(value).encode("utf-8", "surrogateescape")


def _of_bytes(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _length(value: Any) -> int:
    return len(_bytes(value) if isinstance(value, str) else value)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            # Go gives the zero value for a missing key; for docker's untyped maps that is nil
            value = value.get(_text(key))
            if callable(value):
                raise KeyError(key)
        elif isinstance(value, list | tuple | str):
            items = _bytes(value) if isinstance(value, str) else value
            if not 0 <= _whole(key) < len(items):
                raise IndexError(f"index out of range: {key}")
            value = items[key]
        elif value is None:
            raise ValueError("index of untyped nil")
        else:
            raise ValueError(f"can't index item of type {type_name(value)}")
    return value


def _slice(value: Any, *ends: Any) -> Any:
    if not isinstance(value, str | list | tuple):
        raise ValueError(f"can't slice item of type {type_name(value)}")
    if len(ends) > 2 + (not isinstance(value, str)):
        raise ValueError("too many slice indexes")
    items = _bytes(value) if isinstance(value, str) else value
    start, end = (*map(_whole, ends[:2]), *(0, len(items))[len(ends[:2]) :])
    for place in (*ends[2:], start, end):
        if not 0 <= _whole(place) <= len(items):
            raise IndexError(f"index out of range: {place}")
    if start > end:
        raise IndexError(f"invalid slice index: {start} > {end}")
    return _of_bytes(items[start:end]) if isinstance(items, bytes) else items[start:end]


def _kind(value: Any) -> str:
    return "nil" if value is None else type_name(value)


def _equal(first: Any, *others: Any) -> bool:
    if not others:
        raise ValueError("missing argument for comparison")
    first, *others_ = map(plain, (first, *others))
    if isinstance(first, dict | list | tuple):
        raise ValueError(f"non-comparable type {type_name(first)}")
    for other in others_:
        if isinstance(other, dict | list | tuple):
            raise ValueError(f"non-comparable type {type_name(other)}")
        if None not in (first, other) and _kind(first) != _kind(other):
            raise ValueError("incompatible types for comparison")
    return any(first == other for other in others_)


def _compare(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compare(left: Any, right: Any) -> bool:
        if _kind(left) != _kind(right):
            raise ValueError("incompatible types for comparison")
        if _kind(left) not in ("int", "float64", "string"):
            raise ValueError("invalid type for comparison")
        return test(left, right)

    return compare


def _call(function: Any, *_: Any) -> NoReturn:
    # a method of a row is called by its name, as in docker: no value is a function
    raise ValueError(f"non-function of type {type_name(function)}")


def _joined(spend: Spend, values: Any, between: str) -> str:
    texts = []
    for one in values:
        texts.append(go_string(one))
        spend(len(texts[-1]) + len(between))
    return between.join(texts)


def _join(spend: Spend, values: Any, separator: Any) -> str:
    if isinstance(values, str):
        raise TypeError
    return _joined(spend, values, _text(separator))


def _print(spend: Spend, *values: Any) -> str:
    """Spaces between operands when neither is a string, as fmt.Sprint."""
    out = []
    for index, value in enumerate(values):
        if index and not isinstance(value, str) and not isinstance(values[index - 1], str):
            out.append(" ")
        out.append(_operand(value))
        spend(len(out[-1]))
    return "".join(out)


def _println(spend: Spend, *values: Any) -> str:
    return _joined(spend, map(_operand, values), " ") + "\n"


def _operand(value: Any) -> str:
    return "<nil>" if value is None else go_string(value)


def _printf(spend: Spend, form: Any, *values: Any) -> str:
    from sysbox.docker.template_format import printf

    return printf(spend, _text(form), *values)


def _pad(spend: Spend, value: Any, before: Any, after: Any) -> str:
    text = _text(value)
    if _whole(before) < 0 or _whole(after) < 0:
        raise ValueError("negative repeat count")
    spend(before + after)
    return " " * before + text + " " * after if text else ""


def _escape(value: str, table: dict[str, str]) -> str:
    return "".join(table.get(one, one) for one in value)


_HTML = {"\0": "\ufffd", '"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;"}
_JS = dict(zip("\\'\"<>&=", "\\\\ \\' \\\" \\u003C \\u003E \\u0026 \\u003D".split(), strict=True))


def _html(spend: Spend, *values: Any) -> str:
    return _escape(_print(spend, *values), _HTML)


def _js(spend: Spend, *values: Any) -> str:
    text = _print(spend, *values)
    if not text.isprintable():
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(_JS.get(one, one) if one.isprintable() else f"\\u{ord(one):04X}" for one in text)


_UNRESERVED = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~")


def _urlquery(spend: Spend, *values: Any) -> str:
    data = _bytes(_print(spend, *values))
    return "".join(
        chr(one) if one in _UNRESERVED else "+" if one == 0x20 else f"%{one:02X}" for one in data
    )


def _split(value: Any, separator: Any) -> list[str]:
    text = _text(value)
    return text.split(separator) if _text(separator) else list(text)


def _truncate(value: Any, length: Any) -> str:
    data = _bytes(value)
    if _whole(length) < 0:
        raise ValueError("slice bounds out of range")
    return _of_bytes(data[:length])


def _title(value: Any) -> str:
    """The first letter of each word in upper case, by the word boundaries of strings.Title."""
    out = []
    before = " "
    for one in _text(value):
        inside = before == "_" or before.isalnum() or not (before.isascii() or before.isspace())
        out.append(one if inside else one.upper())
        before = one
    return "".join(out)


def _json(value: Any) -> str:
    if isinstance(value, dict) and any(map(callable, value.values())):
        # a row of a listing: its methods are no data, and docker sorts its keys
        value = {key: value[key] for key in sorted(value) if not callable(value[key])}
    return to_json(value)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": _json,
    "lower": lambda value: _text(value).lower(),
    "upper": lambda value: _text(value).upper(),
    "title": _title,
    "split": _split,
    "truncate": _truncate,
    "len": _length,
    "index": _index,
    "slice": _slice,
    "call": _call,
    "not": lambda value: not truth(value),
    "eq": _equal,
    "ne": lambda left, right: not _equal(left, right),
    "lt": _compare(lambda left, right: left < right),
    "le": _compare(lambda left, right: left <= right),
    "gt": _compare(lambda left, right: left > right),
    "ge": _compare(lambda left, right: left >= right),
}

# these may make far more text than they are given, and call `spend` before they do
_WRITERS: dict[str, Callable[..., Any]] = {
    "join": _join,
    "pad": _pad,
    "print": _print,
    "printf": _printf,
    "println": _println,
    "html": _html,
    "js": _js,
    "urlquery": _urlquery,
}

_OF_TITLES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("json", "lower", "upper", "title"), lambda value: value),
    **dict.fromkeys(("split", "join", "truncate"), lambda value, _: value),
}
