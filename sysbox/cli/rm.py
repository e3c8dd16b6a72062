"""`sysbox rm`: remove containers."""

from __future__ import annotations

from sysbox import lifecycle, state
from sysbox.cli.each import for_each
from sysbox.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.options import Values


def main(values: Values) -> int:
    """0, 1 if one of them could not be removed; with -f a missing one counts as removed."""
    names = values.container
    if values.force:
        names = [name for name in names if _there(name)]
    return for_each(
        names, lambda record: lifecycle.remove(record, force=values.force, volumes=values.volumes)
    )


def _there(name: str) -> bool:
    try:
        state.resolve(name)
    except NotFound:
        return False
    return True
