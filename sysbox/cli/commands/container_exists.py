"""`sysbox container exists`: whether there is a container, as `podman container exists` has it."""

from __future__ import annotations

from sysbox.cli.each import exists
from sysbox.container import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values


def main(values: Values) -> int:
    """0 where there is a container of this name or id, running or not, else 1. Raises Conflict."""
    return exists(store.find, values.container)
