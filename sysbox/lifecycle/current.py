"""All containers and their status. Reading it changes nothing; lifecycle/repair.py repairs."""

from __future__ import annotations

from sysbox.base.errors import FormatError
from sysbox.container import health, store
from sysbox.container.records import Traffic
from sysbox.container.status import read_status
from sysbox.host import probe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sysbox.container.store import Record, Status, Usage
    from sysbox.spec import Mount


def all_containers(
    damaged: Callable[[FormatError], object] | None = None,
) -> Iterator[tuple[Record, Status]]:
    """Every container and its status, newest first; `damaged` is called with the error of each damaged one.

    One whose record cannot be read is left out, one with another damaged file is dead.
    """
    for record in store.all_records(damaged):
        try:
            status = status_of(record)
        except FormatError as error:
            if damaged:
                damaged(error)
            status = store.Status(state="dead", error=error.message)
        # a running container exists; another may have been removed meanwhile
        if status.pid or store.is_named(record):
            yield record, status


def usage_of(record: Record) -> Usage:
    """What the current run has used so far, else the last run. Raises FormatError."""
    running = store.runtime(record.id)
    if running is not None and running.started_ns and running.alive():
        from sysbox.units.cgroup.usage import read_usage

        return read_usage(running.cgroup, probe())
    ended = store.final(record.id)
    return ended.usage if ended else store.Usage()


def traffic_of(record: Record, *, counted: bool) -> Traffic:
    """What systemd has counted of the packets of the current run so far, else of the last run.

    `counted`: systemd counts those of the current run. Raises FormatError.
    """
    running = store.runtime(record.id)
    if running is not None and running.started_ns and running.alive():
        if not counted:
            return Traffic()
        from sysbox.run import traffic  # which few containers need

        return traffic.counted((running.scope,)).get(running.scope, Traffic())
    ended = store.final(record.id)
    return ended.traffic if ended else Traffic()


def status_of(record: Record) -> Status:
    """The status; "dead" if the run is over and its end is not recorded. Raises FormatError."""
    if record.spec.restart.name == "no":
        return read_status(record)
    from sysbox.run import restart  # few containers need it

    return restart.status(record)


def health_of(record: Record, status: Status) -> str:
    """starting, healthy, unhealthy, or "" without checks."""
    known = health.status(record) if status.pid else None
    return known.status if known else ""


def mount_name(record: Record, mount: Mount) -> str:
    """The host's path, or the name of the volume."""
    return mount.source or record.anonymous_volumes.get(mount.target, "")
