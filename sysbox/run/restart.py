"""Restart policies: systemd acts on them, by a unit file (units/unit_file.py); and the back-off.

`always` and `unless-stopped` differ at boot alone: a container that its user has stopped is not wanted then
until it is started again.
"""

from __future__ import annotations

import time

from sysbox import scope
from sysbox.base.errors import Conflict, SystemdError
from sysbox.container import store
from sysbox.container.status import read_status
from sysbox.run import name_hold
from sysbox.units import names, serviceplan, unit_file
from sysbox.units.bus import Bus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.records import Record, Status

_STEP = 0.02
_BRIEFLY = 0.5
_RECENTLY = 120.0  # seconds: longer than systemd and `_supervise` leave one alone that is to be started again


def has_policy(record: Record) -> bool:
    """Whether it has, or has had, a policy: its service then has a file, and outlives its scope."""
    return record.spec.restart.name != "no" or unit_file.is_installed(record.id)


def needs_stopper(record: Record) -> bool:
    """Whether its service does not name its scope, so that a third unit has to stop the two in order."""
    return has_policy(record) or name_hold.has_stopper(record.id)


def free_service_name(bus: Bus, record: Record) -> None:
    """Have systemd let go of the service of a run that had no policy: a start would be one of that.

    Where systemd has read its units since the policy came, the target of the boot wants that service, and
    keeps it.
    """
    unit = names.service_unit(record.id)
    if not scope.await_freed(bus, unit, _BRIEFLY):
        wanted = unit_file.boot_state(record) == "enabled"
        unit_file.set_wanted(record, wanted=False)
        scope.reload(bus)
        scope.await_freed(bus, unit, _BRIEFLY)
        unit_file.set_wanted(record, wanted=wanted)


def mark_started(record: Record) -> None:
    """Its user starts it. Raises Conflict where an administrator has masked its service."""
    if unit_file.is_masked(record.id):
        unit = names.service_unit(record.id)
        raise Conflict(f"{unit} is masked", hint=f"`systemctl unmask {unit}`")
    unit_file.note_started(record)


def request_stop(record: Record) -> bool:
    """Have systemd stop it, and not start it again, without waiting for that.

    False where its service does not run, or is stopped with the scope: it has no policy, or a command attends
    to it.
    """
    if not needs_stopper(record):
        return False
    with Bus.connect() as bus:
        unit = names.service_unit(record.id)
        if scope.active_state(bus, unit) in ("inactive", "failed"):
            return False
        scope.request_stop(bus, unit)
        return True


def abandon(container_id: str) -> None:
    """Have systemd start a container no more that was removed meanwhile. Raises SystemdError."""
    unit_file.uninstall(container_id)
    with Bus.connect() as bus:
        scope.request_stop(bus, names.service_unit(container_id))


def runs_again(record: Record) -> bool:
    """Whether it runs again, or will: asked when a run has ended, and answered when systemd has decided."""
    if not has_policy(record):
        return False
    with Bus.connect() as bus:
        while True:
            active = scope.active_state(bus, names.service_unit(record.id))
            if active in ("inactive", "failed"):
                return False
            runtime = store.runtime(record.id)
            if runtime is not None and (runtime.started_ns or runtime.restarting):
                return True
            time.sleep(_STEP)


def await_service(record: Record) -> None:
    """Wait until its service has stopped, as its user wanted: how is no failure.

    A kill may be faster than systemd's request to the monitor, which would have said so.
    """
    with Bus.connect() as bus:
        unit = names.service_unit(record.id)
        if scope.await_inactive(bus, unit) and scope.active_state(bus, unit) == "failed":
            scope.reset_failed(bus, unit)


def start_again(record: Record) -> None:
    """Have it started once more as soon as its service, whose part this is, has ended."""
    with Bus.connect() as bus:
        unit = f"sysbox-start-{record.id}.service"
        scope.start_service(bus, unit, serviceplan.starter(unit_file.plan_of(record))).wait()


def restart_elsewhere(record: Record) -> None:
    """`sysbox restart` in a unit of its own, not awaited: the caller is part of what will be stopped."""
    with Bus.connect() as bus:
        plan = serviceplan.restarter(unit_file.plan_of(record))
        scope.start_service(bus, f"sysbox-restart-{record.id}.service", plan).queued()


def forget(container_id: str) -> None:
    """Have systemd forget the service whose file was removed.

    One that was wanted at boot when systemd last read its units stays loaded until it reads them anew.
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
            pass  # ignoring: what remains is a line in a list


def change(record: Record) -> bool:
    """A policy was changed: the file follows, and a running service with it.

    False where that holds from the next start on: a command attends to it in the foreground.
    Raises KernelError, SystemdError.
    """
    if not has_policy(record):
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
        return scope.active_state(bus, names.service_unit(record.id)) not in ("inactive", "failed")


def status(record: Record) -> Status:
    """How it stands; of one that has just ended systemd is asked whether it starts it again.

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
            active, job = scope.progress(bus, names.service_unit(record.id))
    except SystemdError:
        return found
    on_its_way = active == "activating"
    if active in ("active", "deactivating") and not job:
        # its end is being recorded, and nobody has asked for a stop
        on_its_way = policy != "on-failure" or found.exit_code != 0
    if not on_its_way:
        return found
    # it may run by now
    again = read_status(record)
    if again.state not in ("exited", "dead"):
        return again
    return again.replace(state="restarting")


def restarts(record: Record) -> int:
    """How often systemd has started it again since its user did; 0 where nobody can tell."""
    unit = names.service_unit(record.id)
    try:
        with Bus.connect() as bus:
            found = scope.properties(bus, unit, scope.INTERFACES[".service"], ("NRestarts",))
    except SystemdError:
        return 0
    # systemd also counts the one that the start limit forbade
    return min(int(found.get("NRestarts", 0)), record.spec.restart.retries or 1 << 32)


def start_stopper(record: Record) -> None:
    """Start that unit. Raises SystemdError."""
    with Bus.connect() as bus:
        properties = serviceplan.stopper(unit_file.plan_of(record))
        scope.start_service(bus, names.stopper_unit(record.id), properties).wait()


def stop_stopper(container_id: str) -> None:
    """Stop that unit, which lets go of the scope's name. No such unit is success."""
    with Bus.connect() as bus:
        unit = names.stopper_unit(container_id)
        scope.request_stop(bus, unit)
        scope.await_inactive(bus, unit)
