"""`sysbox restart`: stop containers and start them again."""

from __future__ import annotations

from sysbox.cli.commands.stop import seconds, signal
from sysbox.cli.each import for_each
from sysbox.lifecycle import control

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values


def main(values: Values) -> int:
    """0, 1 if one of them could not be restarted."""
    timeout, number = seconds(values), signal(values)
    return for_each(values.container, lambda record: control.restart(record, timeout, number))
