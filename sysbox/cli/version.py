"""`sysbox version`."""

from __future__ import annotations

import sys

from sysbox import program
from sysbox.cli.output import line, print_inspect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.options import Values


def main(values: Values) -> int:
    """0."""
    python = ".".join(map(str, sys.version_info[:3]))
    if values.format:
        print_inspect([{"Version": program.VERSION, "Python": python}], values.format)
    else:
        line(f"sysbox {program.VERSION} (Python {python})")
    return 0
