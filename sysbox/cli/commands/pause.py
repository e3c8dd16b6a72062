"""`sysbox pause`: freeze all processes of containers."""

from __future__ import annotations

from sysbox.cli.each import for_each
from sysbox.lifecycle import control

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values


def main(values: Values) -> int:
    """0, 1 if one of them could not be paused."""
    return for_each(values.container, control.pause)
