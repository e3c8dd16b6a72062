"""Find the known name nearest to a mistyped one, without `difflib`, which a hot verb must not import."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_LONGEST = 64  # characters, more than any name that is known; each comparison takes their product


def suggest(word: str, known: Iterable[str]) -> str:
    """A hint that names the nearest known name, or all of them where none is near."""
    names = sorted(known)
    near = nearest(word, names)
    return f"did you mean {near}?" if near else f"valid: {', '.join(names)}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint such as "did you mean 'SYS_ADMIN'?", or "" where no name is near."""
    near = nearest(word, known)
    return f"did you mean '{near}'?" if near else ""


def nearest(word: str, known: Iterable[str]) -> str:
    """The known name within one typing error per four letters, and one more; "" where there is none."""
    best, found = len(word) // 4 + 1, ""
    if len(word) > _LONGEST:
        return found
    for name in known:
        away = _distance(word.lower(), name.lower(), best)
        if away < best or (away == best and not found):
            best, found = away, name
    return found


def _distance(left: str, right: str, limit: int) -> int:
    """The Levenshtein distance; limit + 1 for anything over `limit`."""
    if abs(len(left) - len(right)) > limit:
        return limit + 1
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        previous, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (a != b))
    return min(row[-1], limit + 1)
