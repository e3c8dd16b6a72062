"""Start, read, change and stop a container's scope over D-Bus. systemd keeps the state.

A method's reply says only that a job is queued: the processes are in the scope once JobRemoved
says "done".
"""

from __future__ import annotations

import time

from sysbox.base import wait
from sysbox.base.errors import SystemdError
from sysbox.host import exists
from sysbox.units import names
from sysbox.units.bus import MANAGER, MANAGER_PATH, PROPERTIES, SYSTEMD, TIMEOUT, Bus, is_lost
from sysbox.units.limits.properties import Property
from sysbox.units.scopeplan import ScopePlan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

UNIT = f"{SYSTEMD}.Unit"
INTERFACES = {
    ".scope": f"{SYSTEMD}.Scope",
    ".service": f"{SYSTEMD}.Service",
    ".slice": f"{SYSTEMD}.Slice",
}

_EXISTS = f"{SYSTEMD}.UnitExists"
_GONE = (f"{SYSTEMD}.NoSuchUnit", "org.freedesktop.DBus.Error.UnknownObject")
ENDED = ("inactive", "failed")  # ActiveState of a unit that runs no more
_STEP = 0.004  # seconds
_NAME_IS_FREED = 2.0  # seconds
_NAME_IS_HELD = 0.2  # seconds: a name that is not free by then does not become free by itself
_POLL = 0.02  # seconds, only while PID 1 re-executes


