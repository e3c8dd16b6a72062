"""`sysbox diff`: what a container has added, changed and deleted."""

from __future__ import annotations

import posix

from sysbox.base.visible import printable
from sysbox.cli.output import emit
from sysbox.container import store
from sysbox.content import layer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values


def main(values: Values) -> int:
    """0; prints a line for each change, as docker does."""
    changes = layer.changes_of(store.find(values.container))
    # a newline in a name must not make a line of its own
    shown = printable if posix.isatty(1) else str
    emit("".join(f"{one.kind} {shown(one.path)}\n" for one in changes))
    return 0
