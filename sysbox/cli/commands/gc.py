"""`sysbox gc`: clean up after a crash."""

from __future__ import annotations

import posix

from sysbox.base.errors import Unsupported
from sysbox.cli.output import emit, line
from sysbox.lifecycle import gc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values


def main(_: Values) -> int:
    """0, or 1 if something could not be cleaned up; prints a line for each thing that was."""
    if posix.geteuid() != 0:
        raise Unsupported("only root can run gc", hint="run it with sudo")
    done, failed = gc.collect()
    for one in done:
        line(one)
    for one in failed:
        emit(f"sysbox: not cleaned up: {one}\n", 2)
    return 1 if failed else 0