class Pending:
    """A unit whose start was requested and not yet awaited."""

    def __init__(
        self,
        bus: Bus,
        unit: str,
        properties: list[tuple[str, tuple[str, Any]]],
        stuck: Callable[[], None] | None = None,
    ) -> None:
        """Request the start. Raises SystemdError.

        `stuck` is called from time to time while an earlier run's unit has the name (run/name_hold.py).
        """
        self.unit = unit
        self.jobs: tuple[str, ...] = ()  # the paths of the start jobs
        self._stuck = stuck
        self._next_call = 0.0
        self._bus = bus
        self._properties = properties
        self._is_scope = unit.endswith(".scope")
        self._job = ""
        self._done: Callable[[], None] | None = None
        self._serial = self._send()

    def _send(self) -> int:
        # a connection that was lost before this call delivered no request, so it may be sent again
        return self._bus.retry(lambda: self._bus.send(*_start(self.unit, self._properties)))

    def wait(self, timeout: float = TIMEOUT, done: Callable[[], None] | None = None) -> None:
        """Return when the unit is started, and a scope's processes are in it.

        `done` is called before, at the end of the job: the processes have been moved, and the unit has yet to
        be looked at. Raises SystemdError with systemd's reason, or with the `result` of the job.
        """
        self._done = done
        deadline = time.monotonic() + timeout
        until = time.monotonic() + _NAME_IS_FREED
        retried = False
        while True:
            try:
                return self._wait_once(deadline)
            except SystemdError as error:
                if error.result == "vanished" and not retried:
                    retried = True
                elif not self._may_be_freed(error, until):
                    raise
            self._serial = self._send()

    def _may_be_freed(self, error: SystemdError, until: float) -> bool:
        """Whether to ask again, since an earlier run's unit still has the name and may yet be unloaded.

        systemd unloads a failed unit once it is reset, and any other a moment after its end.
        """
        now = time.monotonic()
        if error.dbus_name != _EXISTS or now > until:
            return False
        self._next_call = self._next_call or now + _NAME_IS_HELD
        if self._stuck and now > self._next_call:
            # not for an active unit: it may be this one, from a request that only seemed lost
            if active_state(self._bus, self.unit) in ENDED:
                self._stuck()
            self._next_call = time.monotonic() + _NAME_IS_HELD
        reset_failed(self._bus, self.unit)
        time.sleep(_STEP)
        return True

    def _wait_once(self, deadline: float) -> None:
        try:
            self._await_job(deadline)
        except SystemdError as error:
            if not is_lost(error):
                error.unit = error.unit or self.unit
                raise
            self._wait_active(deadline)
        if self._done:
            self._done()
            self._done = None  # once, even if the unit vanishes and is started again
        if self._is_scope:
            active = active_state(self._bus, self.unit)
            if active == "deactivating":
                stopped = f"{self.unit}: its stop was requested during its start"
                raise SystemdError(stopped, unit=self.unit, result="stopped")
            if active not in ("active", "activating"):
                result = state(self._bus, self.unit)[2]
                # on v1 an early "cgroup is empty" notification can end a scope that has just started
                raise SystemdError(
                    f"{self.unit}: {active} right after its start ({result or 'no reason given'})",
                    unit=self.unit,
                    result="vanished",
                )

    def _await_job(self, deadline: float) -> None:
        try:
            if self._serial >= 0:
                (self._job,) = self._bus.reply(self._serial, deadline - time.monotonic())
                self._serial = -1
                self.jobs += (self._job,)
            if self._job:
                wait_job(self._bus, self.unit, self._job, "start", deadline - time.monotonic())
                self._job = ""
        except SystemdError:
            self._serial, self._job = -1, ""
            raise

    def wait_queued(self) -> None:
        """Return when the job is queued, without waiting for its result. Raises SystemdError."""
        until = time.monotonic() + _NAME_IS_FREED
        lost = False
        while True:
            try:
                self._bus.reply(self._serial)
            except SystemdError as error:
                lost = lost or is_lost(error)
                if lost and active_state(self._bus, self.unit) != "inactive":
                    # PID 1 had taken the request whose reply was lost; on another connection it may say at
                    # first that there is no such unit, and that it exists when it is asked again
                    return
                if not is_lost(error) and not self._may_be_freed(error, until):
                    raise
            else:
                return
            self._serial = self._send()

    def abandon(self) -> None:
        """Cancel a start that is no longer wanted: while its job is queued, there is no unit to stop.

        Not to be waited for: the job of a scope waits for that which stops its service, which may be this
        process. A start that was awaited already is fine.
        """
        try:
            if self._serial >= 0:
                (self._job,) = self._bus.reply(self._serial)
            if self._job:
                self._bus.call(self._job, f"{SYSTEMD}.Job", "Cancel")
        except SystemdError:
            pass  # ignoring: the job is done or has failed, or systemd is gone; no start is pending

    def _wait_active(self, deadline: float) -> None:
        """Poll the unit until it is started, after PID 1 re-executed and dropped the connection."""
        while True:
            try:
                self._bus.reconnect()
                active = active_state(self._bus, self.unit)
                if active in ("active", "failed"):
                    return
                if active == "inactive":
                    # PID 1 lost the request: had it taken it, the waiting process (of a scope) or
                    # RemainAfterExit= (of a service) would keep the unit active; asking twice is harmless
                    self._serial = self._send()
                    self._await_job(deadline)
            except SystemdError as error:
                come = is_lost(error) or error.dbus_name == _EXISTS
                if not come or time.monotonic() >= deadline:
                    raise
            if time.monotonic() >= deadline:
                raise SystemdError(f"{self.unit}: not started in time", unit=self.unit)
            time.sleep(_POLL)


def _start(
    unit: str, properties: list[tuple[str, tuple[str, Any]]]
) -> tuple[str, str, str, str, tuple[Any, ...]]:
    args = (unit, "fail", properties, ())
    return MANAGER_PATH, MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))", args


def begin(
    bus: Bus, plan: ScopePlan, pids: tuple[int, ...], stuck: Callable[[], None] | None = None
) -> Pending:
    """Request the scope around `pids`, to be awaited later: the child goes on meanwhile."""
    properties = [
        ("Description", ("s", plan.description)),
        ("Slice", ("s", plan.slice)),
        ("PIDs", ("au", list(pids))),
        *variants(plan.properties),
    ]
    pending = Pending(bus, plan.unit, properties, stuck)
    keeper = plan.keeper
    if keeper is not None and not exists(keeper.directory):
        # requested after the scope, which must not wait for it; not awaited: it only saves time later
        bus.send(*_start(keeper.unit, variants(keeper.properties)))
    return pending


