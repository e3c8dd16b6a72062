"""Make a Plan from a container's record. Pure: the caller passes in the state of the host.

The plan decides everything a start needs: the scope, the root, the network, the process. The code that
carries it out does not look at the specification again; `run --dry-run` prints the plan.
"""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.base.frozen import Frozen
from sysbox.container import clocks, systemd_plan
from sysbox.container.clocks import Clocks
from sysbox.container.process_plan import Asked, ProcessPlan, plan_process
from sysbox.fs import mapped
from sysbox.fs.mountoptions import check_depth
from sysbox.fs.rootfs import (
    CGROUPS,
    INIT,
    Bind,
    Directory,
    Link,
    Mask,
    Node,
    Protection,
    RootPlan,
    plan_cgroups,
    plan_operations,
)
from sysbox.fs.sockets import Socket, plan_syslog
from sysbox.linux import capability, namespace
from sysbox.linux.mount import MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY
from sysbox.linux.userns import IdMap
from sysbox.netns.network import Network
from sysbox.netns.topology import DEFAULT_NETWORK, NetPlan, plan_network
from sysbox.security import apparmor, devices, paths, sysctls
from sysbox.security.apparmor import AppArmor
from sysbox.security.devices import DeviceNode
from sysbox.units import scopeplan
from sysbox.units.limits.plan import plan_limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.records import Record, Resolved
    from sysbox.container.systemd_plan import Mode
    from sysbox.fs.rootfs import Operation
    from sysbox.host import HostFacts
    from sysbox.spec import ContainerSpec
    from sysbox.units.limits.disks import Disk
    from sysbox.units.scopeplan import ScopePlan

# The order in which namespaces are entered: the user namespace owns the others, so it is first.
_ORDER = ("user", "time", "ipc", "uts", "network", "pid", "mount", "cgroup")


class NamespacePlan(Frozen):
    """Which namespaces are new, and which are joined."""

    new: int  # CLONE_NEW* of unshare(2), except those of pid and cgroup
    new_pid: bool
    new_cgroup: bool
    joined: tuple[tuple[str, str], ...] = ()  # (kind, path of the namespace), in order
    # maps of the container's own user namespace, which owns the others; () is no user namespace
    uids: tuple[IdMap, ...] = ()
    gids: tuple[IdMap, ...] = ()
    clocks: Clocks = Clocks(mode="host")

    @property
    def joins_pid(self) -> bool:
        """Whether the container's first process is created in an existing pid namespace."""
        return any(kind == "pid" for kind, _ in self.joined)


class Plan(Frozen):
    """Every decision about one start of a container."""

    id: str
    scope: ScopePlan
    namespaces: NamespacePlan
    root: RootPlan
    network: NetPlan
    process: ProcessPlan

    def with_name(self, name: str, image: str) -> Plan:
        """A copy for a container that got its name after the plan was made."""
        description = scopeplan.describe(name, image)
        return self.replace(scope=self.scope.replace(description=description))

    def describe(self) -> str:
        """The steps in order, a line each."""
        lines = [f"scope {self.scope.unit} in {self.scope.slice}"]
        lines += [f"  {one.name}={_value(one.value)}" for one in self.scope.properties]
        lines += [
            f"  write {one.controller}: {one.file} = {one.value}" for one in self.scope.writes
        ]
        lines.append(f"namespaces new: {', '.join(self._new_kinds())}")
        lines += [f"  join {kind}: {path}" for kind, path in self.namespaces.joined]
        lines.append(f"  {self.namespaces.clocks.describe()}")
        lines.append("root")
        root = self.root
        files = "".join(f" ({name}={value})" for name, value in root.options)
        lines.append(
            f"  mount {root.driver} of {len(root.layers)} layers and {root.directory}/upper on /{files}"
        )
        lines += [f"  outside: {one.describe()}" for one in root.outside]
        lines += [f"  {one.describe()}" for one in (*root.operations, *root.late)]
        lines.append(self.network.describe())
        process = self.process
        lines.append(f"process {' '.join(process.argv)}")
        lines.append(f"  user {process.user or '0'}, directory {process.workdir}")
        lines += _confinement(process)
        lines += [f"  label {process.label}"] * bool(process.label)
        lines += [f"  rlimit {name} {soft}:{hard}" for name, soft, hard in process.rlimits]
        if process.kept_groups is not None:
            lines.append(f"  groups of the caller: {' '.join(map(str, process.kept_groups))}")
        if process.umask != 0o022:
            lines.append(f"  umask {process.umask:04o}")
        if process.oom_score_adj:
            lines.append(f"  oom_score_adj {process.oom_score_adj}")
        lines += [f"  secret {name} as the variable {one}" for one, name in process.secrets]
        lines += [f"  sysctl {path} = {value}" for path, value in process.sysctls]
        return "\n".join(lines)

    def _new_kinds(self) -> list[str]:
        new = self.namespaces
        kinds = [kind for kind in _ORDER if new.new & namespace.KINDS[kind][0]]
        return kinds + ["pid"] * new.new_pid + ["cgroup"] * new.new_cgroup


