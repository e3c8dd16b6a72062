"""Make the plan of one start: from the container's record, its volumes and the containers it joins."""

from __future__ import annotations

import posix
import time

from sysbox.base.errors import Conflict, NotFound, SpecError
from sysbox.base.files import read_file, unlink
from sysbox.container import clocks, store
from sysbox.container.hostname import own_hostname
from sysbox.container.status import read_status
from sysbox.embedded import caller_root
from sysbox.fs import volumes
from sysbox.fs.rootfs import Bind
from sysbox.host import landlock_abi, probe, read_text
from sysbox.image.resolved import resolved_of
from sysbox.linux import capability, timens, userns
from sysbox.netns.topology import DEFAULT_NETWORK, network_of
from sysbox.plan import Surroundings, make_plan
from sysbox.run import apparmor
from sysbox.security import devices
from sysbox.spec import Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sysbox.container.store import Record
    from sysbox.fs.rootfs import Operation
    from sysbox.fs.secretfiles import Private
    from sysbox.host import HostFacts
    from sysbox.netns.network import Network
    from sysbox.plan import Plan
    from sysbox.spec import ContainerSpec
    from sysbox.units.limits.disks import Disks

_NO_LIMITS = Limits()
_SUBIDS = ("/etc/subuid", "/etc/subgid")


def plan_of(record: Record, facts: HostFacts, service: str = "") -> Plan:
    """The plan of one start. Raises what make_plan raises, Conflict if a container that it joins is gone."""
    around = surroundings_of(record, facts)
    plan = make_plan(with_volume_options(record), resolved_of(record), around, facts, service)
    if record.spec.ready == "container":
        from sysbox.run import notify  # few containers need it

        plan = notify.with_watchdog(plan)
    if b"LISTEN_FDS" in posix.environ:
        from sysbox.run import listen  # few containers need it

        plan = listen.with_variables(plan)
    return plan


def with_volume_options(record: Record) -> Record:
    """The record, with what the options of its volumes mean in place of these. Raises FormatError."""
    if not any(volumes.has_options(name) for name in record.volumes.values()):
        return record
    from sysbox.fs import volume_options  # few volumes have options

    return volume_options.applied(record)


def with_ids_of_its_own(record: Record) -> Record:
    """The record; with other ids, and saved, where another user has ids of its range by now.

    On disk the ids are those inside, so nothing there changes. The caller holds the container's lock. Raises
    Conflict where no other range is free, KernelError.
    """
    if not record.uids or not caller_root.changed_since(_SUBIDS, record.created_ns):
        return record
    from sysbox.container import id_ranges  # the files rarely change

    (uids, gids), old = id_ranges.move(record.id, (record.uids, record.gids))
    if old:
        record = record.replace(uids=uids, gids=gids)
        store.save(record)
        unlink(old)
    return record


def with_labels(record: Record) -> Record:
    """The record; with SELinux labels, and saved, where it was made without SELinux and there is one by now.

    The caller holds the container's lock. Raises SpecError, Conflict, KernelError.
    """
    if not probe().selinux and not record.spec.security.label:
        return record
    from sysbox.run import labels  # few hosts have SELinux

    return labels.current(record)


def surroundings_of(record: Record, facts: HostFacts) -> Surroundings:
    """What the plan needs to know of the host and of other containers. Raises SysboxError."""
    spec, names = record.spec, record.volumes
    network, named = networks_around(spec)
    # in a user namespace of its own the first process has every capability
    held = capability.grantable(own_namespace=bool(record.uids))
    _check_clocks(spec)
    return Surroundings(
        hostname=own_hostname(record),
        volumes={target: volumes.directory(name) for target, name in names.items()},
        marks={target: volumes.mark(name) for target, name in names.items()},
        joins=joins_of(record),
        devices=devices.resolve_devices(spec.devices),
        host_devices=devices.host_nodes() if spec.security.privileged else (),
        disks=_disks_of(spec, facts),
        network=network,
        networks=named,
        capabilities=held,
        landlock=landlock_abi() if spec.security.landlock else 0,
        no_time=timens.lack(held),
        gids=() if userns.is_initial() else userns.read_maps()[1],
        apparmor=apparmor.look(facts, spec.security.apparmor),
    )


def networks_around(spec: ContainerSpec) -> tuple[Network, dict[str, Network]]:
    """(the network `bridge`, the other networks of a specification by name). Raises NotFound, FormatError."""
    if spec.namespaces.network != "bridge":
        return DEFAULT_NETWORK, {}
    names = [one.network for one in spec.networks] or [DEFAULT_NETWORK.name]
    default = DEFAULT_NETWORK
    if default.name in names:
        names.remove(default.name)
        default = network_of(spec.bridge, read_text("/proc/net/route"))
    if not names:
        return default, {}
    from sysbox.netns import networks  # only these containers need it

    return default, {name: networks.load(name) for name in names}


