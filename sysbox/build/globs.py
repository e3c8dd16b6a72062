"""The patterns of ${NAME#PATTERN}, ${NAME%PATTERN} and ${NAME/PATTERN/TEXT}: * and ? match anything. Pure.

Brackets have no meaning (Dockerfile reference, "Environment replacement"). The time is linear in the value
for a pattern without `?`, and at most the value's length times the pattern's for others.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    # between two stars: characters, None for `?`
    Segment = tuple[str | None, ...]

MAX_PATTERN = 256  # characters


def without_prefix(value: str, pattern: str, escape: str, *, longest: bool) -> str:
    """The value without the shortest or the longest beginning that matches."""
    return value[_end(value, _segments(pattern, escape), longest=longest) :]


def without_suffix(value: str, pattern: str, escape: str, *, longest: bool) -> str:
    """The value without the shortest or the longest end that matches."""
    mirrored = [segment[::-1] for segment in _segments(pattern, escape)[::-1]]
    return value[: len(value) - _end(value[::-1], mirrored, longest=longest)]


def replaced(value: str, pattern: str, text: str, escape: str, *, every: bool, limit: int) -> str:
    """The value with its first match, or every match, replaced by a text; a match is the longest one.

    Raises ValueError for a result of more than about `limit` characters.
    """
    segments = _segments(pattern, escape)
    parts: list[str] = []
    at = 0
    while True:
        start, end = _match(value, segments, at)
        if end <= start:  # nothing, or the empty text
            break
        parts += [value[at:start], text]
        if len(parts) // 2 * len(text) > limit:
            raise ValueError(f"it expands to more than {limit} characters")
        at = end
        if not every:
            break
    return "".join([*parts, value[at:]])


def _segments(pattern: str, escape: str) -> list[Segment]:
    """What stands between the stars, at least one. Raises ValueError for a pattern that is too long."""
    if len(pattern) > MAX_PATTERN:
        raise ValueError(f"a pattern of more than {MAX_PATTERN} characters")
    segments: list[list[str | None]] = [[]]
    letters = iter(pattern)
    for letter in letters:
        if letter == "*":
            segments.append([])
        elif letter == "?":
            segments[-1].append(None)
        else:
            segments[-1].append(next(letters, letter) if letter == escape else letter)
    return [tuple(segment) for segment in segments]


def _end(value: str, segments: list[Segment], *, longest: bool) -> int:
    """Where the match that begins at 0 ends; 0 where there is none."""
    first, *others = segments
    if _find(value[: len(first)], first, 0) != 0:
        return 0
    return max(_rest(value, others, len(first), longest=longest), 0)


def _match(value: str, segments: list[Segment], at: int) -> tuple[int, int]:
    """(start, end) of the first match from `at` on, or (-1, -1).

    If what follows the first segment is not found after its first place, it is not found after a later one.
    """
    first, *others = segments
    start = _find(value, first, at)
    end = _rest(value, others, start + len(first), longest=True) if start >= 0 else -1
    return (start, end) if end >= 0 else (-1, -1)


def _rest(value: str, segments: list[Segment], at: int, *, longest: bool) -> int:
    """Where segments with a star before each end; -1 where they are not found."""
    for number, segment in enumerate(segments, 1):
        find = _rfind if longest and number == len(segments) else _find
        start = find(value, segment, at)
        if start < 0:
            return -1
        at = start + len(segment)
    return at


def _find(value: str, segment: Segment, at: int) -> int:
    """The first place of a segment, from `at` on; -1 where it is not found."""
    if None not in segment:
        return value.find("".join(filter(None, segment)), at)
    import re

    expression = "".join("." if one is None else re.escape(one) for one in segment)
    found = re.compile(expression, re.DOTALL).search(value, at)
    return found.start() if found else -1


def _rfind(value: str, segment: Segment, at: int) -> int:
    """The last place of a segment, from `at` on; -1 where it is not found."""
    mirrored = _find(value[at:][::-1], segment[::-1], 0)
    return len(value) - mirrored - len(segment) if mirrored >= 0 else -1
