"""Go's text/template: from text to the tokens of its actions. Without `re`, so that `inspect -f` stays hot.

The grammar is that of Go's documentation: package text/template, and "Lexical elements" of the language.
"""

from __future__ import annotations

from sysbox.base.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    Token = tuple[str, object]  # kind: string, number, field, variable, word, symbol, space

SPACE = " \t\r\n"
_ESCAPES = dict(zip("abfnrtv\\\"'", "\a\b\f\n\r\t\v\\\"'", strict=True))
_HEX = frozenset("0123456789abcdefABCDEF")
_OCTAL = frozenset("01234567")
_DIGITS = {"x": 2, "u": 4, "U": 8}
_LEAST, _MOST = -(1 << 63), (1 << 64) - 1  # of int64 and uint64
_LONGEST_NUMBER = 100


def fail(reason: str) -> NoReturn:
    """Raise docker's error for a template that cannot be understood."""
    raise UsageError(f"template parsing error: template: {reason}", status=64)


def split(text: str) -> list[tuple[bool, str]]:
    """(is an action, content) in order; trim markers applied, comments dropped."""
    pieces: list[tuple[bool, str]] = []
    at, trim = 0, False
    while True:
        opened = text.find("{{", at)
        before = text[at : opened if opened >= 0 else len(text)]
        if trim:
            before = before.lstrip(SPACE)
        if opened < 0:
            pieces.append((False, before))
            break
        at = opened + 2
        if text[at : at + 1] == "-" and text[at + 1 : at + 2] in tuple(SPACE):
            before = before.rstrip(SPACE)
            at += 2
        pieces.append((False, before))
        end = _comment_end(text, at) if text.startswith("/*", at) else _action_end(text, at)
        trim = text[end - 1] == "-" and end - 2 >= at and text[end - 2] in SPACE
        if not text.startswith("/*", at):
            pieces.append((True, text[at : end - 1 if trim else end].strip(SPACE)))
        at = end + 2
    return [piece for piece in pieces if piece[0] or piece[1]]


def _comment_end(text: str, at: int) -> int:
    end = text.find("*/", at + 2)
    if end < 0:
        fail("unclosed comment")
    end += 2
    if text.startswith("}}", end):
        return end
    if text[end : end + 1] in tuple(SPACE) and text.startswith("-}}", end + 1):
        return end + 2
    fail("comment ends before closing delimiter")


def _action_end(text: str, at: int) -> int:
    """Where the closing braces are; strings are skipped."""
    while at < len(text):
        if text.startswith("}}", at):
            return at
        if text[at] in "\"'`":
            at = string_end(text, at)
        at += 1
    fail("unclosed action")


def string_end(text: str, at: int) -> int:
    """The index of the quote that closes the string beginning at `at`. Raises UsageError."""
    quote = text[at]
    end = at + 1
    while end < len(text) and text[end] != quote:
        if text[end] == "\n" and quote != "`":
            break
        end += 2 if text[end] == "\\" and quote != "`" else 1
    if end >= len(text) or text[end] != quote:
        kind = {"'": "character constant", "`": "raw quoted string"}.get(quote, "quoted string")
        fail(f"unterminated {kind}")
    return end


def tokens(action: str) -> list[Token]:
    """The tokens of an action; a field that follows without a space is part of its operand."""
    found: list[Token] = []
    at = 0
    while at < len(action):
        start = at
        character = action[at]
        if character in SPACE:
            while at < len(action) and action[at] in SPACE:
                at += 1
            found.append(("space", " "))
        elif character in "\"'`":
            at = string_end(action, at) + 1
            found.append(_string(action[start:at]))
        elif character in "()|,=" or action.startswith(":=", at):
            at += 2 if character == ":" else 1
            found.append(("symbol", action[start:at]))
        else:
            at = _word_end(action, at)
            found.append(_word(action[start:at]))
    return found


