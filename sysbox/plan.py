"""From what was asked to a Plan: pure but for looking at the host (`stat` of devices, HostFacts).

The plan is everything a start needs, decided: the scope, the root, the network, the process. Nothing
below it looks at the specification again; `run --dry-run` prints it.
"""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.base.frozen import Frozen
from sysbox.container import systemd_plan
from sysbox.container.process_plan import ProcessPlan
from sysbox.fs.rootfs import (
    INIT,
    Directory,
    Link,
    Node,
    Protection,
    RootPlan,
    check_depth,
    plan_cgroups,
    plan_operations,
)
from sysbox.host import read_text
from sysbox.linux import capability, namespace
from sysbox.linux.process import RLIMITS
from sysbox.netns.topology import NetPlan, network_of, plan_network
from sysbox.security import capabilities, devices, paths, sysctls
from sysbox.units import scopeplan
from sysbox.units.limits.properties import plan_limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.systemd_plan import Mode
    from sysbox.host import HostFacts
    from sysbox.image.model import Image
    from sysbox.spec import ContainerSpec
    from sysbox.units.scopeplan import ScopePlan

# In the order in which they are entered: the user namespace owns the others, so it is first.
_USER_MAX = 1024  # characters; a name of an account has at most 256 (LOGIN_NAME_MAX)
_ORDER = ("user", "time", "ipc", "uts", "network", "pid", "mount", "cgroup")


class NamespacePlan(Frozen):
    """Which namespaces are new, and which are entered."""

    new: int  # CLONE_NEW* of unshare(2), but those of pid and cgroup
    new_pid: bool
    new_cgroup: bool
    joined: tuple[tuple[str, str], ...] = ()  # (kind, path of the namespace), in order

    @property
    def joins_pid(self) -> bool:
        """Whether its first process is born into a pid namespace that there is already."""
        return any(kind == "pid" for kind, _ in self.joined)


class Plan(Frozen):
    """One start, decided."""

    id: str
    scope: ScopePlan
    namespaces: NamespacePlan
    root: RootPlan
    network: NetPlan
    process: ProcessPlan

    def describe(self) -> str:
        """What would be done, in order, a line each."""
        lines = [f"scope {self.scope.unit} in {self.scope.slice}"]
        lines += [f"  {one.name}={_value(one.value)}" for one in self.scope.properties]
        lines += [
            f"  write {one.controller}: {one.file} = {one.value}" for one in self.scope.writes
        ]
        lines.append(f"namespaces new: {', '.join(self._new_kinds())}")
        lines += [f"  join {kind}: {path}" for kind, path in self.namespaces.joined]
        lines.append("root")
        lines.append(
            f"  mount overlay of {len(self.root.layers)} layers and {self.root.directory}/upper on /"
        )
        lines += [f"  {one.describe()}" for one in (*self.root.operations, *self.root.late)]
        lines.append(self.network.describe())
        process = self.process
        lines.append(f"process {' '.join(process.argv)}")
        lines.append(f"  user {process.user or '0'}, directory {process.workdir}")
        lines.append(f"  capabilities {' '.join(capability.names(process.capabilities)) or 'none'}")
        lines.append(
            f"  seccomp {process.seccomp}, no_new_privileges {_value(process.no_new_privileges)}"
        )
        lines += [f"  rlimit {name} {soft}:{hard}" for name, soft, hard in process.rlimits]
        if process.oom_score_adj:
            lines.append(f"  oom_score_adj {process.oom_score_adj}")
        lines += [f"  sysctl {path} = {value}" for path, value in process.sysctls]
        return "\n".join(lines)

    def _new_kinds(self) -> list[str]:
        new = self.namespaces
        kinds = [kind for kind in _ORDER if new.new & namespace.KINDS[kind][0]]
        return kinds + ["pid"] * new.new_pid + ["cgroup"] * new.new_cgroup


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple | list):
        return "; ".join(
            " ".join(map(str, one)) if isinstance(one, tuple) else str(one) for one in value
        )
    return str(value)


