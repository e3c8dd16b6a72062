r"""Read and write the syntax of systemd's files (systemd.syntax(7)): sections, `Key=value`, words. Pure.

One parser serves unit files and drop-ins, of which systemd skips what it does not understand (`entries`), and
sysbox's own configuration, in which nothing is skipped (`read`). Callers decide what an assignment means:
that the last one counts, that an empty one resets a list, which drop-in comes first.
"""

from __future__ import annotations

from sysbox.base.errors import FormatError, SpecError
from sysbox.base.frozen import Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Section = tuple[str, Iterable[tuple[str, str]]]

# WHITESPACE of systemd's source; what str.strip takes beyond that is part of a value
SPACE = " \t\n\r"
_ENDS = "\n\r\0"
_COMMENT = ("#", ";")
_QUOTES = b"'\""
_SPACE = SPACE.encode()
# the letter of an escape -> the byte (table 1 of systemd.syntax(7))
_ESCAPES = dict(zip(b"abfnrtv\\\"'s", b"\a\b\f\n\r\t\v\\\"' ", strict=True))
# the letter of an escape by a number -> (its digits, their base); octal ones begin with a digit
_NUMBERS = {ord("x"): (2, 16), ord("u"): (4, 16), ord("U"): (8, 16)}
_DIGITS = frozenset(b"0123456789abcdefABCDEF")
_WRITTEN = {
    "\\": "\\\\", '"': '\\"', "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r",
    "\t": "\\t", "\v": "\\v",
}  # fmt: skip
MAX_ERRORS = 50  # of one file that are of use to its author
_SPECIFIERS = frozenset("aAbBCdDEfgGhHiIjJlLmMnNopPqsStTuUvVwWyY")  # of systemd.unit(5)
_VALID = "as in [Section] or Key=value; a comment begins with # or ;"


class Entry(Frozen):
    """One assignment, or with `read` the header of a section, which has no key."""

    section: str  # "" before the first header
    key: str
    value: str  # the text after the "=", continued lines joined; neither unquoted nor expanded
    line: int  # its first line, from 1
    last: int = 0  # its last line


def entries(text: str) -> Iterator[Entry]:
    """The assignments of a file as systemd reads them: lines that it ignores are left out.

    Ends at a section header without a "]", where systemd refuses the file.
    """
    for _, entry, problem in _parsed(text):
        if entry is not None and entry.key:
            yield entry
        elif problem == _NO_END:
            return


def read(text: str, where: str, wrong: list[FormatError] | None = None) -> list[Entry]:
    """The headers and assignments of sysbox's own file `where`: what systemd would skip is an error.

    Raises FormatError, which names file, line, reason and the valid form. With `wrong` errors are put there
    and their lines skipped, up to MAX_ERRORS: the rest of the file is not read then.
    """
    found = []
    for line, entry, problem in _parsed(text):
        if not problem and entry is not None:
            if entry.section:
                found.append(entry)
            else:
                problem = "stands before the first section"
        if problem:
            error = FormatError(f"{where}:{line}: the line {problem}", hint=_VALID)
            if wrong is None:
                raise error
            wrong.append(error)
            if len(wrong) == MAX_ERRORS:
                break
    return found


def decode(data: bytes) -> str:
    """The text of a file; bytes that are no UTF-8 become surrogates, which `read` refuses."""
    return data.decode("utf-8", "surrogateescape")


_NO_END = "begins with '[' and does not end in ']'"


def _parsed(text: str) -> Iterator[tuple[int, Entry | None, str]]:
    """(line, header or assignment, what is wrong with it) of each line but empty ones and comments."""
    section = ""
    for first, last, line in _joined(_lines(text)):
        if not _is_utf8(line):
            yield first, None, "is not UTF-8"
            continue
        if line[0] == "[":
            name = line[1:-1]
            if len(line) < 2 or line[-1] != "]":
                yield first, None, _NO_END
            elif not name.strip(SPACE) or not name.isprintable():
                yield first, None, "names no section"
            else:
                section = name
                yield first, Entry(section=name, key="", value="", line=first, last=last), ""
            continue
        key, equals, value = line.partition("=")
        key = key.strip(SPACE)
        if not equals or not key:
            yield first, None, "has no key before its '='" if equals else "has no '='"
            continue
        value = value.strip(SPACE)
        yield first, Entry(section=section, key=key, value=value, line=first, last=last), ""


