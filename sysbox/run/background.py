"""Start a container in the background: systemd runs a service that supervises it (see run/service.py)."""

from __future__ import annotations

import _socket
import select

from sysbox import scope
from sysbox.base import codec
from sysbox.base.errors import Gone, SysboxError
from sysbox.base.files import make_private, unlink
from sysbox.container import store
from sysbox.host import probe
from sysbox.linux import unix
from sysbox.run import reports
from sysbox.units import names, ownslice, serviceplan, unit_file
from sysbox.units.bus import Bus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from sysbox.container.records import Record

# seconds after which systemd is asked whether the service still runs; the last is repeated
_LOOK = (0.2, 0.5, 1.0)


def start_detached(record: Record, *, new: bool = False) -> None:
    """Start it under a service of its own; a `new` container has never had a unit.

    Raises SysboxError with what the service reported.
    """
    unit = unit_file.service_of(record)

    def forget() -> None:
        from sysbox.run import name_hold  # an earlier run's unit is seldom left

        name_hold.forget_service(bus, unit)

    ownslice.ensure(probe())
    with Bus.connect() as bus:
        if not new:
            # before there is a socket: what runs after the end of an earlier run answers too
            _free_names(bus, record)
        with _Report(record.id) as report:
            if unit_file.has_policy(record):
                from sysbox.run import restart  # few containers have one

                restart.mark_started(record)
                if not new:
                    restart.reread(bus, record)
                scope.request_start(bus, unit)
                restart.hasten(record)
            else:
                plan = serviceplan.transient(unit_file.plan_of(record))
                scope.start_service(bus, unit, plan, forget).wait_queued()
            # systemd sends each client every change of every unit
            bus.close()
            report.wait(record)


class _Report:
    """The socket at which the supervisor answers this process, which has asked for the start."""

    def __init__(self, container_id: str) -> None:
        make_private(reports.DIRECTORY)
        self._path = reports.path_of(container_id)
        unlink(self._path)
        self._socket = unix.bind(self._path, _socket.SOCK_DGRAM)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        unlink(self._path)
        self._socket.close()

    def wait(self, record: Record) -> None:
        """Return once the command runs. Raises SysboxError if the start failed and the service has ended."""
        unit = unit_file.service_of(record)
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        looks = iter(_LOOK)
        seconds = next(looks)
        while not poll.poll(seconds * 1000):
            with Bus.connect() as bus:
                active, job = scope.progress(bus, unit)
                if active == "active":
                    return  # the answer was lost
                if active in scope.ENDED and not job and not poll.poll(0):
                    raise SysboxError(
                        f"{unit} {_ending(bus, unit)}", hint=f"`journalctl -u {unit}` may tell why"
                    )
            seconds = next(looks, seconds)
        data = self._socket.recv(1 << 17)
        if not data:
            return
        values = codec.loads(data, self._path)
        with Bus.connect() as bus:
            # another command may have it start once more, or systemd, where `_supervise` did not begin
            scope.await_inactive(
                bus,
                unit,
                unless=lambda: (
                    _begins_by_itself(record)
                    or scope.state(bus, unit)[1].startswith("auto-restart")
                ),
            )
        if "gone" in values:
            raise Gone(values["gone"])
        raise SysboxError(values["message"], hint=values["hint"], status=values["status"])


def _ending(bus: Bus, unit: str) -> str:
    """How a service has ended that has said nothing; a clause."""
    loaded = scope.properties(bus, unit, scope.UNIT, ("LoadState",))["LoadState"] == "loaded"
    result = scope.state(bus, unit)[2] if loaded else ""
    # of a unit that it has unloaded systemd says "success", however that has ended
    return f"has ended ({result})" if result else "has ended, without a word"


def _free_names(bus: Bus, record: Record) -> None:
    unit = unit_file.service_of(record)
    # the service of an earlier run may still be recording the end
    scope.await_inactive(bus, unit, unless=lambda: _begins_by_itself(record))
    if unit_file.has_policy(record) and not record.spec.unit:
        from sysbox.run import restart

        restart.free_service_name(bus, record)
    # a failed scope stays loaded for as long as a service names it, as the new one does
    scope.reset_failed(bus, names.scope_unit(record.id))
    scope.reset_failed(bus, unit)


def _begins_by_itself(record: Record) -> bool:
    """Whether a service with a policy has started it again meanwhile, or waits before it does."""
    runtime = store.runtime(record.id) if unit_file.has_policy(record) else None
    return runtime is not None and (runtime.restarting or runtime.alive())


def forget_reports(known: Callable[[str], bool]) -> None:
    """Remove report sockets whose waiting client has died, and those of containers that are gone."""
    for container_id, path in reports.sockets():
        if not known(container_id) or unix.unheard(path):
            unlink(path)
