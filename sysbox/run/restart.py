"""Restart policies: systemd applies them, by a unit file (units/unit_file.py).

`always` and `unless-stopped` differ at boot only: with the latter, systemd does not start a container that
its user has stopped.
"""

from __future__ import annotations

import _signal
import posix
import time

from sysbox import scope
from sysbox.base.errors import Conflict, FormatError, KernelError, SystemdError
from sysbox.base.look import exists
from sysbox.container import store, systemd_mode
from sysbox.container.locks import Lock
from sysbox.container.status import read_status
from sysbox.linux import process
from sysbox.run import backoff, name_hold
from sysbox.units import names, serviceplan, unit_file
from sysbox.units.bus import MANAGER_PATH, PROPERTIES, SYSTEMD, Bus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.container.records import Record, Runtime, Status

_STEP = 0.02
_BRIEFLY = 0.5
_RECENTLY = 120.0  # seconds: longer than a restart waits, in systemd and in `_supervise`


def needs_stopper(record: Record) -> bool:
    """Whether its service does not name its scope, so that a third unit has to stop the two in order."""
    return unit_file.has_policy(record) or name_hold.has_stopper(record.id)


def free_service_name(bus: Bus, record: Record) -> None:
    """Have systemd forget the transient service of a run that had no policy: a start would start that one.

    If systemd has read its units since the policy was set, the boot target wants that service and keeps it
    loaded: the link is removed for that time.
    """
    unit = unit_file.service_of(record)
    if not scope.await_freed(bus, unit, _BRIEFLY):
        wanted = unit_file.boot_state(record) == "enabled"
        unit_file.set_wanted(record, wanted=False)
        scope.reload(bus)
        scope.await_freed(bus, unit, _BRIEFLY)
        unit_file.set_wanted(record, wanted=wanted)


def reread(bus: Bus, record: Record) -> None:
    """Have systemd read a unit file that has changed since it did, before it starts the unit.

    Another unit that names the service (After=) keeps it loaded as it was: with the program of an older
    version, at another place.
    """
    unit = unit_file.service_of(record)
    if scope.properties(bus, unit, scope.UNIT, ("NeedDaemonReload",)).get("NeedDaemonReload"):
        scope.reload(bus)


def mark_started(record: Record) -> None:
    """Record that the user starts it; the back-off begins anew. Raises NotFound, and Conflict if an
    administrator has masked its service.
    """
    if unit_file.is_masked(record.id):
        unit = unit_file.service_of(record)
        raise Conflict(f"{unit} is masked", hint=f"`systemctl unmask {unit}`")
    unit_file.note_started(record)
    with Lock(record.id):
        try:
            final = store.final(record.id)
        except FormatError:
            return  # ignoring: the end of this run takes its place
        if final is not None and final.quick_ends:
            store.write_final(record, final.replace(quick_ends=0))


def request_stop(record: Record) -> bool:
    """Have systemd stop the service, and not start it again; does not wait for that.

    False if the service does not run (a command in the foreground supervises the container) or is stopped
    with the scope (there is no policy).
    """
    if not needs_stopper(record):
        if systemd_mode.applies(record.spec, record.argv):
            end_wait(record)
        return False
    with Bus.connect() as bus:
        unit = unit_file.service_of(record)
        if scope.active_state(bus, unit) in scope.ENDED:
            return False
        scope.request_stop(bus, unit)
        return True


def end_start(record: Record) -> bool:
    """Stop a service that has yet to begin with the start; False if there is none."""
    if record.spec.unit:
        return False
    with Bus.connect() as bus:
        unit = unit_file.service_of(record)
        if scope.active_state(bus, unit) != "activating":
            return False
        scope.request_stop(bus, unit)
        return True


def end_wait(record: Record) -> None:
    """Have the process give up that waits before it starts a container again; that none waits is success.

    A container with a policy is left alone: systemd stops its service.
    """
    runtime = store.runtime(record.id)
    if runtime is not None and runtime.restarting and not unit_file.has_policy(record):
        wake(runtime)


def hasten(record: Record) -> None:
    """Have its service start it at once, where that waits for the back-off."""
    runtime = store.runtime(record.id)
    if runtime is not None and runtime.restarting:
        wake(runtime, backoff.HASTEN)


