"""The functions of the template language: Go's own and docker's."""

from __future__ import annotations

from sysbox.cli.jsontext import to_json
from sysbox.cli.template_values import go_string, truth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn


def call(name: str, arguments: list[Any], fail: Callable[[str], NoReturn]) -> Any:
    """The function's value; `fail` is called with the reason where there is none."""
    function = FUNCTIONS.get(name)
    if function is None:
        fail(f'function "{name}" not defined')
    try:
        return function(*arguments)
    except TypeError:
        fail(f"wrong number or type of args for {name}")
    except (IndexError, KeyError, ValueError) as error:
        fail(f"error calling {name}: {error}")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            # Go gives the zero value for a missing key; for docker's untyped maps that is nil
            value = value.get(key)
        elif isinstance(value, list | tuple | str):
            if type(key) is not int:
                raise TypeError
            if not 0 <= key < len(value):
                raise IndexError(f"index out of range: {key}")
            value = value[key]
        elif value is None:
            raise ValueError("index of untyped nil")
        else:
            raise TypeError
    return value


def _slice(value: Any, *ends: int) -> Any:
    start, end = (
        (*ends, 0, len(value))[:2] if not ends else (ends[0], ends[1] if ends[1:] else len(value))
    )
    if not 0 <= start <= end <= len(value):
        raise IndexError(f"index out of range: {end}")
    return value[start:end]


def _equal(first: Any, *others: Any) -> bool:
    if not others:
        raise TypeError
    return any(
        first == other and isinstance(first, bool) == isinstance(other, bool) for other in others
    )


def _compare(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compare(left: Any, right: Any) -> bool:
        if isinstance(left, str) != isinstance(right, str):
            raise ValueError("incompatible types for comparison")
        return test(left, right)

    return compare


def _printf(form: Any, *values: Any) -> str:
    """Go's verbs %s %v %d %q %t %x %f %c %%, with flags and width."""
    rest = _text(form)
    given = list(values)
    out = []
    while rest:
        before, percent, rest = rest.partition("%")
        out.append(before)
        if not percent:
            break
        flags = rest[: len(rest) - len(rest.lstrip("+-# 0123456789."))]
        verb = rest[len(flags) : len(flags) + 1]
        rest = rest[len(flags) + 1 :]
        if verb == "%":
            out.append("%")
        else:
            out.append(_verb(flags, verb, given.pop(0)) if given else f"%!{verb}(MISSING)")
    if given:
        out.append("%!(EXTRA " + ", ".join(go_string(one) for one in given) + ")")
    return "".join(out)


def _verb(flags: str, verb: str, value: Any) -> str:
    number = type(value) is int
    if (number and verb in "dxX") or (verb in "feg" and type(value) in (int, float)):
        return str(f"%{flags}{verb}" % value)
    if number and verb == "c":
        return chr(value)
    if verb == "x" and isinstance(value, str):
        return value.encode().hex()
    if verb == "q":
        return f"%{flags}s" % to_json(value if isinstance(value, str) else go_string(value))
    if verb in "svt":
        return f"%{flags}s" % go_string(value)
    return f"%!{verb}({go_string(value)})"


def _print(*values: Any) -> str:
    """Spaces between operands when neither is a string, as fmt.Sprint."""
    out = ""
    for index, value in enumerate(values):
        if index and not isinstance(value, str) and not isinstance(values[index - 1], str):
            out += " "
        out += go_string(value)
    return out


def _join(values: Any, separator: Any) -> str:
    between = _text(separator)
    return between.join(go_string(one) for one in values)


def _truncate(value: Any, length: int) -> str:
    text = _text(value)
    return text[:length]


def _pad(value: Any, before: int, after: int) -> str:
    text = _text(value)
    return " " * before + text + " " * after if text else ""


def _title(value: Any) -> str:
    return " ".join(word[:1].upper() + word[1:] for word in _text(value).split(" "))


def _json(value: Any) -> str:
    if isinstance(value, dict) and any(map(callable, value.values())):
        # a row of a listing: its methods are no data, and docker sorts its keys
        value = {key: value[key] for key in sorted(value) if not callable(value[key])}
    return to_json(value)


def _println(*values: Any) -> str:
    return " ".join(go_string(one) for one in values) + "\n"


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": _json,
    "join": _join,
    "lower": lambda value: _text(value).lower(),
    "upper": lambda value: _text(value).upper(),
    "title": _title,
    "split": lambda value, separator: _text(value).split(separator),
    "truncate": _truncate,
    "pad": _pad,
    "println": _println,
    "print": _print,
    "printf": _printf,
    "len": len,
    "index": _index,
    "slice": _slice,
    "not": lambda value: not truth(value),
    "eq": _equal,
    "ne": lambda left, right: not _equal(left, right),
    "lt": _compare(lambda left, right: left < right),
    "le": _compare(lambda left, right: left <= right),
    "gt": _compare(lambda left, right: left > right),
    "ge": _compare(lambda left, right: left >= right),
}
