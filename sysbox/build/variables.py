"""Replace variables in one word or text: $NAME, ${NAME}, ${NAME:-…} and the other forms. Pure.

The rules are those of the Dockerfile reference, "Environment replacement". The escape character makes the
next character ordinary; quotes are removed, and within single ones nothing is replaced. A variable that is
not set is empty.
"""

from __future__ import annotations

from sysbox.build import globs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_EXPANDED = 4 << 20  # characters
_MAX_DEPTH = 40  # ${a:-${b:-…}}
# the shell's special parameters, which are never set here
_SPECIAL = "@*#?-$!"


class ExpansionError(ValueError):
    """What is wrong with a word, and where in it."""

    def __init__(self, offset: int, what: str) -> None:
        super().__init__(what)
        self.offset = offset


def expand(text: str, values: Mapping[str, str], escape: str, *, quotes: bool = True) -> str:
    """The text with the variables' values; `quotes` false leaves quotes alone. Raises ExpansionError."""
    if "$" not in text and escape not in text and not (quotes and ("'" in text or '"' in text)):
        return text
    return _Expander(text, values, escape, quotes=quotes).all()


def check(text: str, escape: str, *, quotes: bool = True) -> frozenset[str]:
    """The names of all variables in a text. Raises ExpansionError where `expand` would for any values."""
    if "$" not in text and not (quotes and ("'" in text or '"' in text)):
        return frozenset()
    expander = _Expander(text, {}, escape, quotes=quotes)
    expander.checks = True
    expander.all()
    return frozenset(expander.names)