def resolve_argv(spec: ContainerSpec, image: Image) -> tuple[str, ...]:
    """Docker's rule: an entrypoint of the user's own drops the image's command.

    Raises SpecError when nothing is left to run.
    """
    if spec.entrypoint is None:
        entrypoint, command = image.config.entrypoint, spec.command or image.config.cmd
    else:
        entrypoint, command = spec.entrypoint, spec.command
    argv = entrypoint + command
    if not argv or not argv[0]:
        raise SpecError(
            f"image {spec.image}: no command to run",
            hint="the image names none: give one after its name",
        )
    return argv


def make_plan(
    container_id: str,
    spec: ContainerSpec,
    image: Image,
    facts: HostFacts,
    *,
    directory: str,
    volumes: dict[str, str],
    fresh: dict[str, str],
    joins: dict[str, str],
    service: str = "",
    tuned: dict[str, str] | None = None,
) -> Plan:
    """Decide everything. `volumes` maps volume mounts' targets to host directories, `fresh` those of new
    to their marks, `joins` the kinds of namespaces that are shared to their paths (and "proc" to the mount
    namespace with the procfs of a pid namespace), `service` is the unit around it, `tuned` the record's.

    Raises SpecError, UsageError, Unsupported: naming the flag, the value and the reason.
    """
    mode = systemd_plan.decide(container_id, spec, resolve_argv(spec, image), directory)
    properties, writes = plan_limits(spec.limits, facts)
    scope = scopeplan.plan_scope(
        container_id,
        spec,
        properties=properties,
        writes=writes,
        devices=_device_rules(spec),
        facts=facts,
        service=service,
        tuned=tuned,
        oom_policy=spec.limits.oom_policy or mode.oom_policy,
    )
    return Plan(
        id=container_id,
        scope=scope,
        namespaces=_namespaces(spec, joins),
        root=_root(spec, image, facts, directory, volumes, fresh, joins, mode),
        network=_network(container_id, spec),
        process=_process(container_id, spec, image, mode),
    )


def _network(container_id: str, spec: ContainerSpec) -> NetPlan:
    return plan_network(container_id, spec, network_of(spec.bridge, read_text("/proc/net/route")))


def _device_rules(spec: ContainerSpec) -> tuple[tuple[str, str], ...] | None:
    """What the scope's device controller allows; None for a privileged container: everything."""
    found = devices.rules(spec.devices, spec.security.privileged)
    if found is None or not spec.limits.device_rules:
        return found
    from sysbox.security import device_rules  # which few containers need

    return (*found, *device_rules.rules(spec.limits.device_rules))


def _namespaces(spec: ContainerSpec, joins: dict[str, str]) -> NamespacePlan:
    asked = {
        "ipc": spec.namespaces.ipc,
        "uts": spec.namespaces.uts,
        "user": spec.namespaces.user,
        "time": spec.namespaces.time,
        "network": "private"
        if spec.namespaces.network in ("bridge", "none")
        else spec.namespaces.network,
        "mount": "private",
    }
    new = 0
    for kind, mode in asked.items():
        if mode in ("private", "none"):
            new |= namespace.KINDS[kind][0]
    return NamespacePlan(
        new=new,
        new_pid=spec.namespaces.pid == "private",
        new_cgroup=spec.namespaces.cgroup == "private",
        joined=tuple((kind, joins[kind]) for kind in _ORDER if kind in joins),
    )


def _ipc_owner(spec: ContainerSpec, joins: dict[str, str]) -> str:
    """The mount namespace with the shared memory that goes with another container's IPC namespace."""
    if not spec.namespaces.ipc.startswith("container:"):
        return ""
    return joins["ipc"].removesuffix("ipc") + "mnt"