def wake(runtime: Runtime, signal: int = _signal.SIGTERM) -> None:
    """Send a signal to the process that waits (run/again.py)."""
    try:
        pidfd = process.pidfd(runtime.supervisor)
    except KernelError:
        return  # ignoring: it is gone
    try:
        # checked once the pidfd is open: the pid may have been reused before
        if runtime.supervised():
            process.send(pidfd, signal)
    finally:
        posix.close(pidfd)


def abandon(container_id: str) -> None:
    """Keep systemd from starting a container that was removed meanwhile. Raises SystemdError."""
    unit_file.uninstall(container_id)
    with Bus.connect() as bus:
        scope.request_stop(bus, names.service_unit(container_id))


def runs_again(record: Record, *, planned: bool = False) -> bool:
    """Whether it runs again, or will, after a run has ended; waits until systemd has decided.

    If `planned`, it is enough that systemd waits for RestartSec=, which an administrator may have made long.
    """
    if not unit_file.has_policy(record):
        return False
    with Bus.connect() as bus:
        while True:
            active, sub, _ = scope.state(bus, unit_file.service_of(record))
            if active in scope.ENDED:
                return False
            runtime = store.runtime(record.id)
            if runtime is not None and (runtime.started_ns or runtime.restarting):
                return True
            if planned and sub.startswith("auto-restart"):
                return True
            time.sleep(_STEP)


def await_service(record: Record, unless: Callable[[], bool] = lambda: False) -> None:
    """Wait until its service has stopped at the user's request, or `unless` is true; reset a failed state.

    The service fails if the container is killed before systemd's SIGTERM reaches the monitor.
    """
    with Bus.connect() as bus:
        unit = unit_file.service_of(record)
        ended = scope.await_inactive(bus, unit, unless=unless)
        if ended and scope.active_state(bus, unit) == "failed":
            scope.reset_failed(bus, unit)


def start_again(record: Record) -> None:
    """Start a transient unit that starts the container once its service, which runs this, has stopped."""
    with Bus.connect() as bus:
        unit = f"sysbox-start-{record.id}.service"
        scope.start_service(bus, unit, serviceplan.starter(unit_file.plan_of(record))).wait()


def restart_elsewhere(record: Record) -> None:
    """Run `sysbox restart` in a unit of its own, without waiting: it stops the service that runs this."""
    with Bus.connect() as bus:
        plan = serviceplan.restarter(unit_file.plan_of(record))
        scope.start_service(bus, f"sysbox-restart-{record.id}.service", plan).wait_queued()


def forget(container_id: str) -> None:
    """Have systemd forget a service whose file was removed.

    If it was wanted at boot when systemd last read its units, it stays loaded until they are read again.
    """
    unit = names.service_unit(container_id)
    with Bus.connect() as bus:
        try:
            if not scope.await_inactive(bus, unit, _BRIEFLY):
                return
            scope.reset_failed(bus, unit)
            if scope.properties(bus, unit, scope.UNIT, ("FragmentPath",)).get("FragmentPath"):
                scope.reload(bus)
        except SystemdError:
            pass  # ignoring: the unit stays in systemctl's list


def forget_gone(bus: Bus, known: Callable[[str], bool]) -> list[str]:
    """Have systemd forget the services of containers that are gone, whose `forget` was killed;
    a line for each. systemd unloads those without a unit file by itself.
    """
    from sysbox.units import listing  # a start needs no lists of units

    done, stale = [], []
    for unit in listing.list_units(bus, "sysbox-*.service"):
        container_id = names.container_of(unit.name)
        if not container_id or unit.is_wanted or known(container_id):
            continue
        asked = ("ActiveState", "FragmentPath", "LoadState")
        found = scope.properties(bus, unit.name, scope.UNIT, asked)
        path = str(found.get("FragmentPath", ""))
        is_of_file = path.startswith(serviceplan.ADMINISTRATORS)
        # "not-found": its file was removed before systemd read its units
        if found.get("ActiveState") == "failed" and (
            is_of_file or found.get("LoadState") == "not-found"
        ):
            scope.reset_failed(bus, unit.name)
            done.append(f"forgot the failure of {unit.name}")
        if is_of_file and not exists(path):
            stale.append(f"had systemd forget {unit.name}")
    if stale:
        scope.reload(bus)
    return done + stale


