"""`sysbox container exists`: whether there is a container, as `podman container exists` has it."""

from __future__ import annotations

from sysbox.base.errors import NotFound
from sysbox.container import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values

_MISSING = 1


def main(values: Values) -> int:
    """0 where there is a container of this name or id, running or not, else 1. Raises Conflict."""
    try:
        store.find(values.container)
    except NotFound:
        return _MISSING
    return 0
