"""Restart policies: the unit file that systemd acts on, whether it is wanted at boot, and the back-off.

`always` and `unless-stopped` differ at boot alone: a container that its user has stopped is not wanted then
until it is started again.
"""

from __future__ import annotations

import _signal
import posix
import time

from sysbox import program, scope, state, systemd_mode
from sysbox.errors import KernelError, SystemdError
from sysbox.files import is_directory, read_file, unlink, write_file
from sysbox.host import exists
from sysbox.units import names, serviceplan
from sysbox.units.bus import Bus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.records import Final, Record

QUICK = 10  # seconds: a run that lasted longer begins the back-off anew, as docker has it
_FIRST = 0.1  # seconds, which RestartSec= waits anyway
_LONGEST = 60.0  # seconds
_STEP = 0.02
_BRIEFLY = 0.5


def has_policy(record: Record) -> bool:
    """Whether it has, or has had, a policy: its service then has a file, and outlives its scope."""
    return record.spec.restart.name != "no" or exists(_file(names.service_unit(record.id)))


def plan_of(record: Record) -> serviceplan.ServicePlan:
    """The service that supervises it."""
    booted = systemd_mode.applies(record.spec, record.argv)
    statuses = systemd_mode.STATUSES if booted else ()
    return serviceplan.plan_service(record.id, record.name, record.spec, program.launcher, statuses)


def install(record: Record, *, wanted: bool = True) -> None:
    """Write the unit file, and have it `wanted` at boot where its policy says so. Raises KernelError.

    A file that is new to systemd is read when the unit is started.
    """
    plan = plan_of(record)
    path, text = _file(plan.unit), serviceplan.unit_file(plan).encode()
    if read_file(path) != text:
        write_file(path, text, 0o644)
    want(record, wanted=wanted and plan.restart in ("always", "unless-stopped"))


def want(record: Record, *, wanted: bool) -> None:
    """What `systemctl enable` and `disable` do: a link that is followed at boot. Raises KernelError."""
    unit = names.service_unit(record.id)
    link = f"{serviceplan.WANTS}/{unit}"
    if not wanted:
        unlink(link)
        return
    try:
        if not is_directory(serviceplan.WANTS):
            posix.mkdir(serviceplan.WANTS, 0o755)
        posix.symlink(_file(unit), link)
    except FileExistsError:
        pass
    except OSError as error:
        raise KernelError.of("make the link", link, error) from None


def make_way(bus: Bus, record: Record) -> None:
    """Have systemd let go of the service of a run that had no policy: a start would be one of that.

    Where systemd has read its units since the policy came, the target of the boot wants that service, and
    keeps it.
    """
    unit = names.service_unit(record.id)
    if not scope.await_freed(bus, unit, _BRIEFLY):
        want(record, wanted=False)
        scope.reload(bus)
        scope.await_freed(bus, unit, _BRIEFLY)


def stopped(record: Record) -> None:
    """Its user has stopped it: unless-stopped is not started at boot any more."""
    if record.spec.restart.name == "unless-stopped":
        want(record, wanted=False)
        write_file(_marker(record), b"")


def started(record: Record) -> None:
    """Its user has started it."""
    unlink(_marker(record))
    install(record)


def restore(record: Record) -> bool:
    """Write the unit file anew where it is not there; whether it is, and is wanted at boot.

    So a container comes back on a host that kept its state and not its /etc.
    """
    if record.spec.restart.name == "no" or exists(_file(names.service_unit(record.id))):
        return False
    install(record, wanted=not exists(_marker(record)))
    return exists(f"{serviceplan.WANTS}/{names.service_unit(record.id)}")


def _marker(record: Record) -> str:
    return f"{record.directory}/stopped"


def end(record: Record) -> bool:
    """Have systemd stop it, and not start it again, without waiting for that.

    False where its service does not run: it has no policy, or a command attends to it.
    """
    if not has_policy(record):
        return False
    with Bus.connect() as bus:
        unit = names.service_unit(record.id)
        if scope.active_state(bus, unit) in ("inactive", "failed"):
            return False
        scope.request_stop(bus, unit)
        return True


def abandon(container_id: str) -> None:
    """Have systemd start a container no more that was removed meanwhile. Raises SystemdError."""
    uninstall(container_id)
    with Bus.connect() as bus:
        scope.request_stop(bus, names.service_unit(container_id))


def goes_on(record: Record) -> bool:
    """Whether it runs again, or will: asked when a run has ended, and answered when systemd has decided."""
    if not has_policy(record):
        return False
    with Bus.connect() as bus:
        while True:
            active = scope.active_state(bus, names.service_unit(record.id))
            if active in ("inactive", "failed"):
                return False
            runtime = state.runtime(record.id)
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
        scope.start_service(bus, unit, serviceplan.starter(plan_of(record))).wait()


def restart_elsewhere(record: Record) -> None:
    """`sysbox restart` in a unit of its own, not awaited: the caller is part of what will be stopped."""
    with Bus.connect() as bus:
        plan = serviceplan.restarter(plan_of(record))
        scope.start_service(bus, f"sysbox-restart-{record.id}.service", plan).queued()


def uninstall(container_id: str) -> bool:
    """Remove the file and the link; whether there was a file."""
    unit = names.service_unit(container_id)
    unlink(f"{serviceplan.WANTS}/{unit}")
    return unlink(_file(unit))


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


def installed() -> list[str]:
    """The ids of all containers that have a unit file."""
    try:
        found = [names.container_of(name) for name in posix.listdir(serviceplan.DIRECTORY)]
    except FileNotFoundError:
        return []
    return [one for one in found if one]


def change(record: Record) -> None:
    """A policy was changed: the file follows, and a running service with it.

    One that was started without a policy stays without until it is started anew: Restart= of a transient
    unit cannot be changed. Raises KernelError, SystemdError.
    """
    if not has_policy(record):
        return
    there = exists(_file(names.service_unit(record.id)))
    install(record)
    if there:
        with Bus.connect() as bus:
            scope.reload(bus)


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


def back_off(final: Final | None) -> float:
    """Seconds to wait before another start, beyond RestartSec=: 0.1, doubled for each quick end in a row."""
    if final is None or final.quick_ends < 2:
        return 0.0
    doubled = _FIRST * (1 << min(final.quick_ends - 1, 16))
    return min(doubled, _LONGEST) - _FIRST


def wait_or_stopped(seconds: float) -> bool:
    """Wait; True where SIGTERM, which the caller has blocked, said to stop instead."""
    return seconds > 0 and _signal.sigtimedwait({_signal.SIGTERM}, seconds) is not None


def quick_ends(previous: Final | None, ran_ns: int) -> int:
    """How many runs in a row have ended quickly, counting one that lasted `ran_ns`."""
    if ran_ns >= QUICK * 1_000_000_000:
        return 0
    return 1 + (previous.quick_ends if previous else 0)


def stopper_unit(container_id: str) -> str:
    """The unit that has the service stopped when the scope is."""
    return f"sysbox-stop-{container_id}.service"


def guard(record: Record) -> None:
    """Start that unit. Raises SystemdError."""
    with Bus.connect() as bus:
        properties = serviceplan.stopper(plan_of(record))
        scope.start_service(bus, stopper_unit(record.id), properties).wait()


def unguard(container_id: str) -> None:
    """Stop that unit, which lets go of the scope's name. No such unit is success."""
    with Bus.connect() as bus:
        unit = stopper_unit(container_id)
        scope.request_stop(bus, unit)
        scope.await_inactive(bus, unit)


def _file(unit: str) -> str:
    return f"{serviceplan.DIRECTORY}/{unit}"
