"""Go's fmt.Printf over plain JSON values: the function `printf` of templates.

Source: Go's documentation of package fmt, "Printing", "Explicit argument indexes", "Format errors".
"""

from __future__ import annotations

from sysbox.base.frozen import Frozen
from sysbox.docker.template_values import go_float, go_string, plain, type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_WIDEST = 1_000_000  # Go takes no more for a width or a precision
_BASES = {"b": "b", "o": "o", "O": "o", "x": "x", "X": "X"}


class _Verb(Frozen):
    """One verb with its flags, width and precision (-1: none)."""

    letter: str
    flags: str
    width: int = -1
    precision: int = -1


class _Form:
    """A format being expanded: the position in it, and the index of the next value."""

    def __init__(self, form: str, values: tuple[Any, ...]) -> None:
        self.form = form
        self.at = 0
        self.values = values
        self.next = 0
        self.reordered = self.bad_index = False

    def number(self) -> int:
        """The number at the position; -1 without digits, more than _WIDEST with too many."""
        start = self.at
        while self.form[self.at : self.at + 1].isdigit() and self.form[self.at].isascii():
            self.at += 1
        text = self.form[start : self.at]
        return int(text) if text and len(text) <= 9 else -1 if not text else _WIDEST + 1

    def index(self) -> None:
        """An explicit index: `[3]` makes the third value the next one."""
        if self.form[self.at : self.at + 1] != "[":
            return
        self.reordered = True
        end = self.form.find("]", self.at)
        text = self.form[self.at + 1 : end] if end > 0 else ""
        self.at = end + 1 if end > 0 else self.at + 1
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0
        if 1 <= number <= len(self.values):
            self.next = number - 1
        else:
            self.bad_index = True

    def amount(self) -> tuple[int, bool]:
        """(width or precision, whether it is valid): digits, or `*` and a value."""
        if self.form[self.at : self.at + 1] != "*":
            found = self.number()
            return found, found <= _WIDEST
        self.at += 1
        value = self.values[self.next] if self.next < len(self.values) else None
        self.next += 1
        good = type(value) is int and -_WIDEST <= value <= _WIDEST
        return (value if isinstance(value, int) and good else -1), good


def printf(spend: Callable[[int], None], form: str, *values: Any) -> str:
    """The text; `spend` is called with numbers of characters, and may raise to stop it."""
    state = _Form(form, values)
    out: list[str] = []
    while state.at < len(form):
        percent = form.find("%", state.at)
        if percent < 0:
            out.append(form[state.at :])
            break
        out.append(form[state.at : percent])
        state.at = percent + 1
        piece = _one(state, spend)
        spend(len(piece))
        out.append(piece)
    if not state.reordered and state.next < len(values):
        extra = [_wrong(one) for one in values[state.next :]]
        spend(sum(map(len, extra)))
        out.append(f"%!(EXTRA {', '.join(extra)})")
    return "".join(out)


def _one(state: _Form, spend: Callable[[int], None]) -> str:
    """The text for the verb that begins at the position."""
    form = state.form
    start = state.at
    state.bad_index = False
    while form[state.at : state.at + 1] in ("+", "-", "#", " ", "0"):
        state.at += 1
    flags = form[start : state.at]
    complaint = ""
    state.index()
    width, good = state.amount()
    if not good:
        width, complaint = -1, "%!(BADWIDTH)"
    elif width < -1:
        width, flags = -width, flags + "-"
    precision = -1
    if form[state.at : state.at + 1] == ".":
        state.at += 1
        state.index()
        precision, good = state.amount()
        if not good:
            precision, complaint = -1, complaint + "%!(BADPREC)"
        elif precision < 0:
            precision = 0
    state.index()
    letter = form[state.at : state.at + 1]
    state.at += 1
    if not letter:
        return complaint + "%!(NOVERB)"
    if letter == "%":
        return complaint + "%"
    if state.bad_index:
        return f"{complaint}%!{letter}(BADINDEX)"
    if state.next >= len(state.values):
        return f"{complaint}%!{letter}(MISSING)"
    value = state.values[state.next]
    state.next += 1
    verb = _Verb(letter=letter, flags=flags, width=width, precision=precision)
    return complaint + _value(verb, value, spend)


def _value(verb: _Verb, value: Any, spend: Callable[[int], None]) -> str:
    """One value by one verb; of a list or map each element by itself, as in Go."""
    value = plain(value)
    spend(max(verb.width, verb.precision, 0))
    if verb.letter == "T":
        return _padded(verb, "<nil>" if value is None else type_name(value))
    if isinstance(value, list | tuple):
        return "[" + " ".join(_value(verb, one, spend) for one in value) + "]"
    if isinstance(value, dict):
        pairs = (
            f"{_value(verb, key, spend)}:{_value(verb, value[key], spend)}"
            for key in sorted(value)
            if not callable(value[key])
        )
        return "map[" + " ".join(pairs) + "]"
    if verb.letter == "v" and value is None:
        return _padded(verb, "<nil>")
    text = _scalar(verb, value)
    return f"%!{verb.letter}({_wrong(value)})" if text is None else text