def _disks_of(spec: ContainerSpec, facts: HostFacts) -> Disks:
    if spec.limits == _NO_LIMITS and not spec.properties:
        return {}
    from sysbox.units.cgroup import blockdev  # which few containers need

    return blockdev.disks_of(spec, facts)


def before_fork(record: Record, plan: Plan) -> Private | None:
    """The values that the container gets and nothing that is written down has. Raises SysboxError.

    Imports what the child, which imports nothing itself, needs for the root, and loads its AppArmor profile.
    """
    import_for_mounts(plan.root.operations)
    if plan.process.apparmor:
        apparmor.ensure(plan.process.apparmor)
    spec = record.spec
    if plan.root.options and any({"z", "Z"} & {*one.options} for one in spec.mounts):
        from sysbox.fs import relabel  # few hosts have SELinux

        relabel.volumes(record, plan.root.operations, fully=store.final(record.id) is None)
    if not spec.secrets and not spec.credentials:
        return None
    from sysbox.container import secrets  # few containers need it
    from sysbox.fs import private, secretfiles
    from sysbox.units import credstore

    files = {
        private.key_of_secret(one.name): secrets.value_of(one.name)
        for one in spec.secrets
        if one.kind == "mount"
    }
    variables = secrets.variables(spec.secrets)
    return secretfiles.Private(files, variables, credstore.collect(spec.credentials))


def import_for_mounts(operations: Iterable[Operation]) -> None:
    """Import what the child, which imports nothing itself, needs for new volumes and maps of mounts."""
    for one in operations:
        if isinstance(one, Bind):
            if one.mark and read_file(one.mark, 16):
                import sysbox.fs.copyup
            if one.uids:
                import sysbox.fs.idmounts  # noqa: F401


def _check_clocks(spec: ContainerSpec) -> None:
    """Raises SpecError for a clock that would be below zero, which the kernel refuses (ERANGE)."""
    for clock, offset in spec.time_offset.items():
        now = time.clock_gettime_ns(timens.CLOCKS[clock])
        if now + offset < 0:
            raise SpecError(
                f"--time-offset {clock}=-{-offset // 10**9}s: the clock would be below zero",
                hint=f"at most {now // 10**9} seconds can be taken off now",
            )


def joins_of(record: Record) -> dict[str, str]:
    """The paths of the namespaces to join, by kind. Raises Conflict if their container does not run."""
    joins: dict[str, str] = {}
    asked = record.namespaces
    modes = {
        kind: getattr(asked, kind) for kind in ("user", "network", "pid", "ipc", "uts", "cgroup")
    }
    modes["time"] = clocks.shared(record.spec)
    if asked.time == "auto" and not timens.has_kernel():
        modes["time"] = ""
    for kind, mode in modes.items():
        if mode.startswith("ns:"):
            joins[kind] = mode[3:]
        elif mode.startswith("container:"):
            joins[kind] = f"/proc/{_running_pid(mode[10:])}/ns/{_FILES.get(kind, kind)}"
    if "pid" in joins:
        process = f"/proc/{_process_in(joins['pid'])}/ns"
        joins["proc"] = f"{process}/mnt"
        if modes["time"] == clocks.OF_PROCESS:
            joins["time"] = f"{process}/time"
    return joins


def _process_in(path: str) -> int:
    """A process in the pid namespace at `path`: the one that the path names, else the first one found.

    Raises SpecError when nothing runs there.
    """
    parts = path.split("/")
    if (
        len(parts) == 5
        and parts[1] == "proc"
        and parts[2].isdecimal()
        and parts[3:] == ["ns", "pid"]
    ):
        return int(parts[2])
    try:
        wanted = posix.stat(path).st_ino
    except OSError as error:
        raise SpecError(
            f"cannot join the pid namespace {path}: {posix.strerror(error.errno or 0)}"
        ) from None
    for name in sorted(filter(str.isdecimal, posix.listdir("/proc")), key=int):
        try:
            if posix.stat(f"/proc/{name}/ns/pid").st_ino == wanted:
                return int(name)
        except OSError:
            continue  # it has ended, or is a kernel thread
    raise SpecError(
        f"cannot join the pid namespace {path}: no process is in it",
        hint="a pid namespace ends with its first process",
    )


_FILES = {"network": "net"}


def _running_pid(container_id: str) -> int:
    try:
        other = store.find(container_id)
    except NotFound:
        raise Conflict(
            f"container {container_id[:12]}, whose namespace it shares, has been removed",
            hint="it cannot share another one's: make it again",
        ) from None
    status = read_status(other)
    if status.state not in ("running", "paused"):
        raise Conflict(
            f"container {other.name}, whose namespace it shares, is not running",
            hint=f"`sysbox start {other.name}`",
        )
    return status.pid
