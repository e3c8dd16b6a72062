"""WWW-Authenticate: the challenges of a registry (RFC 9110, 11.6.1)."""

from __future__ import annotations

from sysbox.base.errors import FormatError
from sysbox.base.frozen import Frozen

_LONGEST = 16 << 10  # characters
_MOST = 16  # challenges
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


class Challenge(Frozen):
    """One scheme by which a server lets a client in."""

    scheme: str  # in lower case: "basic", "bearer"
    parameters: dict[str, str]  # names in lower case


def parse(headers: list[str], what: str) -> tuple[Challenge, ...]:
    """The challenges of all headers, in their order. Raises FormatError, which begins with `what`."""
    text = ", ".join(headers)
    if len(text) > _LONGEST:
        raise FormatError(f"{what}: a WWW-Authenticate longer than {_LONGEST} characters")
    reader = _Reader(text, what)
    found: list[Challenge] = []
    while not reader.at_end():
        if len(found) == _MOST:
            raise FormatError(f"{what}: more than {_MOST} challenges")
        found.append(reader.challenge())
    return tuple(found)


class _Reader:
    def __init__(self, text: str, what: str) -> None:
        self._text = text
        self._at = 0
        self._what = what

    def at_end(self) -> bool:
        self._skip(" \t,")
        return self._at == len(self._text)

    def challenge(self) -> Challenge:
        scheme = self._token()
        parameters: dict[str, str] = {}
        while True:
            self._skip(" \t,")
            start = self._at
            name = self._token() if self._here() in _TOKEN else ""
            self._skip(" \t")
            if not name or self._here() != "=":
                # a name alone is the next scheme
                self._at = start
                return Challenge(scheme=scheme.lower(), parameters=parameters)
            self._at += 1
            self._skip(" \t")
            if self._here() in (
                "=",
                ",",
                "",
            ):  # the padding of a token68, which no scheme of ours has
                self._skip("=")
                continue
            if name.lower() in parameters:
                raise self._wrong(f"the parameter {name} appears twice")
            parameters[name.lower()] = self._quoted() if self._here() == '"' else self._token()

    def _token(self) -> str:
        start = self._at
        while self._here() in _TOKEN:
            self._at += 1
        if start == self._at:
            raise self._wrong(f"malformed at character {start}")
        return self._text[start : self._at]

    def _quoted(self) -> str:
        self._at += 1
        found = ""
        while (character := self._here()) != '"':
            if character == "\\":
                self._at += 1
                character = self._here()
            if not character:
                raise self._wrong("a quoted string without an end")
            found += character
            self._at += 1
        self._at += 1
        return found

    def _here(self) -> str:
        return self._text[self._at : self._at + 1]

    def _skip(self, characters: str) -> None:
        while self._here() and self._here() in characters:
            self._at += 1

    def _wrong(self, why: str) -> FormatError:
        return FormatError(f"{self._what}: WWW-Authenticate: {why}")
