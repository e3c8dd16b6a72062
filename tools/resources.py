#!/usr/bin/env python3
"""The table of docs/resources.md, made from the code's own table of limits.

tools/resources.py            write it into the document
tools/resources.py --check    check that the document has it; status 1 if not
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "resources.md"
BEGIN = "<!-- from here to the end mark: made by `make docs` from sysbox/units/limits/table.py -->"
END = "<!-- end -->"

if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from sysbox.units.limits.table import TABLE, Resource, Setting  # noqa: E402 (the path comes first)

COLUMNS = ("flag", "v1: property", "v1: file", "v2: property", "v2: file", "live", "`inspect`")


def lines() -> list[str]:
    """The table and its notes, in Markdown."""
    notes: dict[str, int] = {}
    rows = [_row(one, notes) for one in TABLE]
    made = [_line(COLUMNS), _line(["---"] * len(COLUMNS)), *map(_line, rows), ""]
    return [*made, *(f"{number}. {note}" for note, number in notes.items())]


def _row(one: Resource, notes: dict[str, int]) -> list[str]:
    return [
        f"`{one.flag}`",
        *_cells(one.v1, notes, on_v1=True),
        *_cells(one.v2, notes, on_v1=False),
        "yes" if one.live else "no",
        one.inspect,
    ]


def _cells(setting: Setting, notes: dict[str, int], *, on_v1: bool) -> list[str]:
    """(property, file); the first has the number of its note."""
    mark = f" [{notes.setdefault(setting.note, len(notes) + 1)}]" if setting.note else ""
    if not setting.available:
        return [f"no{mark}", ""]
    file = setting.file.replace("{size}", "SIZE")
    file = f"{setting.controller}/{file}" if file and on_v1 else file
    how = "*written*" if setting.written else setting.property
    return [how + mark, file]


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def with_table(text: str) -> str:
    """A document with the table between its marks."""
    before, found, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise SystemExit(f"{DOCUMENT}: the marks are gone: {BEGIN} … {END}")
    return "\n".join([before + BEGIN, *lines(), END]) + after


def main(words: list[str]) -> int:
    text = DOCUMENT.read_text(encoding="utf-8")
    wanted = with_table(text)
    if words == ["--check"]:
        if text != wanted:
            print(f"{DOCUMENT} differs from the table of limits: run `make docs`", file=sys.stderr)
        return int(text != wanted)
    DOCUMENT.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
