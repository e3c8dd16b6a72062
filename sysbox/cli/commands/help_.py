"""`sysbox help`: what a verb does, and its usage."""

from __future__ import annotations

from sysbox.base import program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values


def main(values: Values) -> int:
    """0; 1 for an unknown verb."""
    program.load_site()
    from sysbox.cli.parse import cold

    return cold.main([*values.word, "--help"])
