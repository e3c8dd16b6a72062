"""`sysbox kill`: send a signal to containers' first processes."""

from __future__ import annotations

from sysbox.cli.each import for_each, named
from sysbox.lifecycle import control
from sysbox.parse.time import parse_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values


def main(values: Values) -> int:
    """0, 1 if one of them could not be signalled."""
    signal = parse_signal(values.signal or "KILL", "--signal")
    return for_each(named(values), lambda record: control.kill(record, signal))
