"""Bring a pod up and take it down: its slice, namespaces, addresses, ports, names; and what members need.

Whoever does either holds the pod's lock. state.json is written first and removed last, so that what an
interrupted one has left is known, and the next one, or `sysbox gc`, takes it down.
"""

from __future__ import annotations

from sysbox.base.errors import Conflict, FormatError, NotFound, SysboxError
from sysbox.base.files import remove_tree, write_file
from sysbox.base.undo import Undo
from sysbox.container import pods, store
from sysbox.container.pods import PodRun
from sysbox.host import probe
from sysbox.linux import process, userns
from sysbox.netns import dns, firewall, links, members, port_filter, topology
from sysbox.netns import names as name_files
from sysbox.netns.network import BRIDGE
from sysbox.run import identity_files, planning, pod_slice, resolver_units
from sysbox.run.pod_spaces import Parked, Spaces, are_kept, let_go
from sysbox.run.teardown import disconnect
from sysbox.security import sysctls
from sysbox.units.bus import Bus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.pods import Pod
    from sysbox.container.store import Record
    from sysbox.netns.attachment import Attachment
    from sysbox.netns.topology import NetPlan
    from sysbox.spec import Port

_FOR_EVER = 1  # a pod has no process of its own: its names count as long as this one runs


def ensure(record: Record) -> None:
    """Bring the pod of a container up, if it is not, for a start of the container whose run is recorded.

    From then on the run keeps the pod up. The caller holds the container's lock. Raises Conflict where the
    pod is gone, and what `bring_up` raises.
    """
    name = record.spec.pod
    with pods.Lock(name):
        try:
            bring_up(pods.load(name), record.id)
        except NotFound:
            raise Conflict(
                f"the pod {name} of container {record.name} was removed",
                hint="make the container again, in another pod",
            ) from None


def bring_up(pod: Pod, starting: str = "") -> PodRun:
    """Bring a pod up that may be up already, for the container `starting`; the caller holds its lock.

    Raises Conflict for addresses, ports and links that are taken, NotFound for a network that is gone,
    SpecError, StartError, SystemdError, KernelError. It is down then, as before.
    """
    pod_slice.ensure(pod)
    run = pods.run_of(pod.name)
    if run and run.ready and are_kept(pod.directory, pod.kinds):
        return run
    if run:
        if users := [one for one in running(pod.name) if one != starting]:
            raise Conflict(
                f"the namespaces of pod {pod.name} are not in {pod.directory} any more",
                hint=f"stop its containers first, such as {users[0][:12]}",
            )
        take_down(pod.name, pod.id)
    with Undo() as undo:
        undo.add(lambda _: take_down(pod.name, pod.id))
        pods.write_run(pod.name, PodRun(id=pod.id))
        return _made(pod, undo)


def net_plan(pod: Pod) -> NetPlan:
    """What is planned of its network. Raises SpecError, NotFound."""
    default, named = planning.networks_around(pod.spec)
    return topology.plan_network(pod.id, pod.spec, default, named)


def spaces_of(pod: Pod, plan: NetPlan) -> Spaces:
    """The namespaces to make. Raises SpecError for a kernel parameter that is not one of theirs."""
    spec = pod.spec
    asked = spec.namespaces
    own = asked.replace(
        network=asked.network if "network" in pod.kinds else "host",
        ipc="private" if "ipc" in pod.kinds else "host",
        uts="private" if "uts" in pod.kinds else "host",
    )
    groups = pod.gids or (() if userns.is_initial() else userns.read_maps()[1])
    return Spaces(
        directory=pod.directory,
        kinds=pod.kinds,
        network=plan,
        uids=pod.uids,
        gids=pod.gids,
        hostname=pod.hostname,
        domainname=spec.domainname,
        sysctls=sysctls.settings(spec.sysctls, own, groups),
        shm_size=spec.shm_size if "ipc" in pod.kinds else 0,
    )