def start_service(
    bus: Bus, unit: str, properties: tuple[Property, ...], stuck: Callable[[], None] | None = None
) -> Pending:
    """Request a transient service; ExecStart is an `a(sasb)`: path, argv, ignore failure."""
    return Pending(bus, unit, variants(properties), stuck)


def request_start(bus: Bus, unit: str) -> None:
    """Request the start of a unit that has a file, without waiting for it. Raises SystemdError."""

    def ask() -> None:
        bus.call(MANAGER_PATH, MANAGER, "StartUnit", "ss", (unit, "replace"))

    try:
        bus.retry(ask)
    except SystemdError as error:
        if error.dbus_name not in _GONE:
            raise
        # another unit named this one before its file existed, and systemd remembers it as not found
        reload(bus)
        bus.retry(ask)


def reload(bus: Bus) -> None:
    """Have systemd reload all unit files. Raises SystemdError."""
    bus.retry(lambda: bus.call(MANAGER_PATH, MANAGER, "Reload"))


def variants(properties: tuple[Property, ...]) -> list[tuple[str, tuple[str, Any]]]:
    """The argument a(sv) of systemd's methods."""
    return [(one.name, (one.signature, one.value)) for one in properties]


def wait_job(bus: Bus, unit: str, job: str, verb: str, timeout: float) -> None:
    """Wait for the end of a job. Raises SystemdError with its `result` unless that is done or skipped."""
    try:
        _, _, _, result = bus.wait_signal("JobRemoved", lambda args: args[1] == job, timeout)
    except SystemdError as error:
        if not is_lost(error):
            raise
        result = _await_without_signal(bus, unit, verb, timeout)
    if result not in ("done", "skipped"):
        raise SystemdError(f"{unit}: the {verb} job ended as '{result}'", unit=unit, result=result)


def _await_without_signal(bus: Bus, unit: str, verb: str, timeout: float) -> str:
    """The result of a job whose JobRemoved was lost, as when PID 1 re-executed; from the unit's state."""

    def ended() -> str:
        active, job = progress(bus, unit)
        if job:
            return ""
        return "done" if (active in ENDED) == (verb == "stop") else "failed"

    return wait.until(ended, timeout, _POLL) or "timeout"


def stop(bus: Bus, unit: str, timeout: float = TIMEOUT) -> None:
    """Stop the unit and wait for the job; a unit that does not exist is success.

    `timeout`, in seconds, must exceed the unit's own TimeoutStopUSec.
    """
    try:
        (job,) = bus.retry(
            lambda: bus.call(MANAGER_PATH, MANAGER, "StopUnit", "ss", (unit, "replace"))
        )
    except SystemdError as error:
        if error.dbus_name in _GONE:
            return
        raise
    wait_job(bus, unit, job, "stop", timeout)


def request_stop(bus: Bus, unit: str) -> None:
    """Request a stop without waiting for it; a unit that does not exist is success."""
    _unless_gone(bus, "StopUnit", "ss", (unit, "replace"))


def kill(bus: Bus, unit: str, signal: int) -> None:
    """Send a signal to every process of the unit; a unit that does not exist is success."""
    _unless_gone(bus, "KillUnit", "ssi", (unit, "all", signal))


def reset_failed(bus: Bus, unit: str) -> None:
    """Reset the unit's failed state, so that systemd unloads it; a unit that does not exist is success."""
    _unless_gone(bus, "ResetFailedUnit", "s", (unit,))