class _Expander:
    """Reads a text from its beginning to its end."""

    def __init__(self, text: str, values: Mapping[str, str], escape: str, *, quotes: bool) -> None:
        self.text = text
        self.values = values
        self.escape = escape
        self.checks = False  # nothing but the syntax counts
        self.names: set[str] = set()
        self.at = 0
        self.depth = 0
        self.size = 0  # characters that were put out, each time that they were
        self.raw = False  # within a pattern: escape characters stay
        self.quotes = "'\"" if quotes else ""
        self.special = f"${escape}{self.quotes}"

    def all(self) -> str:
        return self.until("")

    def until(self, stop: str) -> str:
        """What comes before the character `stop`, which is read too; "" is the end."""
        begin = self.at
        parts: list[str] = []
        while self.at < len(self.text):
            letter = self.text[self.at]
            if letter == stop:
                self.at += 1
                return "".join(parts)
            if letter == "$":
                part = self.dollar()
            elif letter in self.quotes:
                part = self.single() if letter == "'" else self.double()
            elif letter == self.escape:
                part = self.escaped()
            else:
                part = self.plain(stop)
            parts.append(self.counted(part))
        if stop:
            raise ExpansionError(begin, f"a '{stop}' is missing in ${{…}}")
        return "".join(parts)

    def counted(self, part: str) -> str:
        self.size += len(part)
        if self.size > MAX_EXPANDED:
            raise ExpansionError(self.at, f"it expands to more than {MAX_EXPANDED} characters")
        return part

    def plain(self, stop: str) -> str:
        """Characters up to the next one with a meaning."""
        begin, special = self.at, self.special + stop
        while self.at < len(self.text) and self.text[self.at] not in special:
            self.at += 1
        return self.text[begin : self.at]

    def escaped(self) -> str:
        """The escape character and the next one; at the end it is dropped."""
        pair = self.text[self.at : self.at + 2]
        self.at += 2
        return pair if self.raw else pair[1:]

    def single(self) -> str:
        end = self.text.find("'", self.at + 1)
        if end < 0:
            raise ExpansionError(self.at, "a ' that is not closed")
        part = self.text[self.at + 1 : end]
        self.at = end + 1
        return part

    def double(self) -> str:
        begin = self.at
        self.at += 1
        parts: list[str] = []
        while self.at < len(self.text):
            letter = self.text[self.at]
            if letter == '"':
                self.at += 1
                return "".join(parts)
            if letter == "$":
                parts.append(self.counted(self.dollar()))
            elif letter != self.escape:
                parts.append(self.plain('"'))
                if not parts[-1]:  # a single quote
                    parts.append(letter)
                    self.at += 1
            elif self.text[self.at + 1 : self.at + 2] in ('"', "$", self.escape):
                parts.append(self.escaped())
            else:
                parts.append(letter)
                self.at += 1
        raise ExpansionError(begin, 'a " that is not closed')

    def dollar(self) -> str:
        begin = self.at
        self.at += 1
        if self.text[self.at : self.at + 1] != "{":
            name = self.name()
            return self.value(name) or "" if name else "$"
        self.at += 1
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise ExpansionError(begin, "${…} is nested too deeply")
        raw, self.raw = self.raw, False
        found = self.braces(begin)
        self.raw = raw
        self.depth -= 1
        return found

    def name(self) -> str:
        """A name at this place, a number, or one special character; "" where there is none."""
        begin = self.at
        letter = self.text[begin : begin + 1]
        if letter and letter in _SPECIAL:
            self.at += 1
            return letter
        digits = letter.isdigit()
        while self.at < len(self.text):
            letter = self.text[self.at]
            if not (letter.isdigit() if digits else letter.isalnum() or letter == "_"):
                break
            self.at += 1
        return self.text[begin : self.at]

    def value(self, name: str) -> str | None:
        self.names.add(name)
        return self.values.get(name)

    def braces(self, begin: int) -> str:
        """${NAME…}, whose brace is read."""
        name = "" if self.text[self.at : self.at + 1] in ("{", "}", ":") else self.name()
        kind = self.text[self.at : self.at + 1]
        if not kind:
            raise ExpansionError(begin, "a '}' is missing in ${…}")
        if not name:
            raise ExpansionError(begin, "${…} needs the name of a variable")
        self.at += 1
        value = self.value(name)
        if kind == "}":
            return value or ""
        if kind == "/":
            return self.replace(value or "")
        colon = kind == ":"
        if colon:
            kind = self.text[self.at : self.at + 1]
            self.at += 1
        if kind and kind in "-+?":
            return self.default(name, None if colon and not value else value, kind, begin)
        if kind and kind in "#%" and not colon:
            return self.trim(value or "", kind, begin)
        raise ExpansionError(begin, f"'{':' if colon else ''}{kind}' has no meaning in ${{…}}")

    def default(self, name: str, value: str | None, kind: str, begin: int) -> str:
        """${NAME-WORD}, ${NAME+WORD}, ${NAME?WORD}; the value is None where it counts as not set."""
        word = self.until("}")
        if kind == "-":
            return word if value is None else value
        if kind == "+":
            return "" if value is None else word
        if value is None and not self.checks:
            raise ExpansionError(begin, f"{name}: {word or 'must be set'}")
        return value or ""

    def pattern(self, stop: str) -> str:
        self.raw = True
        found = self.until(stop)
        self.raw = False
        return found

    def trim(self, value: str, kind: str, begin: int) -> str:
        """${NAME#PATTERN}, ${NAME##PATTERN} and the same with %."""
        longest = self.text[self.at : self.at + 1] == kind
        self.at += longest
        pattern = self.pattern("}")
        cut = globs.without_prefix if kind == "#" else globs.without_suffix
        try:
            return cut(value, pattern, self.escape, longest=longest)
        except ValueError as error:
            raise ExpansionError(begin, str(error)) from None

    def replace(self, value: str) -> str:
        """${NAME/PATTERN/TEXT}, ${NAME//PATTERN/TEXT}."""
        begin = self.at
        every = self.text[self.at : self.at + 1] == "/"
        self.at += every
        pattern = self.pattern("/")
        text = self.until("}")
        try:
            return globs.replaced(
                value, pattern, text, self.escape, every=every, limit=MAX_EXPANDED
            )
        except ValueError as error:
            raise ExpansionError(begin, str(error)) from None
