"""Put a report into a file of several reports: `keep.py FILE < REPORT`.

A report begins with its only line "# TITLE". It replaces the report whose title is the same up to the colon,
or is appended.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path


def merge(kept: str, report: str) -> str:
    """The file's new text."""
    parts = [part for part in re.split(r"^(?=# )", kept, flags=re.MULTILINE) if part.strip()]
    new = report.strip("\n") + "\n"
    titles = [_title(part) for part in parts]
    if _title(new) in titles:
        parts[titles.index(_title(new))] = new
    else:
        parts.append(new)
    return "\n".join(part.strip("\n") + "\n" for part in parts)


def _title(part: str) -> str:
    return part.partition("\n")[0].partition(":")[0]


def main() -> None:
    path, report = Path(sys.argv[1]), sys.stdin.read()
    if not report.startswith("# "):
        sys.exit("bench: the output is not a report")
    part = path.with_suffix(".new")
    part.write_text(merge(path.read_text() if path.exists() else "", report))
    part.rename(path)


if __name__ == "__main__":
    main()
