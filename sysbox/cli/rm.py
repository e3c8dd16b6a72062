"""`sysbox rm`: remove containers."""

from __future__ import annotations

from sysbox import ending, lifecycle, state
from sysbox.cli.each import for_each
from sysbox.cli.output import line
from sysbox.errors import FormatError, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.options import Values


def main(values: Values) -> int:
    """0, 1 if one of them could not be removed; with -f a missing one counts as removed."""
    names = values.container
    if values.force:
        names = [name for name in names if _there(name) and not _was_damaged(name)]
    return for_each(
        names, lambda record: lifecycle.remove(record, force=values.force, volumes=values.volumes)
    )


def _there(name: str) -> bool:
    try:
        state.resolve(name)
    except NotFound:
        return False
    return True


def _was_damaged(name: str) -> bool:
    """Remove a container whose record cannot be read."""
    container_id = state.resolve(name)
    try:
        state.load(container_id)
    except FormatError:
        with state.Lock(container_id, create=True):
            ending.remove_damaged(container_id)
        line(name)
        return True
    except NotFound:
        pass  # ignoring: it is being removed; or it never was, which is said later
    return False