def _word_end(action: str, at: int) -> int:
    start = at
    number = _starts_number(action, at)
    at += 1
    while at < len(action):
        letter = action[at]
        exponent = letter in "+-" and action[at - 1] in "eEpP"
        if not (is_letter(letter) or (number and (letter == "." or exponent))):
            break
        at += 1
    if (
        not number
        and at == start + 1
        and action[start] not in ".$"
        and not is_letter(action[start])
    ):
        fail(f"unexpected {quote(action[start])} in command")
    return at


def _starts_number(action: str, at: int) -> bool:
    """A digit, a sign, or a dot with a digit behind it."""
    first, second = action[at], action[at + 1 : at + 2]
    return _is_digit(first) or first in "+-" or (first == "." and _is_digit(second))


def _is_digit(text: str) -> bool:
    return text.isascii() and text.isdigit()


def is_letter(letter: str) -> bool:
    """Whether a character may be in a name."""
    return letter == "_" or letter.isalnum()


def quote(text: str) -> str:
    """A word of the template in an error message, short and in Go's quotes."""
    return '"' + (text if len(text) <= 40 else text[:37] + "...") + '"'


def _word(text: str) -> Token:
    if _starts_number(text, 0):
        return ("number", number_of(text))
    if text[0] == ".":
        return ("field", text[1:])
    return ("variable", text) if text[0] == "$" else ("word", text)


def number_of(text: str) -> int | float:
    """A number as Go writes them: 12, 0x1F, 0o17, 1_000, 1.5e3. Raises UsageError."""
    plain = text.lower()
    whole = plain.lstrip("+-")
    hexadecimal = whole.startswith("0x")
    real = "." in whole or ("p" if hexadecimal else "e") in whole
    try:
        if len(text) > _LONGEST_NUMBER or not text.isascii():
            raise ValueError
        if real:
            value = float.fromhex(plain) if hexadecimal else float(plain)
            if value - value != 0:  # infinite, or NaN
                raise ValueError
            return value
        octal = whole[:1] == "0" and whole[1:].isdigit()  # Go's old spelling: 017
        number = int(plain, 8 if octal else 0)
    except (ValueError, OverflowError):
        fail(f"bad number syntax: {quote(text)}")
    if not _LEAST <= number <= _MOST:
        fail(f"integer overflow: {quote(text)}")
    return number


def _string(text: str) -> Token:
    body = text[1:-1]
    if text[0] == "`":
        return ("string", body)
    if "\\" in body or text[0] == "'":
        letters = _unquoted(body, text[0])
        if text[0] == "'":
            if len(letters) != 1:
                fail(f"malformed character constant: {text[:40]}")
            return ("number", ord(letters))
        body = letters
    return ("string", body)


def _unquoted(body: str, quote_mark: str) -> str:
    """The text of a quoted string; its \\x and octal escapes are bytes, as in Go."""
    out = bytearray()
    at = 0
    while at < len(body):
        letter = body[at]
        at += 1
        if letter != "\\":
            out += letter.encode("utf-8", "surrogateescape")
            continue
        kind = body[at : at + 1]
        size = 3 if kind in _OCTAL else _DIGITS.get(kind, 0)
        start = at + (kind in _DIGITS)
        digits = body[start : start + size]
        allowed = _OCTAL if kind in _OCTAL else _HEX
        if size and (len(digits) != size or not allowed.issuperset(digits)):
            fail(f"invalid syntax in a string: \\{body[at : at + 1 + size]}")
        if size:
            out += _escaped(int(digits, 8 if allowed is _OCTAL else 16), kind)
            at = start + size
        elif kind in _ESCAPES and (kind not in "\"'" or kind == quote_mark):
            out += _ESCAPES[kind].encode()
            at += 1
        else:
            fail(f"invalid syntax in a string: \\{kind}")
    if quote_mark == "'" and len(out) == 1:
        return chr(out[0])  # '\xff' is the number 255
    return out.decode("utf-8", "surrogateescape")


def _escaped(number: int, kind: str) -> bytes:
    if kind not in "uU":
        if number > 0xFF:
            fail(f"invalid syntax in a string: \\{number:o} is more than a byte")
        return bytes((number,))
    if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
        fail(f"invalid syntax in a string: {number:#x} is no character")
    return chr(number).encode()
