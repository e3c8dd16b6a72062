"""Record ends that no supervisor has recorded, and runs that were lost, before a verb shows the containers.

The status that was read for showing decides which containers those are. Reading it separately beforehand
would double what `ps` reads, and a container that ends in between would be shown as dead.
"""

from __future__ import annotations

from sysbox.base.errors import SysboxError
from sysbox.container import store
from sysbox.container.status import has_scope
from sysbox.lifecycle import current

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sysbox.base.errors import FormatError
    from sysbox.container.store import Record, Status


def all_repaired(
    damaged: Callable[[FormatError], object] | None = None,
) -> Iterator[tuple[Record, Status]]:
    """Every container and its status, newest first; one that cannot be repaired does not hide the others.

    `damaged` is called with the error of each damaged one.
    """
    for record, status in current.all_containers(damaged):
        repaired = _repaired(record, status)
        # a --rm container is removed once its end is recorded
        if repaired is status or store.is_named(record):
            yield record, repaired


def repaired(record: Record) -> Status:
    """The status of one container, once its end is recorded. Raises FormatError."""
    return _repaired(record, current.status_of(record))


def _repaired(record: Record, status: Status) -> Status:
    """The status once the end is recorded: its supervisor was killed, or its service is about to do so.

    Of a run that was lost, once it is recorded again; of one that has left its files, once they are gone.
    """
    unrecorded = status.left or (status.state == "dead" and not status.error)
    if not unrecorded and (status.pid or not has_scope(record)):
        return status
    from sysbox.lifecycle import control  # few calls need it

    try:
        control.settle_if_dead(record)
        return current.status_of(record)
    except (SysboxError, OSError):
        return status  # ignoring: `sysbox gc` says what is in the way
