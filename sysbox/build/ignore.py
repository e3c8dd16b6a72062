"""Which files of a context an ignore file leaves out: .containerignore, .dockerignore. Pure.

A line is a pattern by the rules of Go's filepath.Match; `**` stands for any number of directories, `!` takes
files back in, `#` begins a comment. A pattern says the same of all that is below what it matches, and the
last pattern that says something decides. The same patterns are those of COPY --exclude.
"""

from __future__ import annotations

import re

from sysbox.base import patterns
from sysbox.base.frozen import Frozen
from sysbox.build.errors import FileError, quoted
from sysbox.build.lexer import decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_PATTERNS = 10_000
_MAX_PATTERN = 4096  # characters: PATH_MAX
_DIRECTORIES = "(?:.*/)?"  # what `**/` stands for
# as a**b**c has them: with more, a regular expression takes too long for some names
_MAX_OPEN = 2


class Seen(Frozen):
    """What is known of one path: whether it is left out, and which patterns matched it or one above it."""

    excluded: bool = False
    matched: int = 0  # bit n: pattern n


class Ignore:
    """The patterns of one file. Paths are relative to the context's root, without a slash at their ends."""

    def __init__(self, lines: Iterable[tuple[int, str]], file: str) -> None:
        """`lines` are (number, pattern), without comments. Raises FileError."""
        self._takes_back: list[bool] = []
        self._compiled: list[re.Pattern[str]] = []
        self._back: list[tuple[str, ...]] = []
        for number, written in lines:
            pattern = _clean(written.removeprefix("!"))
            if not pattern:
                if written.startswith("!"):
                    raise FileError(
                        file, number, 1, f"{quoted(written)} has no pattern after the !"
                    )
                continue
            if len(self._compiled) == MAX_PATTERNS:
                raise FileError(file, number, 1, f"more than {MAX_PATTERNS} patterns")
            try:
                self._compiled.append(_compile(pattern))
            except ValueError as error:
                what = f"the pattern {quoted(written)} is malformed: {error}"
                raise FileError(file, number, 1, what) from None
            self._takes_back.append(written.startswith("!"))
            if written.startswith("!"):
                self._back.append(tuple(pattern.split("/")))

    def __bool__(self) -> bool:
        return bool(self._compiled)

    def look(self, path: str, above: Seen) -> Seen:
        """What the patterns say of a path; `above` is what they say of its directory (the root: Seen())."""
        matched = above.matched
        for index, pattern in enumerate(self._compiled):
            bit = 1 << index
            if not matched & bit and pattern.match(path):
                matched |= bit
        last = matched.bit_length() - 1
        return Seen(excluded=last >= 0 and not self._takes_back[last], matched=matched)

    def excluded(self, path: str) -> bool:
        """Whether a path is left out; slower than `look` for a whole tree."""
        seen, parts = Seen(), path.split("/")
        for count in range(1, len(parts) + 1):
            seen = self.look("/".join(parts[:count]), seen)
        return seen.excluded

    def may_hold_more(self, directory: str, seen: Seen) -> bool:
        """Whether something below a directory that is left out may not be: else nobody need look into it."""
        if not seen.excluded:
            return True
        parts = directory.split("/")
        return any(_reaches_below(pattern, parts) for pattern in self._back)


def parse(data: bytes, file: str) -> Ignore:
    """The patterns of an ignore file. Raises FileError."""
    lines = []
    for number, line in enumerate(decode(data, file), 1):
        if line.startswith("#"):
            continue
        written = line.strip()
        taken_back = written.startswith("!")
        pattern = written[1:].strip() if taken_back else written
        if pattern or taken_back:
            lines.append((number, f"!{pattern}" if taken_back else pattern))
    return Ignore(lines, file)


def exclude(excluded: Iterable[str], file: str, line: int) -> Ignore:
    """The patterns of COPY --exclude, which stands at a line of a Containerfile. Raises FileError."""
    return Ignore(((line, pattern) for pattern in excluded), file)


def _clean(pattern: str) -> str:
    """As Go's path.Clean, without a slash at the beginning; "" for the root itself."""
    kept: list[str] = []
    for part in pattern.split("/"):
        if part in ("", "."):
            continue
        if part == ".." and kept and kept[-1] != "..":
            kept.pop()
        else:
            kept.append(part)
    return "/".join(kept)


def _reaches_below(pattern: tuple[str, ...], directory: list[str]) -> bool:
    """Whether a pattern may match something below a directory."""
    for part, name in zip(pattern, directory, strict=False):
        if "**" in part:
            return True
        if not patterns.matches(part, name):
            return False
    # it ends above, or at the directory itself: then all below it is taken back too
    return True


def _compile(pattern: str) -> re.Pattern[str]:
    """The expression for a clean pattern. Raises ValueError with the reason."""
    if len(pattern) > _MAX_PATTERN:
        raise ValueError(f"more than {_MAX_PATTERN} characters")
    patterns.check(pattern)
    expression = _expression(pattern)
    if expression.count(_DIRECTORIES) > _MAX_OPEN:
        raise ValueError("too many ** that are no whole name of a directory")
    return re.compile(f"{expression}\\Z", re.DOTALL)


def _expression(pattern: str) -> str:
    """What a star takes at first may be too little only for the last one of a name, and for the last `/**/`.

    The others stand in atomic groups, so that the time is bounded.
    """
    parts: list[str] = []
    star = double = -1  # where in `parts` the last `*` of this name is, and the last `**`
    at = 0
    while at < len(pattern):
        letter = pattern[at]
        if pattern.startswith("**", at):
            while pattern.startswith("*", at):
                at += 1
            at += pattern.startswith("/", at)
            if double >= 0 and parts[-1] == "/":
                parts[double] = "(?>(?:.*?/)??"
                parts.append(")")
            star, double = -1, len(parts)
            parts.append(_DIRECTORIES if at < len(pattern) else ".*")
            continue
        if letter == "*":
            if star >= 0:
                parts[star] = "(?>[^/]*?"
                parts.append(")")
            star = len(parts)
            parts.append("[^/]*")
        elif letter == "?":
            parts.append("[^/]")
        elif letter == "[":
            end = _end_of_class(pattern, at)
            parts.append(_class(pattern[at + 1 : end]))
            at = end
        else:
            at += letter == "\\"
            star = -1 if pattern[at] == "/" else star
            parts.append(re.escape(pattern[at]))
        at += 1
    return "".join(parts)


def _end_of_class(pattern: str, at: int) -> int:
    """Where the bracket of [...] that begins at `at` closes; the pattern is checked."""
    at += 2 if pattern[at + 1] == "^" else 1
    first = True
    while first or pattern[at] != "]":
        at += 2 if pattern[at] == "\\" else 1
        first = False
    return at


def _class(inside: str) -> str:
    """The expression for what stands in [...]; none matches a slash."""
    inverted = inside.startswith("^")
    inside = inside.removeprefix("^")
    letters = []
    at = 0
    while at < len(inside):
        if inside[at] == "\\":
            at += 1
            letters.append(re.escape(inside[at]))
        else:
            letters.append("-" if inside[at] == "-" else re.escape(inside[at]))
        at += 1
    body = "".join(letters)
    return f"(?!/)[{'^' if inverted else ''}{body}]"