def _unless_gone(bus: Bus, member: str, signature: str, args: tuple[Any, ...]) -> None:
    try:
        bus.retry(lambda: bus.call(MANAGER_PATH, MANAGER, member, signature, args))
    except SystemdError as error:
        if error.dbus_name not in _GONE:
            raise


def properties(bus: Bus, unit: str, interface: str, names_: tuple[str, ...]) -> dict[str, Any]:
    """Properties of a unit by name, in one round trip; `interface` is UNIT or one of INTERFACES.

    A property that this systemd does not know is left out.
    """
    return bus.retry(lambda: _properties(bus, unit, interface, names_))


def _properties(bus: Bus, unit: str, interface: str, names_: tuple[str, ...]) -> dict[str, Any]:
    path = names.object_path(unit)
    serials = [bus.send(path, PROPERTIES, "Get", "ss", (interface, name)) for name in names_]
    found: dict[str, Any] = {}
    failed: SystemdError | None = None
    for name, serial in zip(names_, serials, strict=True):
        try:  # take every reply, so that a later call does not find a stale one
            (found[name],) = bus.reply(serial)
        except SystemdError as error:
            if error.dbus_name != "org.freedesktop.DBus.Error.UnknownProperty":
                failed = error
    if failed is not None:
        raise failed
    return found


def all_properties(bus: Bus, unit: str, interface: str) -> dict[str, Any]:
    """Every property of one interface of a unit."""
    path = names.object_path(unit)
    (found,) = bus.retry(lambda: bus.call(path, PROPERTIES, "GetAll", "s", (interface,)))
    return dict(found)


def set_properties(bus: Bus, unit: str, props: tuple[Property, ...]) -> None:
    """Change a loaded unit as `systemctl set-property --runtime`; systemd writes the cgroup files at once."""
    args = (unit, True, variants(props))
    bus.retry(lambda: bus.call(MANAGER_PATH, MANAGER, "SetUnitProperties", "sba(sv)", args))


def active_state(bus: Bus, unit: str) -> str:
    """ActiveState; "inactive" for a unit that does not exist."""
    return str(properties(bus, unit, UNIT, ("ActiveState",))["ActiveState"])


def progress(bus: Bus, unit: str) -> tuple[str, int]:
    """(ActiveState, the id of the unit's queued job, or 0)."""
    found = properties(bus, unit, UNIT, ("ActiveState", "Job"))
    return found["ActiveState"], found["Job"][0]


def state(bus: Bus, unit: str) -> tuple[str, str, str]:
    """(ActiveState, SubState, Result); a unit that does not exist is inactive, dead, "success"."""
    return bus.retry(lambda: _state(bus, unit))


def _state(bus: Bus, unit: str) -> tuple[str, str, str]:
    suffix = unit[unit.rfind(".") :]
    path = names.object_path(unit)
    asked = [(UNIT, "ActiveState"), (UNIT, "SubState")]
    if suffix in (".scope", ".service"):
        asked.append((INTERFACES[suffix], "Result"))
    serials = [bus.send(path, PROPERTIES, "Get", "ss", pair) for pair in asked]
    values = [bus.reply(serial)[0] for serial in serials]
    return values[0], values[1], values[2] if len(values) > 2 else ""


def await_inactive(
    bus: Bus, unit: str, timeout: float = TIMEOUT, *, unless: Callable[[], bool] = lambda: False
) -> bool:
    """Wait at most `timeout` seconds until a unit has ended, or `unless` is true; False on timeout."""
    return wait.until(lambda: active_state(bus, unit) in ENDED or unless(), timeout, _STEP)


def await_freed(bus: Bus, unit: str, timeout: float) -> bool:
    """Wait at most `timeout` seconds until systemd has unloaded an ended transient unit; False on timeout.

    Unloading takes some milliseconds, and does not happen while another loaded unit wants this one.
    """
    return wait.until(
        lambda: not properties(bus, unit, UNIT, ("Transient",))["Transient"], timeout, _STEP
    )
