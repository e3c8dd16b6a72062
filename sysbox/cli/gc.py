"""`sysbox gc`: put right what a crash left behind."""

from __future__ import annotations

from sysbox import gc
from sysbox.cli.output import emit, line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.options import Values


def main(_: Values) -> int:
    """0, or 1 when something could not be put right; a line for each thing that was."""
    done, failed = gc.collect()
    for one in done:
        line(one)
    for one in failed:
        emit(f"sysbox: not put right: {one}\n", 2)
    return 1 if failed else 0
