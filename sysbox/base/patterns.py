"""Shell patterns for paths, by the rules of Go's path.Match, which docker and podman use.

`*` and `?` match no slash, [a-z] and [^a-z] one character, a backslash makes the next one ordinary. `fnmatch`
has other rules, and imports `re`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# of a pattern: None is `*`; else (inverted, ranges of characters)
_Token = tuple[bool, tuple[tuple[str, str], ...]] | None
_ANY: _Token = (True, ())


def matches(pattern: str, path: str) -> bool:
    """Whether the whole path matches. Raises ValueError for a malformed pattern."""
    parts, names = pattern.split("/"), path.split("/")
    tokens = [tuple(_tokens(part)) for part in parts]
    return len(parts) == len(names) and all(map(_fits, tokens, names))


def check(pattern: str) -> None:
    """Raises ValueError, with the reason, for a malformed pattern."""
    for part in pattern.split("/"):
        for _ in _tokens(part):
            pass


def _tokens(part: str) -> Iterator[_Token]:
    letters = iter(part)
    for letter in letters:
        if letter == "*":
            yield None
        elif letter == "?":
            yield _ANY
        elif letter == "[":
            yield _class(letters)
        else:
            one = _escaped(letter, letters)
            yield False, ((one, one),)


def _class(letters: Iterator[str]) -> _Token:
    """The token of [...], whose first bracket is read."""
    letter = next(letters, "")
    inverted = letter == "^"
    if inverted:
        letter = next(letters, "")
    ranges: list[tuple[str, str]] = []
    while letter != "]" or not ranges:
        low = high = _end(letter, letters)
        letter = next(letters, "")
        if letter == "-":
            high = _end(next(letters, ""), letters)
            letter = next(letters, "")
        ranges.append((low, high))
    return inverted, tuple(ranges)


def _end(letter: str, letters: Iterator[str]) -> str:
    """The end of a range in [...]."""
    if letter in ("", "-", "]"):
        raise ValueError("a [ without its ], or with a - or ] in the wrong place")
    return _escaped(letter, letters)


def _escaped(letter: str, letters: Iterator[str]) -> str:
    found = next(letters, "") if letter == "\\" else letter
    if not found:
        raise ValueError("it ends in the middle")
    return found


def _fits(tokens: tuple[_Token, ...], name: str) -> bool:
    """Without recursion: only the last `*` that was met takes more characters when the rest does not fit."""
    at = taken = star = resume = 0
    while taken < len(name):
        token = tokens[at] if at < len(tokens) else (False, ())
        if token is None:
            at += 1
            star, resume = at, taken
        elif token[0] is not any(low <= name[taken] <= high for low, high in token[1]):
            at, taken = at + 1, taken + 1
        elif star:
            resume += 1
            at, taken = star, resume
        else:
            return False
    return all(token is None for token in tokens[at:])
