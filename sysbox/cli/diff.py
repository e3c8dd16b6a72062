"""`sysbox diff`: what a container has added, changed and deleted."""

from __future__ import annotations

from sysbox import layering, state
from sysbox.cli.output import emit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.options import Values


def main(values: Values) -> int:
    """0; a line for each change, as docker has them."""
    record = state.find(values.container)
    emit("".join(f"{one.kind} {one.path}\n" for one in layering.changes_of(record)))
    return 0
