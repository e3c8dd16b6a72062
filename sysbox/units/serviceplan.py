"""The service that supervises a detached container, decided: its settings as a transient unit or as a file.

A container with a restart policy has a unit file, since Restart= and a start at boot want a unit that stays
when it has stopped; all others have a transient unit. Pure.
"""

from __future__ import annotations

from sysbox.base.frozen import Frozen
from sysbox.units import names
from sysbox.units.limits.properties import INFINITY, Property

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.spec import ContainerSpec

ADMINISTRATORS = "/etc/systemd/system"  # where an administrator's units are (systemd.unit(5))
DIRECTORY = "/etc/systemd/system.attached"  # what is here gives way to them
WANTS = f"{ADMINISTRATORS}/multi-user.target.wants"

_SECOND = 1_000_000  # microseconds
_MARGIN = 5  # seconds that systemd waits beyond the monitor's own patience
# What one of these units may use. The command that starts the container, the one that records its end and
# each health check take some 30 MB for a moment; the rest is for what the kernel caches of image and log
# files, which it takes back before anything fails. Nothing here grows with what a container does.
MEMORY_MAX = 512 << 20  # bytes
TASKS_MAX = 64
_AFTER = ("network.target", "dbus.socket")
_RESTART = {"no": "no", "on-failure": "on-failure", "always": "always", "unless-stopped": "always"}


class ServicePlan(Frozen):
    """What supervises one container."""

    unit: str
    scope: str
    name: str  # the container's
    container: str  # its id
    launcher: str  # absolute path of the command
    stop_timeout: int  # seconds; negative is for ever
    restart: str  # no, on-failure, always, unless-stopped
    retries: int  # of on-failure; 0 is without end
    clean_statuses: tuple[int, ...] = ()  # exit statuses that are none of a failure
    restart_status: int = 0  # the one that asks for another start; 0: there is none
    joined: tuple[
        str, ...
    ] = ()  # services that are started before it, where both are started at once


def plan_service(
    container: str, name: str, spec: ContainerSpec, launcher: str, statuses: tuple[int, ...] = ()
) -> ServicePlan:
    """The supervisor of `container` (64 hex), called `name`; `statuses` are those of systemd mode."""
    return ServicePlan(
        unit=names.service_unit(container),
        scope=names.scope_unit(container),
        name=name,
        container=container,
        launcher=launcher,
        stop_timeout=spec.stop_timeout,
        restart=spec.restart.name,
        retries=spec.restart.retries,
        clean_statuses=statuses,
        restart_status=statuses[0] if statuses else 0,
    )


def transient(plan: ServicePlan) -> tuple[Property, ...]:
    """Its properties, for StartTransientUnit.

    PartOf= makes a stop of the scope one of this service, which comes first and ends the payload gracefully;
    a scope that ends by itself stops nothing. After= also keeps the ended scope loaded, with what was
    set on it, until this service has read that.
    """
    stop = INFINITY if plan.stop_timeout < 0 else (plan.stop_timeout + _MARGIN) * _SECOND
    settings: tuple[tuple[str, str, object], ...] = (
        ("Description", "s", f"sysbox container {plan.name}"),
        ("Type", "s", "notify"),
        ("NotifyAccess", "s", "main"),
        ("ExecStart", "a(sasb)", _command(plan, "_supervise")),
        ("ExecStopPost", "a(sasb)", _command(plan, "_cleanup")),
        ("KillMode", "s", "mixed"),
        ("TimeoutStopUSec", "t", stop),
        ("CollectMode", "s", "inactive-or-failed"),
        ("Slice", "s", "sysbox.slice"),
        ("OOMPolicy", "s", "continue"),
        ("PartOf", "as", [plan.scope]),
        ("After", "as", [*_AFTER, plan.scope]),
        ("SuccessExitStatus", "(aiai)", (list(plan.clean_statuses), [])),
    )
    return _properties(settings)


def starter(plan: ServicePlan) -> tuple[Property, ...]:
    """A unit that starts it once more when its transient service is gone, for StartTransientUnit.

    That service cannot do so itself: with Restart= it would stay, and the scope's name with it.
    """
    settings: tuple[tuple[str, str, object], ...] = (
        ("Description", "s", f"Restart of sysbox container {plan.name}"),
        ("Type", "s", "exec"),
        ("ExecStart", "a(sasb)", _command(plan, "start")),
        ("CollectMode", "s", "inactive-or-failed"),
        ("Slice", "s", "sysbox.slice"),
    )
    return _properties(settings)


