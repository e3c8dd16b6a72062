"""`sysbox gc`: put right what a crash left behind."""

from __future__ import annotations

from sysbox import lifecycle
from sysbox.cli.output import line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.options import Values


def main(_: Values) -> int:
    """0; a line for each thing that was put right."""
    for done in lifecycle.gc():
        line(done)
    return 0
