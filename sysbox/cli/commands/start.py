"""`sysbox start`: start created or stopped containers."""

from __future__ import annotations

from sysbox.base.errors import UsageError
from sysbox.cli import notices
from sysbox.cli.each import for_each
from sysbox.container import store
from sysbox.lifecycle import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values


def main(values: Values) -> int:
    """0, 1 if one of them did not start; attached, the payload's own status."""
    names = values.container
    if not (values.attach or values.interactive):
        return for_each(names, lambda record: run.start(record, attach=False, interactive=False))
    if len(names) > 1:
        raise UsageError(
            "only one container can be attached to", hint="start the others without -a and -i"
        )
    return run.start(
        store.find(names[0]), attach=True, interactive=values.interactive, notices=notices.Notices()
    )