def _confinement(process: ProcessPlan) -> list[str]:
    """What the process may do, and what it may call and reach."""
    held = " ".join(capability.names(process.capabilities.bounding))
    lines = [f"  capabilities {held or 'none'}"]
    if process.user_capabilities.ambient:
        named = " ".join(capability.names(process.user_capabilities.ambient))
        lines.append(f"  ambient, unless the user is root: {named}")
    profile = f", AppArmor {process.apparmor}" if process.apparmor else ""
    allowed = _value(process.no_new_privileges)
    lines.append(f"  seccomp {process.seccomp}, no_new_privileges {allowed}{profile}")
    if process.landlock:
        from sysbox.security import landlock  # few containers need it

        lines.append(f"  {landlock.describe(process.landlock)}")
    return lines


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple | list):
        return "; ".join(
            " ".join(map(str, one)) if isinstance(one, tuple) else str(one) for one in value
        )
    return str(value)


class Surroundings(Frozen):
    """The state of the host and of other containers that a start depends on."""

    hostname: str = ""  # "" where the container has the host's
    volumes: dict[str, str] = {}  # noqa: RUF012 (target of a volume mount -> the host's directory)
    marks: dict[str, str] = {}  # noqa: RUF012 (target -> the file that tells whether the volume is new)
    # kind of a shared namespace -> its path; "proc" is the mount namespace with the procfs of a shared
    # pid namespace
    joins: dict[str, str] = {}  # noqa: RUF012
    devices: tuple[DeviceNode, ...] = ()  # requested by the user
    host_devices: tuple[DeviceNode, ...] = ()  # of the host's /dev, for a privileged container
    disks: dict[str, Disk] = {}  # noqa: RUF012 (path of a device in a limit -> its disk)
    network: Network = DEFAULT_NETWORK  # of the bridge, as it is or would be created
    networks: dict[str, Network] = {}  # noqa: RUF012 (name -> a network that the specification names)
    capabilities: int = 0  # mask of the capabilities of this process
    landlock: int = 0  # version of its ABI, where the container asks for it
    no_time: str = ""  # why no time namespace can be made, "" if one can
    # where sysbox is in a user namespace itself, and so may make no device nodes: the map of its groups
    gids: tuple[IdMap, ...] = ()
    apparmor: AppArmor = AppArmor()  # what the host can give


def make_plan(
    record: Record, resolved: Resolved, around: Surroundings, facts: HostFacts, service: str = ""
) -> Plan:
    """The plan of one start; `service` is the unit of the supervisor, "" without one.

    Raises SpecError, UsageError, Unsupported, naming the flag, the value and the reason.
    """
    spec = record.spec
    mode = systemd_plan.decide(record)
    properties, writes = plan_limits(spec.limits, facts, around.disks)
    if spec.limits.ip_allow or spec.limits.ip_deny:
        from sysbox.units.limits import network  # few containers need it

        network.check_links(spec.limits, facts, spec.namespaces.network)
    scope = scopeplan.plan_scope(
        record.id,
        spec,
        properties=properties,
        writes=writes,
        devices=_device_rules(spec, around),
        facts=facts,
        disks=around.disks,
        service=service,
        tuned=record.tuned,
        oom_policy=spec.limits.oom_policy or mode.oom_policy,
    )
    return Plan(
        id=record.id,
        scope=scope,
        namespaces=_namespaces(record, around),
        root=_root(record, resolved, around, facts, mode),
        network=plan_network(record.id, spec, around.network, around.networks),
        process=_process(record, resolved, around, facts, mode),
    )


def _device_rules(spec: ContainerSpec, around: Surroundings) -> tuple[tuple[str, str], ...] | None:
    """The scope's DeviceAllow= rules; None for a privileged container, which may use every device."""
    if spec.security.privileged:
        return None
    found = devices.rules_of(around.devices)
    if not spec.limits.device_rules:
        return found
    from sysbox.security import device_rules  # few containers need it

    return (*found, *device_rules.rules(spec.limits.device_rules))


def _namespaces(record: Record, around: Surroundings) -> NamespacePlan:
    spec = record.spec
    joins, decided = around.joins, clocks.decide(spec, around.no_time)
    asked = {
        "ipc": spec.namespaces.ipc,
        "uts": spec.namespaces.uts,
        "user": spec.namespaces.user,
        "time": decided.mode,
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
        clocks=decided,
        uids=record.uids,
        gids=record.gids,
    )


def _ipc_owner(spec: ContainerSpec, joins: dict[str, str]) -> str:
    """Path of the mount namespace with the /dev/shm that belongs to a shared IPC namespace, or ""."""
    shared = spec.namespaces.ipc.startswith("container:")
    return joins["ipc"].removesuffix("ipc") + "mnt" if shared else ""