def change(record: Record) -> bool:
    """Apply a changed policy: write the unit file, and change a running service.

    False if it takes effect at the next start only: a command supervises the container in the foreground.
    Raises KernelError, SystemdError.
    """
    if not unit_file.has_policy(record):
        return True
    was_there = unit_file.is_installed(record.id)
    unit_file.install(record)
    runtime = store.runtime(record.id)
    runs = runtime is not None and runtime.alive()
    with Bus.connect() as bus:
        if name_hold.has_service(record.id):
            if runs and not name_hold.has_stopper(record.id):
                start_stopper(record)
            settings = serviceplan.policy_settings(unit_file.plan_of(record))
            name_hold.set_policy(bus, record.id, settings)
            return True
        if was_there:
            scope.reload(bus)
        if not runs:
            return True
        return scope.active_state(bus, unit_file.service_of(record)) not in scope.ENDED


def status(record: Record) -> Status:
    """The status; if the container has just ended, systemd is asked whether it will start it again.

    Raises FormatError.
    """
    found = read_status(record)
    policy = record.spec.restart.name
    if policy == "no" or found.state not in ("exited", "dead"):
        return found
    if time.time() - (found.finished_at or found.started_at) > _RECENTLY:
        return found
    try:
        with Bus.connect() as bus:
            active, job = scope.progress(bus, unit_file.service_of(record))
            stops = job != 0 and _job_type(bus, job) == "stop"
    except SystemdError:
        return found
    if found.state == "dead":
        found = _with_code(found, record)
    on_its_way = active == "activating"
    if active in ("active", "deactivating") and not stops:
        # its end is being recorded, and no stop was requested
        on_its_way = policy != "on-failure" or found.exit_code != 0
    if not on_its_way:
        return found
    # it may run by now
    again = read_status(record)
    if again.state not in ("exited", "dead"):
        return again
    # of an end that nobody has recorded yet the time is not known: it was a moment ago
    finished_at = again.finished_at or found.finished_at or time.time()
    code = found.exit_code if again.state == "dead" else again.exit_code
    return again.replace(state="restarting", finished_at=finished_at, exit_code=code)


def _job_type(bus: Bus, job: int) -> str:
    """The type of a queued job: "start", "stop", "restart" …; "" for one that is done."""
    path, asked = f"{MANAGER_PATH}/job/{job}", (f"{SYSTEMD}.Job", "JobType")
    try:
        (found,) = bus.retry(lambda: bus.call(path, PROPERTIES, "Get", "ss", asked))
    except SystemdError:
        return ""
    return str(found)


def _with_code(found: Status, record: Record) -> Status:
    """With the exit status that the monitor has written, where nobody has recorded the end yet."""
    from sysbox.run import exit_record

    try:
        ended = exit_record.of_monitor(record.run_directory)
    except FormatError:
        return found
    if ended is None:
        return found
    return found.replace(exit_code=systemd_mode.exit_status(record.spec, record.argv, ended.code))


def restarts(record: Record) -> int:
    """How often systemd has started it again since its user did; 0 if systemd cannot be asked."""
    unit = unit_file.service_of(record)
    try:
        with Bus.connect() as bus:
            found = scope.properties(bus, unit, scope.INTERFACES[".service"], ("NRestarts",))
    except SystemdError:
        return 0
    # systemd also counts the start that the start limit refused
    return min(int(found.get("NRestarts", 0)), record.spec.restart.retries or 1 << 32)


def start_stopper(record: Record) -> None:
    """Start the unit that stops the service before the scope (see `needs_stopper`). Raises SystemdError."""
    with Bus.connect() as bus:
        properties = serviceplan.stopper(unit_file.plan_of(record))
        scope.start_service(bus, names.stopper_unit(record.id), properties).wait()


def stop_stopper(container_id: str) -> None:
    """Stop that unit, so that systemd can forget the scope. No such unit is success."""
    with Bus.connect() as bus:
        unit = names.stopper_unit(container_id)
        scope.request_stop(bus, unit)
        scope.await_inactive(bus, unit)