def _root(
    spec: ContainerSpec,
    image: Image,
    facts: HostFacts,
    directory: str,
    volumes: dict[str, str],
    fresh: dict[str, str],
    joins: dict[str, str],
    mode: Mode,
) -> RootPlan:
    return RootPlan(
        layers=image.layers,
        directory=directory,
        volatile=spec.remove,
        operations=plan_operations(
            spec,
            usr_bind=image.usr_bind,
            directory=directory,
            volumes=volumes,
            fresh=fresh,
            protect=_protection(spec, facts, mode),
            ipc_owner=_ipc_owner(spec, joins),
            proc_owner=joins.get("proc", ""),
            before=mode.before,
            after=mode.after,
        ),
        late=plan_cgroups(spec, facts, systemd=mode.active),
        booted=mode.active,
    )


def _protection(spec: ContainerSpec, facts: HostFacts, mode: Mode) -> Protection:
    masked, read_only = paths.plan(spec.security, facts.cpus)
    nodes = devices.nodes(spec.devices, spec.security.privileged, consoles=not mode.active)
    return Protection(
        masked=masked,
        read_only=(*read_only, *mode.read_only),
        directories=tuple(
            Directory(target=above)
            for above in dict.fromkeys(node.path.rpartition("/")[0] for node in nodes)
            if above != "/dev"
        ),
        nodes=tuple(
            Node(target=node.path, kind=node.kind, major=node.major, minor=node.minor,
                 mode=node.mode, uid=node.uid, gid=node.gid)
            for node in nodes
        ),
        links=tuple(Link(target=path, text=text) for path, text in devices.DEFAULT_LINKS),
    )  # fmt: skip


def _process(container_id: str, spec: ContainerSpec, image: Image, mode: Mode) -> ProcessPlan:
    argv = resolve_argv(spec, image)
    if spec.init:
        argv = (INIT, *argv)
    hostname = ""
    if spec.namespaces.uts == "private":
        hostname = spec.hostname or container_id[:12]
    elif spec.hostname or spec.domainname:
        flag = "--hostname" if spec.hostname else "--domainname"
        raise SpecError(
            f"{flag} {spec.hostname or spec.domainname}: the UTS namespace is not the container's own",
            hint=f"leave out --uts or {flag}",
        )
    workdir = spec.workdir or image.config.workdir or "/"
    check_depth(workdir, "working directory")
    user = spec.user or image.config.user
    if len(user) > _USER_MAX:
        raise SpecError(
            f"user '{user[:32]}...': {len(user)} characters, {_USER_MAX} are the most",
            hint="NAME|UID[:GROUP|GID]; -u goes before the image's USER",
        )
    domain = (("kernel/domainname", spec.domainname),) if spec.domainname else ()
    return ProcessPlan(
        argv=argv,
        image_env=image.config.env,
        env=(*mode.environment, *spec.env),
        workdir=workdir,
        user=user,
        group_add=spec.group_add,
        hostname=hostname,
        tty=spec.tty,
        capabilities=capabilities.resolve(spec.security, capability.held(), more=mode.capabilities),
        no_new_privileges=spec.security.no_new_privileges,
        seccomp=_seccomp(spec),
        rlimits=_rlimits(spec),
        sysctls=(*sysctls.settings(spec.sysctls, spec.namespaces), *domain),
        oom_score_adj=spec.oom_score_adj,
    )


def _seccomp(spec: ContainerSpec) -> str:
    """Which filter it gets; a privileged container none but one of its user's own."""
    asked = spec.security.seccomp
    return "unconfined" if spec.security.privileged and asked == "default" else asked


def _rlimits(spec: ContainerSpec) -> tuple[tuple[str, int, int], ...]:
    for limit in spec.ulimits:
        if limit.name not in RLIMITS:
            raise SpecError(
                f"--ulimit {limit.name}: no such limit", hint="known: " + ", ".join(sorted(RLIMITS))
            )
    return tuple((limit.name, limit.soft, limit.hard) for limit in spec.ulimits)