def _joined(lines: list[str]) -> Iterator[tuple[int, int, str]]:
    """(first line, last line, text) of each logical line: one that ends in a backslash continues in the next
    line, past comments; an empty line ends it.
    """
    parts: list[str] = []
    first = 0
    for number, line in enumerate((*lines, ""), 1):
        piece = line.rstrip(_ENDS).removeprefix("\ufeff" if number == 1 else "").lstrip(SPACE)
        if piece.startswith(_COMMENT):
            continue
        first = first if parts else number
        if _goes_on(piece):
            parts.append(piece[:-1] + " ")
            continue
        whole = ("".join(parts) + piece).strip(SPACE)
        parts.clear()
        if whole:
            yield first, min(number, len(lines)), whole


def _goes_on(line: str) -> bool:
    """Whether the line ends in a backslash that is not itself escaped."""
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def _lines(text: str) -> list[str]:
    """Physical lines with their ends: LF, CR LF, CR or NUL, as in read_line() of systemd's source."""
    lines = _cut(text, "\n")
    if "\0" in text:
        lines = [part for line in lines for part in _cut(line, "\0")]
    if "\r" not in text:
        return lines
    found = []
    for line in lines:
        end = "\r\n" if line.endswith("\r\n") else ""
        parts = _cut(line.removesuffix(end), "\r") or [""]
        found += [*parts[:-1], parts[-1] + end] if parts[-1][-1:] != "\r" else [*parts, end or ""]
    return [line for line in found if line]


def _cut(text: str, end: str) -> list[str]:
    *whole, rest = text.split(end)
    return [line + end for line in whole] + ([rest] if rest else [])


def rewrite(text: str, change: Callable[[Entry], str | None]) -> str:
    """The text with some assignments replaced, all else unchanged.

    `change` returns the whole lines that replace an assignment ("" removes it), None to keep it.
    """
    lines = _lines(text)
    made: list[str] = []
    at = 0
    for _, entry, _ in _parsed(text):
        new = change(entry) if entry is not None and entry.key else None
        if entry is not None and new is not None:
            made += [*lines[at : entry.line - 1], new]
            at = entry.last
    return "".join([*made, *lines[at:]])


def dump(sections: Iterable[Section], comment: str = "") -> str:
    """A file: a comment of one line, and sections with an empty line between them.

    Raises SpecError for what would be read back differently: see `assignment`.
    """
    parts = [
        "".join((f"[{_name(name)}]\n", *(assignment(key, value) for key, value in pairs)))
        for name, pairs in sections
    ]
    head = f"# {' '.join(comment.replace(chr(0), ' ').split())}\n" if comment else ""
    return head + "\n".join(parts)


def _name(section: str) -> str:
    if not section.strip(SPACE) or not section.isprintable():
        raise SpecError(f"[{section}]: not the name of a section", hint="printable characters")
    return section


def assignment(key: str, value: str) -> str:
    """The line `key=value`, with its end.

    Raises SpecError if that would be read back differently: `quote` writes any text as a word.
    """
    if not is_assignment(key, value):
        raise SpecError(
            f"{key or '(no key)'}=: {value!r} cannot be written as it is",
            hint="one line of UTF-8 without spaces around it, not ending in a backslash",
        )
    return f"{key}={value}\n"


def is_assignment(key: str, value: str) -> bool:
    """Whether the line `key=value` is read back as it is."""
    line = f"{key}={value}"
    wrong = (
        not key
        or key != key.strip(SPACE)
        or value != value.strip(SPACE)
        or "=" in key
        or key.startswith(("[", "\ufeff", *_COMMENT))
        or any(end in line for end in _ENDS)
        or _goes_on(line)
    )
    return not wrong and _is_utf8(line)