def _made(pod: Pod, undo: Undo) -> PodRun:
    plan = net_plan(pod)
    spaces = spaces_of(pod, plan)
    if spaces.shm_size and probe().selinux:
        from sysbox.run import labels  # few hosts have SELinux

        spaces = spaces.replace(options=labels.of_pod(pod))
    with Parked(spaces) as parked, Bus.connect() as bus:
        place = None
        if any(one.dns for one in plan.attachments):
            place = resolver_units.reserve(bus, pod.id, plan.attachments, undo)
        attached, ports = _connect(plan, parked)
        if place:
            place.take()
        parked.configure(tuple(f"{one.address} {one.address6}".rstrip() for one in attached))
        parked.keep()
        _write_files(pod, attached)
        _publish(pod, attached)
        if place:
            place.wait()
    run = PodRun(
        id=pod.id, ready=True, started_ns=store.now_ns(), networks=attached, ports=ports
    )  # fmt: skip
    pods.write_run(pod.name, run)
    return run


def _connect(plan: NetPlan, parked: Parked) -> tuple[tuple[Attachment, ...], tuple[Port, ...]]:
    if not plan.attachments:
        parked.await_namespaces()
        return (), ()
    attached, bridges = members.join(plan)
    parked.await_namespaces()
    links.connect(plan, parked.pid, bridges=bridges)
    port_filter.install(attached)
    one = topology.publishing(attached)
    if one is None:
        return attached, ()
    return attached, firewall.publish(plan, one.address, one.address6)


def _write_files(pod: Pod, attached: tuple[Attachment, ...]) -> None:
    """The files of which each container gets a copy when it starts."""
    spec = pod.spec
    ours = [one.gateway for one in attached if one.driver == BRIDGE]
    gateway = ours[0] if ours else "127.0.0.1"
    extra = tuple(entry.replace(":host-gateway", f":{gateway}") for entry in spec.add_hosts)
    addresses = " ".join(f"{one.address} {one.address6}".rstrip() for one in attached)
    full = identity_files.full_name(pod.hostname, spec)
    texts = {
        "hostname": f"{pod.hostname}\n",
        "hosts": dns.hosts_file(full, addresses, extra),
        "resolv.conf": identity_files.resolv_conf(spec, attached),
    }
    for name, text in texts.items():
        write_file(f"{pod.directory}/{name}", text.encode("utf-8", "surrogateescape"))


def _publish(pod: Pod, attached: tuple[Attachment, ...]) -> None:
    """Name it on its networks."""
    who = (_FOR_EVER, process.start_time(_FOR_EVER))
    name_files.publish(pod.id, (pod.name, pod.hostname), who, attached, pod.spec.dns.servers)


def take_down(name: str, pod_id: str) -> None:
    """Release all that a pod has while it is up; nothing is success. Its slice stays.

    The caller holds its lock, and none of its containers runs. Raises KernelError.
    """
    run = None
    try:
        run = pods.run_of(name)
    except FormatError:
        pass  # ignoring: the rest is known without it
    if run and run.ready:
        pods.write_run(name, run.replace(ready=False))
    let_go(pods.directory_of(name))
    for one in run.networks if run else ():
        if one.host_link:
            # a process that has got into the namespace from outside may still be there
            links.remove_link(one.host_link)
    disconnect(pod_id)
    remove_tree(pods.directory_of(name))


def running(name: str) -> list[str]:
    """The ids of its containers that run, start, or have yet to be recorded as ended."""
    found = []
    for container_id in pods.members(name):
        try:
            run = store.runtime(container_id)
        except FormatError:
            run = None
        if run is not None and (run.alive() or run.supervised()):
            found.append(container_id)
    return found


def ended(record: Record) -> None:
    """After the end of a container's run: with the exit policy `stop` the last one takes the pod down.

    One that systemd may start again keeps it up. The caller holds the container's lock.
    """
    name = record.spec.pod
    try:
        pod = pods.load(name)
        if pod.exit_policy != "stop":
            return
        if pod.unit:
            from sysbox.run import pod_ending

            pod_ending.begin(pod)
            return
        with pods.Lock(name):
            if not running(name) and not _comes_back(name):
                take_down(name, pod.id)
    except SysboxError:
        pass  # ignoring: the end of the container counts; `sysbox pod stop` takes the pod down


def _comes_back(name: str) -> bool:
    """Whether one of its containers has a restart policy, or is declared: systemd decides about these."""
    for container_id in pods.members(name):
        try:
            spec = store.load(container_id).spec
        except (FormatError, NotFound):
            continue
        if spec.restart.name != "no" or spec.unit:
            return True
    return False