def _root(
    record: Record, resolved: Resolved, around: Surroundings, facts: HostFacts, mode: Mode
) -> RootPlan:
    spec = record.spec
    operations = plan_operations(
        spec,
        usr_bind=resolved.usr_bind,
        directory=record.directory,
        volumes=around.volumes,
        marks=around.marks,
        protect=_protection(spec, around, facts, mode),
        ipc_owner=_ipc_owner(spec, around.joins),
        proc_owner=around.joins.get("proc", ""),
        before=mode.before,
        after=(*_notify(spec), *mode.after, *_private(record)),
    )
    options: tuple[tuple[str, str], ...] = ()
    if facts.selinux and record.mount_label:
        from sysbox.fs import labelled  # few hosts have SELinux

        operations, options = labelled.plan(operations, spec, record.mount_label)
    operations = mapped.own_maps(operations, record.uids, record.gids)
    mapped.check_user(operations, resolved.user)
    outside: tuple[Operation, ...] = ()
    if record.uids:
        outside, operations = mapped.split(operations, record.uids, record.gids)
    return RootPlan(
        driver=resolved.driver,
        layers=resolved.layers,
        directory=record.directory,
        volatile=spec.remove,
        outside=outside,
        options=options,
        operations=operations,
        late=_late(spec, facts, mode),
        booted=mode.active,
        sockets=tuple(one.target for one in operations if isinstance(one, Socket)),
    )


def _late(spec: ContainerSpec, facts: HostFacts, mode: Mode) -> tuple[Operation, ...]:
    # once more, since the cgroup file systems have just been mounted over these
    masks = (one for one in spec.security.mask if f"{one}/".startswith(f"{CGROUPS}/"))
    return (*plan_cgroups(spec, facts, systemd=mode.active), *(Mask(target=one) for one in masks))


def _private(record: Record) -> tuple[Operation, ...]:
    spec = record.spec
    if not spec.secrets and not spec.credentials:
        return ()
    from sysbox.fs import private  # few containers need it

    secrets = private.plan_secrets(spec, record.uids, record.gids)
    return (*secrets, *private.plan_credentials(spec))


def _notify(spec: ContainerSpec) -> tuple[Operation, ...]:
    if spec.ready != "container":
        return ()
    from sysbox.fs.notify import plan_notify  # few containers need it

    return plan_notify(spec)


def _protection(
    spec: ContainerSpec, around: Surroundings, facts: HostFacts, mode: Mode
) -> Protection:
    masked, read_only = paths.plan(spec.security, facts.cpus)
    hosts = (one for one in around.host_devices if not (mode.active and devices.is_console(one)))
    nodes = devices.nodes_of(around.devices, hosts)
    return Protection(
        masked=masked,
        read_only=(*read_only, *mode.read_only),
        proc_options=_proc_options(spec, around),
        directories=tuple(
            Directory(target=above)
            for above in dict.fromkeys(node.path.rpartition("/")[0] for node in nodes)
            if above != "/dev"
        ),
        nodes=tuple(_node(node, around) for node in nodes),
        links=tuple(Link(target=path, text=text) for path, text in devices.DEFAULT_LINKS),
        syslog=plan_syslog(spec, booted=mode.active),
    )


def _node(node: DeviceNode, around: Surroundings) -> Node | Bind:
    if around.gids:
        # read-only: its mode and its owner cannot be changed by the container, and writing to the device can
        return Bind(
            source=node.source or node.path,
            target=node.path,
            attributes=MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC,
            recursive=False,
            node=True,
        )
    return Node(
        target=node.path, kind=node.kind, major=node.major, minor=node.minor,
        mode=node.mode, uid=node.uid, gid=node.gid,
    )  # fmt: skip


def _proc_options(spec: ContainerSpec, around: Surroundings) -> tuple[tuple[str, str], ...]:
    options = spec.security.proc_options
    if options and "proc" in around.joins:
        raise SpecError(
            f"--security-opt proc-opts={','.join(options)}: /proc is that of --pid {spec.namespaces.pid}",
            hint="leave out --pid or proc-opts=",
        )
    pairs = (one.partition("=") for one in options)
    return tuple((name, value) for name, _, value in pairs)


def _process(
    record: Record, resolved: Resolved, around: Surroundings, facts: HostFacts, mode: Mode
) -> ProcessPlan:
    spec = record.spec
    if spec.namespaces.uts != "private" and (spec.hostname or spec.domainname):
        flag = "--hostname" if spec.hostname else "--domainname"
        raise SpecError(
            f"{flag} {spec.hostname or spec.domainname}: the UTS namespace is not the container's own",
            hint=f"leave out --uts or {flag}",
        )
    check_depth(resolved.workdir, "working directory")
    domain = (("kernel/domainname", spec.domainname),) if spec.domainname else ()
    groups = record.gids or around.gids
    return plan_process(
        record,
        resolved,
        Asked(argv=(INIT, *record.argv) if spec.init else record.argv, tty=spec.tty),
        mode,
        hostname=around.hostname,
        held=around.capabilities,
        landlock=around.landlock,
        label=record.process_label if facts.selinux else "",
        sysctls=(*sysctls.settings(spec.sysctls, spec.namespaces, groups), *domain),
    ).replace(apparmor=apparmor.decide(spec.security, around.apparmor, mounts=_mounts(mode)))


def _mounts(mode: Mode) -> bool:
    """Whether a systemd inside may mount."""
    return mode.active and "SYS_ADMIN" in mode.capabilities