def escape_specifiers(text: str) -> str:
    """A text in which systemd expands no specifier (systemd.unit(5), "%%")."""
    return text.replace("%", "%%")


def unknown_specifier(text: str) -> str:
    """The first "%" with a letter or digit that is no specifier of any systemd, "" where there is none."""
    after = False
    for char in text:
        if after and char.isascii() and char.isalnum() and char not in _SPECIFIERS:
            return f"%{char}"
        after = char == "%" and not after
    return ""


def unescape_specifiers(text: str) -> str:
    """The inverse of `escape_specifiers`; other specifiers stay as they are."""
    return text.replace("%%", "%")


def quote(word: str) -> str:
    """One word of a list or a command line, in double quotes; its specifiers are not escaped.

    Raises SpecError for a NUL, which no word can have.
    """
    if "\0" in word:
        raise SpecError(f"{word!r}: a word cannot have a NUL in it")
    made = []
    for char in word:
        if char in _WRITTEN:
            made.append(_WRITTEN[char])
        elif "\udc80" <= char <= "\udcff":
            made.append(f"\\x{ord(char) - 0xDC00:02x}")  # a byte that is no UTF-8
        elif "\ud800" <= char <= "\udfff":
            raise SpecError(f"{word!r}: a word cannot have half a character in it")
        else:
            made.append(char)
    return f'"{"".join(made)}"'


def split(value: str, where: str) -> list[str]:
    """The words of a value, unquoted; `where` is the file, line and key that an error names.

    As extract_first_word() of systemd's source, which also accepts a quote inside a word. Raises FormatError
    for a quote without its end and for an escape that systemd.syntax(7) does not have.
    """
    data = value.encode("utf-8", "surrogatepass" if not _is_bytes(value) else "surrogateescape")
    words: list[str] = []
    word: bytearray | None = None  # None between two words
    quoted, at = 0, 0
    while at < len(data):
        byte = data[at]
        at += 1
        if byte == ord("\\"):
            piece, at = _escape(data, at, where)
            word = (word or bytearray()) + piece
        elif quoted and byte == quoted:
            quoted = 0
        elif not quoted and byte in _QUOTES:
            quoted = byte
            word = word if word is not None else bytearray()
        elif not quoted and byte in _SPACE:
            words += [decode(bytes(word))] if word is not None else []
            word = None
        else:
            word = word if word is not None else bytearray()
            word.append(byte)
    if quoted:
        raise FormatError(
            f"{where}: a quote {chr(quoted)} has no end", hint="write it as \\" + chr(quoted)
        )
    return words + ([decode(bytes(word))] if word is not None else [])


def _escape(data: bytes, at: int, where: str) -> tuple[bytes, int]:
    """The bytes of the escape whose backslash is before `at`, and the index after it. Raises FormatError."""
    letter = data[at] if at < len(data) else 0
    if letter in _ESCAPES:
        return bytes((_ESCAPES[letter],)), at + 1
    count, base = _NUMBERS.get(letter, (3, 8))
    start = at + (letter in _NUMBERS)
    digits = data[start : start + count]
    number = int(digits, base) if _are_digits(digits, count, base) else 0
    most = 0xFF if count < 4 else 0x10FFFF
    if not 0 < number <= most or (count >= 4 and 0xD800 <= number < 0xE000):
        raise FormatError(
            f"{where}: \\{decode(data[at : at + 1])} begins no escape that stands for a character",
            hint="see systemd.syntax(7), Quoting; a backslash itself is \\\\",
        )
    made = chr(number).encode() if count >= 4 else bytes((number,))
    return made, start + count


def _are_digits(digits: bytes, count: int, base: int) -> bool:
    allowed = _DIGITS if base == 16 else b"01234567"
    return len(digits) == count and all(one in allowed for one in digits)


def _is_utf8(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def _is_bytes(text: str) -> bool:
    """Whether all surrogates in the text, if any, stand for bytes."""
    return not any("\ud800" <= char < "\udc80" or "\udcff" < char <= "\udfff" for char in text)
