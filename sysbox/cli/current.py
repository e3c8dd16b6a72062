"""The containers there are and how they stand, with what nobody recorded put right on the way."""

from __future__ import annotations

from sysbox import state
from sysbox.errors import FormatError, SysboxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sysbox.state import Record, Status


def all_containers() -> Iterator[tuple[Record, Status]]:
    """Every container, newest first. One that is damaged hides no other."""
    for record in state.all_records():
        try:
            status = status_of(record)
        except FormatError as error:
            status = state.Status(state="dead", error=error.message)
        if state.named(record):
            yield record, status


def status_of(record: Record) -> Status:
    """How it stands; the end of one whose supervisor was killed is recorded first."""
    status = state.status(record)
    if status.state != "dead":
        return status
    from sysbox import lifecycle

    try:
        lifecycle.settle_if_dead(record)
    except SysboxError:
        return status  # ignoring: `sysbox gc` says what is in the way
    return state.status(record)