def _scalar(verb: _Verb, value: Any) -> str | None:
    """A value other than a list or map by one verb; None where the verb is not for its type."""
    letter = verb.letter
    if isinstance(value, bool):
        return _padded(verb, go_string(value)) if letter in "tv" else None
    if isinstance(value, int):
        return _integer(verb, value)
    if isinstance(value, float):
        return _float(verb, value) if letter in "veEfFgG" else None
    return _string(verb, value) if isinstance(value, str) and letter in "svqxX" else None


def _wrong(value: Any) -> str:
    """A value in Go's format errors: TYPE=VALUE."""
    return "<nil>" if value is None else f"{type_name(value)}={go_string(value)}"


def _padded(verb: _Verb, text: str) -> str:
    return text.ljust(verb.width) if "-" in verb.flags else text.rjust(verb.width)


def _integer(verb: _Verb, value: int) -> str | None:
    letter = verb.letter
    if letter == "c":
        return _padded(verb, _character(value))
    if letter == "q":
        return _padded(verb, "'" + quoted(_character(value), verb.flags, "'")[1:-1] + "'")
    if letter == "U":
        return _padded(verb, f"U+{value:04X}" if value >= 0 else f"U+{value & (1 << 64) - 1:04X}")
    if letter in "vd":
        digits = str(abs(value))
    elif letter in _BASES:
        digits = format(abs(value), _BASES[letter])
    else:
        return None
    if verb.precision >= 0:
        digits = "" if verb.precision == value == 0 else digits.zfill(verb.precision)
    prefix = {"O": "0o"}.get(letter, "")
    if "#" in verb.flags:
        prefix = {"b": "0b", "o": "0", "x": "0x", "X": "0X"}.get(letter, prefix)
    return _signed(verb, value < 0, prefix, digits)


def _signed(verb: _Verb, negative: bool, prefix: str, digits: str) -> str:  # noqa: FBT001
    sign = "-" if negative else "+" if "+" in verb.flags else " " if " " in verb.flags else ""
    if "0" in verb.flags and "-" not in verb.flags and verb.precision < 0:
        digits = digits.zfill(verb.width - len(sign))
    return _padded(verb, sign + prefix + digits)


def _character(value: int) -> str:
    """The character with this code; U+FFFD if there is none, as in Go."""
    return chr(value) if 0 <= value < 0xD800 or 0xDFFF < value <= 0x10FFFF else "\ufffd"


def _float(verb: _Verb, value: float) -> str:
    size = abs(value)
    if value - value != 0:
        return _padded(verb, go_float(value))
    if verb.letter in "vgG" and verb.precision < 0:
        text = go_float(size)
        text = text.upper() if verb.letter == "G" else text
    else:
        letter = "g" if verb.letter == "v" else verb.letter
        precision = 6 if verb.precision < 0 else verb.precision
        text = format(size, f".{precision}{letter}")
    return _signed(verb.replace(precision=-1), value < 0 or repr(value) == "-0.0", "", text)


def _string(verb: _Verb, value: str) -> str:
    text = value if verb.precision < 0 or verb.letter in "xX" else value[: verb.precision]
    if verb.letter == "q":
        return _padded(verb, quoted(text, verb.flags))
    if verb.letter in "sv":
        return _padded(verb, quoted(text, "") if "#" in verb.flags and verb.letter == "v" else text)
    data = value.encode("utf-8", "surrogateescape")
    data = data if verb.precision < 0 else data[: verb.precision]
    text = data.hex(" ") if " " in verb.flags and data else data.hex()
    if "#" in verb.flags and text:
        text = "0x" + text.replace(" ", " 0x")
    return _padded(verb, text.upper() if verb.letter == "X" else text)


_NAMED = dict(
    zip("\a\b\f\n\r\t\v\\", ("\\a", "\\b", "\\f", "\\n", "\\r", "\\t", "\\v", "\\\\"), strict=True)
)


def quoted(text: str, flags: str, mark: str = '"') -> str:
    """A Go string literal; with the flag + in ASCII, with # in backquotes where that is possible."""
    if "#" in flags and "`" not in text and all(c.isprintable() or c == "\t" for c in text):
        return f"`{text}`"
    out = []
    for character in text:
        code = ord(character)
        if character == mark:
            out.append("\\" + mark)
        elif character in _NAMED:
            out.append(_NAMED[character])
        elif character.isprintable() and (code < 0x7F or "+" not in flags):
            out.append(character)
        elif 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8
            out.append(f"\\x{code - 0xDC00:02x}")
        elif code < 0x80:
            out.append(f"\\x{code:02x}")
        else:
            out.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return mark + "".join(out) + mark
