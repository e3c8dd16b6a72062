"""Put a report into a file of several: `keep.py FILE < REPORT`.

A report begins with a line "# TITLE", which no other line of it does; it takes the place of the one with the
same first words before the colon, or goes to the end.
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
        sys.exit("bench: what was printed is no report")
    part = path.with_suffix(".new")
    part.write_text(merge(path.read_text() if path.exists() else "", report))
    part.rename(path)


if __name__ == "__main__":
    main()
