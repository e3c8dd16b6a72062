"""The nearest known name to a mistyped one, without `difflib`, which a hot verb must not import."""

from __future__ import annotations


def did_you_mean(word: str, known: tuple[str, ...]) -> str:
    """A hint such as "did you mean 'SYS_ADMIN'?", or "" where nothing is near enough."""
    best, nearest = len(word) // 4 + 1, ""
    for name in known:
        away = distance(word.lower(), name.lower(), best)
        if away < best or (away == best and not nearest):
            best, nearest = away, name
    return f"did you mean '{nearest}'?" if nearest else ""


def distance(left: str, right: str, limit: int) -> int:
    """The Levenshtein distance; anything over `limit` comes back as limit + 1."""
    if abs(len(left) - len(right)) > limit:
        return limit + 1
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        previous, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (a != b))
    return min(row[-1], limit + 1)
