"""The step of a verb that shows containers: an end that nobody recorded is recorded, then shown.

Which those are comes from the reading itself. A look of its own beforehand would double what `ps` reads, and
a container that ends between the two looks would be shown as dead.
"""

from __future__ import annotations

from sysbox.base.errors import SysboxError
from sysbox.container.names import owns_name
from sysbox.lifecycle import current

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sysbox.container.store import Record, Status


def all_repaired() -> Iterator[tuple[Record, Status]]:
    """Every container and how it stands, newest first; one that cannot be repaired hides no other."""
    for record, status in current.all_containers():
        repaired = _repaired(record, status)
        # one with --rm is removed with its end
        if repaired is status or owns_name(record):
            yield record, repaired


def repaired(record: Record) -> Status:
    """How one container stands, its end recorded. Raises FormatError."""
    return _repaired(record, current.status_of(record))


def _repaired(record: Record, status: Status) -> Status:
    """How it stands once its end is recorded: its supervisor was killed, or its service is about to do it."""
    if status.state != "dead" or status.error:
        return status
    from sysbox.lifecycle import control  # which most have no need of

    try:
        control.settle_if_dead(record)
        return current.status_of(record)
    except (SysboxError, OSError):
        return status  # ignoring: `sysbox gc` says what is in the way
