"""Tables that fit the width of a terminal."""

from __future__ import annotations

import posix

from sysbox.base.visible import coloured

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

_DEFAULT = posix.terminal_size((80, 24))  # for a terminal that reports no size
_GAP = 2  # spaces between columns
_INDENT = 4


def size(fd: int = 1) -> posix.terminal_size:
    """Columns and lines of a terminal."""
    found = posix.get_terminal_size(fd)
    return found if found.columns and found.lines else _DEFAULT


def fitted(
    rows: Sequence[dict[str, Any]],
    columns: Sequence[tuple[str, str]],
    width: int,
    *,
    lead: int,
    titles: bool,
    colour: Callable[[dict[str, Any], str], str],
) -> str:
    """A table of `columns` (header, key) no wider than `width` characters: long cells are wrapped.

    Where wrapping would break words, only the first `lead` columns are aligned; the other cells, unless
    empty, follow on lines of their own, with their headers if `titles`. `colour(row, key)` is the colour of
    a cell, "" for none.
    """
    texts = [[header for header, _ in columns]]
    texts += [[row[key] for _, key in columns] for row in rows]
    widths = _widths(texts, width)
    if not widths:
        return _blocks(rows, columns, width, lead=lead, titles=titles, colour=colour)
    lines = _lines(texts[0], widths, [""] * len(columns))
    for row, cells in zip(rows, texts[1:], strict=True):
        lines += _lines(cells, widths, [colour(row, key) for _, key in columns])
    return "".join(f"{line}\n" for line in lines)


def _widths(texts: list[list[str]], width: int) -> list[int]:
    """The width of each column; [] where they do not fit without breaking words."""
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    least = [
        max(len(word) for cell in column for word in cell.split(" "))
        for column in zip(*texts, strict=True)
    ]
    while sum(widths) + _GAP * (len(widths) - 1) > width:
        most = max(range(len(widths)), key=lambda index: widths[index] - least[index])
        if widths[most] <= least[most]:
            return []
        widths[most] -= 1
    return widths


def _lines(cells: list[str], widths: list[int], colours: list[str]) -> list[str]:
    """One row of a table: as many lines as its longest cell needs."""
    wrapped = [wrap(cell, width) for cell, width in zip(cells, widths, strict=True)]
    made = []
    for number in range(max(map(len, wrapped))):
        line, blanks = "", 0
        for parts, width, colour in zip(wrapped, widths, colours, strict=True):
            part = parts[number] if number < len(parts) else ""
            if part:
                line += " " * blanks + coloured(part, colour)
                blanks = 0
            blanks += width - len(part) + _GAP
        made.append(line)
    return made


def _blocks(
    rows: Sequence[dict[str, Any]],
    columns: Sequence[tuple[str, str]],
    width: int,
    *,
    lead: int,
    titles: bool,
    colour: Callable[[dict[str, Any], str], str],
) -> str:
    widths = [max((len(row[key]) for row in rows), default=0) for _, key in columns[:lead]]
    lines: list[str] = []
    for row in rows:
        first = columns[:lead]
        lines += _lines(
            [row[key] for _, key in first], widths, [colour(row, key) for _, key in first]
        )
        used = sum(widths) + _GAP * lead
        for header, key in columns[lead:]:
            text = f"{header.lower()}: {row[key]}" if titles else row[key]
            if row[key] in ("", "-"):
                continue
            if not titles and used + len(text) <= width:
                taken = sum(widths[:-1]) + _GAP * lead + len(row[columns[lead - 1][1]])
                lines[-1] += " " * (used - taken) + coloured(text, colour(row, key))
            else:
                parts = wrap(text, max(width - _INDENT, 1))
                lines += [" " * _INDENT + coloured(part, colour(row, key)) for part in parts]
            used = width  # the next cell starts a new line
    return "".join(f"{line}\n" for line in lines)


def wrap(text: str, width: int) -> list[str]:
    """The text in lines of at most `width` characters, broken at spaces where possible."""
    made, line = [], ""
    for word in text.split(" "):
        if line and len(line) + 1 + len(word) <= width:
            line += f" {word}"
            continue
        if line:
            made.append(line)
        while len(word) > width:
            made.append(word[:width])
            word = word[width:]
        line = word
    return [*made, line]