def stopper(plan: ServicePlan) -> tuple[Property, ...]:
    """A unit that stands between the scope and a service with Restart=, for StartTransientUnit.

    Stopping the scope runs its ExecStop=, which has the service stopped first. The service itself cannot be
    PartOf= the scope: it outlives it, and as long as a unit is referred to, no new one can have its name.
    """
    settings: tuple[tuple[str, str, object], ...] = (
        ("Description", "s", f"Graceful stop of sysbox container {plan.name}"),
        ("Type", "s", "oneshot"),
        ("RemainAfterExit", "b", True),
        ("ExecStop", "a(sasb)", _command(plan, "_stop")),
        ("TimeoutStopUSec", "t", INFINITY),  # the service has a timeout
        ("CollectMode", "s", "inactive-or-failed"),
        ("Slice", "s", "sysbox.slice"),
        ("PartOf", "as", [plan.scope]),
        ("After", "as", [*_AFTER, plan.scope]),
    )
    return _properties(settings)


def restarter(plan: ServicePlan) -> tuple[Property, ...]:
    """A unit that stops the container and starts it again, for StartTransientUnit."""
    settings: tuple[tuple[str, str, object], ...] = (
        ("Description", "s", f"Restart of sysbox container {plan.name}"),
        ("Type", "s", "oneshot"),
        ("ExecStart", "a(sasb)", _command(plan, "restart")),
        ("CollectMode", "s", "inactive-or-failed"),
        ("Slice", "s", "sysbox.slice"),
    )
    return _properties(settings)


def _properties(settings: tuple[tuple[str, str, object], ...]) -> tuple[Property, ...]:
    bounds = (("MemoryMax", "t", MEMORY_MAX), ("TasksMax", "t", TASKS_MAX))
    return tuple(
        Property(name=name, signature=kind, value=value)
        for name, kind, value in (*settings, *bounds)
    )


def _command(plan: ServicePlan, verb: str) -> list[tuple[str, list[str], bool]]:
    return [(plan.launcher, [plan.launcher, verb, plan.container], False)]


def unit_file(plan: ServicePlan) -> str:
    """Its unit file.

    Those whose namespaces it joins come first, and are not wanted: it would start one again that its user
    has stopped. Raises SpecError.
    """
    from sysbox.units import syntax  # here and below: most services are transient

    stop = "infinity" if plan.stop_timeout < 0 else f"{plan.stop_timeout + _MARGIN}s"
    launcher = program_word(plan.launcher)
    clean = (
        (("SuccessExitStatus", " ".join(map(str, plan.clean_statuses))),)
        if plan.clean_statuses
        else ()
    )
    unit = (
        ("Description", f"sysbox container {plan.name}"),
        ("After", " ".join((*_AFTER, *plan.joined))),
    )
    service = (
        ("Type", "notify"),
        ("NotifyAccess", "main"),
        ("ExecStart", f"{launcher} _supervise {plan.container}"),
        ("ExecStopPost", f"{launcher} _cleanup {plan.container}"),
        ("KillMode", "mixed"),
        ("TimeoutStopSec", stop),
        ("Slice", "sysbox.slice"),
        ("OOMPolicy", "continue"),
        ("MemoryMax", str(MEMORY_MAX)),
        ("TasksMax", str(TASKS_MAX)),
        *clean,
    )
    install = (("WantedBy", "multi-user.target"),)
    purpose = f"for the restart policy of container {plan.name}"
    return syntax.dump(
        (("Unit", unit), ("Service", service), *_policy(plan), ("Install", install)),
        f"sysbox made this {purpose}, and removes it with the container.",
    )


def policy_settings(plan: ServicePlan) -> str:
    """The part of a unit file that is the restart policy."""
    from sysbox.units import syntax

    return syntax.dump(_policy(plan))


def _policy(plan: ServicePlan) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    """The restart policy, as sections.

    The start limit is that of `on-failure:N`; the back-off is `_supervise`'s. systemd has one of its own
    since 254 (RestartSteps=), and no other way to end one that grows.
    """
    limited = plan.restart == "on-failure" and plan.retries > 0
    again = (("RestartForceExitStatus", str(plan.restart_status)),) if plan.restart_status else ()
    limit = (
        ("StartLimitIntervalSec", "infinity" if limited else "0"),
        ("StartLimitBurst", str(plan.retries + 1 if limited else 1)),
    )
    restart = (("Restart", _RESTART[plan.restart]), ("RestartSec", "100ms"), *again)
    return ("Unit", limit), ("Service", restart)


def program_word(path: str) -> str:
    """The program of a command line, with nothing in it that systemd would expand (systemd.service(5))."""
    from sysbox.units import syntax

    return syntax.escape_specifiers(syntax.quote(path)).replace("$", "$$")
