"""In the background: have systemd start a service that supervises the container (see supervising.py)."""

from __future__ import annotations

import posix
import time

from sysbox import codec, restarting, scope
from sysbox.errors import SysboxError, SystemdError
from sysbox.files import make_private, read_file, unlink, write_file
from sysbox.paths import RUN
from sysbox.units import names, serviceplan
from sysbox.units.bus import Bus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.records import Record

_STALE = 60  # seconds after which nobody comes to read a report
_REPORTS = f"{RUN}/reports"  # <id>: why a supervising service could not start its container


def start_detached(record: Record, *, new: bool = False) -> None:
    """Start it under a service of its own; a `new` one has never had a unit.

    Raises SysboxError with what the service reported.
    """
    unit = names.service_unit(record.id)
    path = f"{_REPORTS}/{record.id}"
    unlink(path)
    bus = Bus.connect()
    try:
        if not new:
            _make_way(bus, record)
        if restarting.has_policy(record):
            restarting.started(record)
            scope.start_unit(bus, unit)
        else:
            scope.start_service(bus, unit, serviceplan.transient(restarting.plan_of(record))).wait()
    except SystemdError as error:
        scope.await_inactive(bus, unit)
        data = read_file(path)
        unlink(path)
        if data is None:
            raise SysboxError(
                f"{error.message}", hint=f"`journalctl -u {unit}` may tell why"
            ) from None
        values = codec.loads(data, path)
        raise SysboxError(values["message"], hint=values["hint"], status=values["status"]) from None
    finally:
        bus.close()


def _make_way(bus: Bus, record: Record) -> None:
    unit = names.service_unit(record.id)
    # that of an earlier run may still be recording its end
    scope.await_inactive(bus, unit)
    # a scope that failed stays loaded, and would for as long as the new service names it
    scope.reset_failed(bus, names.scope_unit(record.id))
    scope.reset_failed(bus, unit)


def forget_reports(known: Callable[[str], bool]) -> None:
    """Remove the reports of services whose callers did not live to read them, or to remove the container."""
    try:
        left = posix.listdir(_REPORTS)
    except FileNotFoundError:
        return
    for name in left:
        path = f"{_REPORTS}/{name}"
        try:
            stale = not known(name) or time.time() - posix.stat(path).st_mtime > _STALE
        except FileNotFoundError:
            continue
        if stale:
            unlink(path)


def report(container_id: str, error: SysboxError) -> None:
    """Leave word for whoever waits for the service: a job's result is only a word."""
    make_private(_REPORTS)
    values = {"message": error.message, "hint": error.hint, "status": error.status}
    write_file(f"{_REPORTS}/{container_id}", codec.dumps(values))
