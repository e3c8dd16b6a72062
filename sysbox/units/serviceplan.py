"""Plan the service that supervises a detached container, as a transient unit or as a unit file. Pure.

A container with a restart policy has a unit file, since Restart= and a start at boot need a unit that still
exists after it has stopped; all others have a transient unit.
"""

from __future__ import annotations

from sysbox.base.frozen import Frozen
from sysbox.units import names
from sysbox.units.limits.properties import INFINITY, Property

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.spec import ContainerSpec

ADMINISTRATORS = "/etc/systemd/system"  # where an administrator's units are (systemd.unit(5))
DIRECTORY = "/etc/systemd/system.attached"  # an administrator's unit overrides one here
WANTS = f"{ADMINISTRATORS}/multi-user.target.wants"
# where generators write units (systemd.generator(7)); one in the first comes before an administrator's
GENERATED = (
    "/run/systemd/generator.early",
    "/run/systemd/generator",
    "/run/systemd/generator.late",
)

_SECOND = 1_000_000  # microseconds
# seconds that systemd waits beyond the monitor's stop timeout, and for the end to be recorded: at a shutdown
# all containers do that at once, and what is not recorded then is lost with /run
_MARGIN = 30
# The limits of each of these units. The command that starts the container, the one that records its end and
# each health check take some 30 MB for a moment; the rest is page cache of image and log files, which the
# kernel reclaims before an allocation fails. None of it grows with what the container does.
MEMORY_MAX = 512 << 20  # bytes
TASKS_MAX = 64
# Starts of a service with an unlimited policy: more within the interval (in systemd's syntax) mean that its
# program is missing (status 203/EXEC, systemd.exec(5)) or fails, since the back-off of `_supervise` allows
# nine in a minute. `sysbox start` and `restart` reset the counter. A new version may be installed meanwhile:
# at RestartSec= this many take some seconds.
STARTS = 30
STARTS_INTERVAL = "1min"
_AFTER = ("network.target", "dbus.socket")
_RESTART = {"no": "no", "on-failure": "on-failure", "always": "always", "unless-stopped": "always"}


class ServicePlan(Frozen):
    """The service that supervises one container."""

    unit: str
    scope: str
    name: str  # the container's
    container: str  # its id
    launcher: str  # absolute path of the command
    stop_timeout: int  # seconds; negative is unlimited
    restart: str  # no, on-failure, always, unless-stopped
    retries: int  # of on-failure; 0 is unlimited
    clean_statuses: tuple[int, ...] = ()  # exit statuses that are no failure
    restart_status: int = 0  # the exit status that asks for another start; 0 for none
    # services that systemd starts before it, if it starts both at once
    joined: tuple[str, ...] = ()


def plan_service(
    container: str, name: str, spec: ContainerSpec, launcher: str, statuses: tuple[int, ...] = ()
) -> ServicePlan:
    """Plan the supervisor of `container` (64 hex), called `name`; `statuses` are those of systemd mode."""
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
    """The service's properties, for StartTransientUnit.

    PartOf= makes a stop of the scope stop this service too; by After= systemd stops the service first, which
    ends the payload gracefully. A scope that ends by itself stops nothing. After= also keeps the ended scope
    loaded until the service has read the properties that were set on it.
    """
    stop = INFINITY if plan.stop_timeout < 0 else (plan.stop_timeout + _MARGIN) * _SECOND
    settings: tuple[tuple[str, str, object], ...] = (
        ("Description", "s", f"sysbox container {plan.name}"),
        ("Type", "s", "notify"),
        ("NotifyAccess", "s", "main"),
        ("ExecStart", "a(sasb)", _command(plan, "_supervise")),
        ("ExecStopPost", "a(sasb)", _command(plan, "_cleanup")),
        ("KillMode", "s", "mixed"),
        # what the image has in a volume is copied at the first start, which takes as long as it takes
        ("TimeoutStartUSec", "t", INFINITY),
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
    """A unit that starts the container again once its transient service is gone, for StartTransientUnit.

    The service cannot restart itself: with Restart= it would stay loaded, and so would the ended scope, whose
    name the next run needs. Its program waits first where the container reboots too often (run/again.py).
    """
    settings: tuple[tuple[str, str, object], ...] = (
        ("Description", "s", f"Restart of sysbox container {plan.name}"),
        ("Type", "s", "exec"),
        ("ExecStart", "a(sasb)", _command(plan, "_again")),
        ("CollectMode", "s", "inactive-or-failed"),
        ("Slice", "s", "sysbox.slice"),
    )
    return _properties(settings)


def stopper(plan: ServicePlan) -> tuple[Property, ...]:
    """A unit between the scope and a service with Restart=, for StartTransientUnit.

    A stop of the scope stops this unit first, whose ExecStop= stops the service. The service itself cannot be
    PartOf= the scope: it outlives the scope, and while a unit refers to another, no new unit can take the
    other's name.
    """
    settings: tuple[tuple[str, str, object], ...] = (
        ("Description", "s", f"Graceful stop of sysbox container {plan.name}"),
        ("Type", "s", "oneshot"),
        ("RemainAfterExit", "b", True),
        ("ExecStop", "a(sasb)", _command(plan, "_stop")),
        ("TimeoutStopUSec", "t", INFINITY),  # the service's own timeout applies
        ("CollectMode", "s", "inactive-or-failed"),
        # else `systemctl isolate` of a target that wants the service stops this unit, and the service with it
        ("IgnoreOnIsolate", "b", True),
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


def stop_patience(stop_timeout: int) -> str:
    """TimeoutStopSec= of a service whose container may take `stop_timeout` seconds, if negative any time."""
    return "infinity" if stop_timeout < 0 else f"{stop_timeout + _MARGIN}s"


def unit_file(plan: ServicePlan) -> str:
    """The text of the service's unit file. Raises SpecError.

    The services of containers whose namespaces it joins are in After= only: Wants= would start one again
    that its user has stopped.
    """
    from sysbox.units import syntax  # here and below: most services are transient

    stop = stop_patience(plan.stop_timeout)
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
        ("TimeoutStartSec", "infinity"),
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
    """The lines of a unit file for the restart policy."""
    from sysbox.units import syntax

    return syntax.dump(_policy(plan))


def _policy(plan: ServicePlan) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    """The restart policy, as sections.

    The start limit implements `on-failure:N`, and ends what starts too often. `_supervise` does the back-off:
    systemd has one only since 254 (RestartSteps=), and no way to reset one that has grown.
    """
    limited = plan.restart == "on-failure" and plan.retries > 0
    again = (("RestartForceExitStatus", str(plan.restart_status)),) if plan.restart_status else ()
    limit = (
        ("StartLimitIntervalSec", "infinity" if limited else STARTS_INTERVAL),
        ("StartLimitBurst", str(plan.retries + 1 if limited else STARTS)),
    )
    restart = (("Restart", _RESTART[plan.restart]), ("RestartSec", "100ms"), *again)
    return ("Unit", limit), ("Service", restart)


def program_word(path: str) -> str:
    """The program of a command line, escaped so that systemd expands nothing in it (systemd.service(5))."""
    from sysbox.units import syntax

    return syntax.escape_specifiers(syntax.quote(path)).replace("$", "$$")
