"""Plan a process of a container up to its execve(2): the first one, and those of `exec`. Pure."""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.base.frozen import Frozen
from sysbox.linux.capability import Sets, docker_sets, user_sets
from sysbox.linux.process import RLIMITS
from sysbox.security import capabilities, seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.records import Record, Resolved
    from sysbox.container.systemd_plan import Mode
    from sysbox.linux.landlock import Domain
    from sysbox.linux.userns import IdMap
    from sysbox.spec import ContainerSpec

_USER_MAX = 1024  # characters; a name of an account has at most 256 (LOGIN_NAME_MAX)


class ProcessPlan(Frozen):
    """One process as decided."""

    argv: tuple[str, ...]
    image_env: tuple[str, ...]
    env: tuple[str, ...]
    workdir: str
    user: str  # looked up in the container, in its own passwd and group
    group_add: tuple[str, ...]
    # the host's ids of the supplementary groups that it has in place of its user's; None: it has its user's
    kept_groups: tuple[int, ...] | None
    umask: int
    hostname: str  # "" does not set one
    tty: bool
    capabilities: Sets  # of root
    user_capabilities: Sets  # of any other user
    no_new_privileges: bool
    seccomp: str  # default, unconfined, the name of a profile, or its path
    rlimits: tuple[tuple[str, int, int], ...]
    sysctls: tuple[tuple[str, str], ...]  # (path below /proc/sys, value)
    oom_score_adj: int
    # (variable, the secret that it has); the values come beside the plan
    secrets: tuple[tuple[str, str], ...] = ()
    listening: tuple[int, ...] = ()  # this process's descriptors of sockets that it gets from 3 on
    apparmor: str = ""  # the profile that it takes; "" is none
    pid_variables: tuple[str, ...] = ()  # variables whose value is its pid in the container
    landlock: Domain | None = None  # None: it may open whatever it reaches
    label: str = ""  # SELinux: that of the process; "" is what the policy decides


class Asked(Frozen):
    """What was asked for one process; "" means as in the container."""

    argv: tuple[str, ...]
    env: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    tty: bool = False
    privileged: bool = False


def plan_process(
    record: Record,
    resolved: Resolved,
    asked: Asked,
    mode: Mode,
    *,
    hostname: str,
    held: int,
    landlock: int = 0,
    label: str = "",
    sysctls: tuple[tuple[str, str], ...] = (),
) -> ProcessPlan:
    """The plan of a process. `hostname` is "" where none is to be set, `held` the mask of capabilities that
    the caller has, `landlock` the version of the kernel's Landlock. Raises SpecError, Unsupported.
    """
    spec = record.spec
    roots, users = sets_of(spec, mode, held, privileged=asked.privileged)
    return ProcessPlan(
        argv=asked.argv,
        image_env=(*spec.host_env, *resolved.env),
        env=(*mode.environment, *_credentials(spec), *_notify_socket(spec), *spec.env, *asked.env),
        workdir=asked.workdir or resolved.workdir or "/",
        user=_checked(asked.user or resolved.user),
        group_add=() if spec.kept_groups is not None else spec.group_add,
        kept_groups=_kept(spec.kept_groups, record.gids),
        umask=spec.umask,
        hostname=hostname,
        tty=asked.tty,
        capabilities=roots,
        user_capabilities=_of_user(asked, resolved, roots, users),
        no_new_privileges=spec.security.no_new_privileges,
        seccomp=_profile(spec, asked),
        rlimits=_rlimits(spec),
        sysctls=sysctls,
        label=label,
        oom_score_adj=spec.oom_score_adj,
        secrets=tuple((one.target, one.name) for one in spec.secrets if one.kind == "env"),
        landlock=_landlock(spec, asked, mode, roots, landlock),
    )


def _of_user(asked: Asked, resolved: Resolved, roots: Sets, users: Sets) -> Sets:
    """podman's rule: what `--cap-add` gives goes to the container's own user, and to root."""
    return users if asked.user in ("", resolved.user) else user_sets(roots.bounding, 0)


def _profile(spec: ContainerSpec, asked: Asked) -> str:
    privileged = asked.privileged or spec.security.privileged
    return seccomp.profile_of(spec.security.replace(privileged=privileged))


def _landlock(
    spec: ContainerSpec, asked: Asked, mode: Mode, roots: Sets, version: int
) -> Domain | None:
    # a privileged process of `exec` may mount, and is the way to look into the others
    if asked.privileged or not spec.security.landlock:
        return None
    from sysbox.security import landlock  # few containers need it

    return landlock.plan(spec.namespaces, roots.bounding, version, booted=mode.active)


def _credentials(spec: ContainerSpec) -> tuple[str, ...]:
    return ("CREDENTIALS_DIRECTORY=/run/host/credentials",) if spec.credentials else ()


def _notify_socket(spec: ContainerSpec) -> tuple[str, ...]:
    if spec.ready != "container":
        return ()
    from sysbox.fs.sockets import NOTIFY  # few containers need it

    return (f"NOTIFY_SOCKET={NOTIFY}",)


def _kept(groups: tuple[int, ...] | None, gids: tuple[IdMap, ...]) -> tuple[int, ...] | None:
    """The caller's groups, which count on mounts that are not mapped, and the host's ids of the same numbers
    inside, which count on those that are; `gids` is the container's map.
    """
    if groups is None:
        return None
    inside = (
        one.outside + group - one.inside
        for one in gids
        for group in groups
        if one.inside <= group < one.inside + one.count
    )
    return tuple(sorted({*groups, *inside}))


def sets_of(
    spec: ContainerSpec, mode: Mode, held: int, *, privileged: bool = False
) -> tuple[Sets, Sets]:
    """The capabilities of a process of root, and of one of the container's user where that is another.

    `privileged` is that of `exec`. Raises SpecError, Unsupported.
    """
    granted = (
        held if privileged else capabilities.resolve(spec.security, held, more=mode.capabilities)
    )
    return docker_sets(granted), user_sets(granted, capabilities.of_users(spec.security, granted))


def _checked(user: str) -> str:
    if len(user) > _USER_MAX:
        raise SpecError(
            f"user '{user[:32]}...': {len(user)} characters, {_USER_MAX} are the most",
            hint="NAME|UID[:GROUP|GID]; -u goes before the image's USER",
        )
    return user


def _rlimits(spec: ContainerSpec) -> tuple[tuple[str, int, int], ...]:
    for limit in spec.ulimits:
        if limit.name not in RLIMITS:
            raise SpecError(
                f"--ulimit {limit.name}: no such limit", hint="known: " + ", ".join(sorted(RLIMITS))
            )
    return tuple((limit.name, limit.soft, limit.hard) for limit in spec.ulimits)
