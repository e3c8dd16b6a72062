"""`sysbox gc`: put right what a crash left behind."""

from __future__ import annotations

from sysbox import gc
from sysbox.cli.output import line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.options import Values


def main(_: Values) -> int:
    """0; a line for each thing that was put right."""
    for done in gc.collect():
        line(done)
    return 0
