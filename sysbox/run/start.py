"""Start a created container, with the kernel and systemd working in parallel (docs/architecture.md, 2).

The parked child makes its root while PID 1 makes the scope and this process makes the link. Once PID 1 has
moved the child, that mounts its cgroups and enters its root while this process writes limits and the run (see
run/handshake.py). If a step fails, the child is killed and the other steps are undone.
"""

from __future__ import annotations

import _signal
import posix

from sysbox import scope
from sysbox.base.errors import KernelError, SysboxError
from sysbox.base.files import write_file
from sysbox.base.frozen import Frozen
from sysbox.base.undo import Undo
from sysbox.container import events, log_options, store
from sysbox.container.store import Runtime
from sysbox.host import probe
from sysbox.linux import cgroup, process, userns
from sysbox.linux.freezer import thaw_file
from sysbox.netns import links, topology
from sysbox.run import early_stop, identity_files, parent, supervisor
from sysbox.run.init import Inherited
from sysbox.run.planning import before_fork, plan_of, with_ids_of_its_own, with_labels
from sysbox.security import seccomp
from sysbox.units import journal, names
from sysbox.units.bus import Bus
from sysbox.units.cgroup import delegation, freezer, tree
from sysbox.units.limits import bandwidths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sysbox.container.process_plan import ProcessPlan
    from sysbox.container.store import Record
    from sysbox.host import HostFacts
    from sysbox.netns.attachment import Attachment
    from sysbox.plan import Plan
    from sysbox.run.cgroup_watch import OutOfMemory, Reports
    from sysbox.run.parent import Parked
    from sysbox.run.resolver_units import Place
    from sysbox.run.stdio import Streams
    from sysbox.spec import Port
    from sysbox.units.machine import Machine


class Started(Frozen):
    """A container whose command runs."""

    pid: int
    pidfd: int
    terminal: int  # the master of its terminal, or -1
    oom: OutOfMemory
    oom_policy: str  # continue, stop, kill: what happens to the rest
    reports: Reports | None
    thaw: tuple[str, str]  # a file, and what thaws the container when it is written there
    bus: Bus  # to systemd; the caller may go on using it
    start_jobs: tuple[str, ...]  # of the scope: the paths of systemd's jobs
    link: str = ""  # the host's end of its link to its first network
    held: Bus | None = None  # keeps the scope's unit loaded until it is closed: see run/traffic.py
    longest: int = 0  # RuntimeMaxSec= of its scope, microseconds; 0 for none


class RecordedFailure:
    """The steps of a start before there is a run: a failure is recorded, as of phase "plan".

    The caller holds the container's lock.
    """

    def __init__(self, record: Record) -> None:
        self._record = record

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if not isinstance(error, Exception):
            return
        from sysbox.run import exit_record

        runtime = store.runtime(self._record.id)
        if runtime is None or not runtime.alive():
            store.write_final(self._record, exit_record.of_start(self._record, error, "plan"))
            # it was written for the back-off: `settle` would take it for a run whose end no process saw
            store.remove_run(self._record)


def bring_up(
    record: Record,
    streams: Streams,
    meanwhile: Callable[[], None],
    *,
    service: str = "",
    size: bytes = b"",
    plan: Plan | None = None,
) -> Started:
    """Start the container; the caller holds its lock, and is its supervisor from now on.

    `size` is a struct winsize, of the terminal that will show the container's. `plan` is made if not given.
    `meanwhile` imports, while the child executes its command, what the caller needs only once that runs.
    Raises SysboxError; the container is then as it was before, with the reason in its record.
    """
    facts = probe()
    with RecordedFailure(record):
        if plan is None:
            record = with_labels(with_ids_of_its_own(record))
            plan = plan_of(record, facts, service)
        filtered = _filter(record, plan.process)
        private = before_fork(record, plan)
    runtime = _claim(record, plan)
    with Undo() as undo:
        undo.add(lambda error: _record_failure(record, runtime, error))
        undo.add(lambda _: streams.close())
        _ensure_pod(record)
        freezer.check_not_frozen(runtime.cgroup, facts)
        placement = tree.split_writes(runtime.cgroup, plan.scope.writes, facts)[0]
        inherited = _inherited(
            plan, streams, size=size, seccomp=filtered, placement=placement, private=private
        )
        with parent.park(inherited, parent.listening(record, filtered)) as parked:
            streams.close_child_ends()
            bus = Bus.connect()
            if not service:
                bus.watch("JobNew")  # for run/stop_requests.py
            logged = streams.log is not None
            return _set_going(bus, record, plan, parked, runtime, meanwhile, logged=logged)


def _filter(record: Record, planned: ProcessPlan) -> seccomp.Filter | None:
    bounding = planned.capabilities.bounding
    return seccomp.filter_for(record.spec.security, bounding, apparmor=planned.apparmor)


def _ensure_pod(record: Record) -> None:
    if record.spec.pod:
        from sysbox.run import pods  # few containers are in one

        pods.ensure(record)


def _inherited(plan: Plan, streams: Streams, **more: Any) -> Inherited:
    return Inherited(
        plan=plan,
        stdio=(streams.child[0], streams.child[1], streams.child[2]),
        owned=tuple(streams.owned),
        sockets=streams.open_sockets(plan.root.sockets, plan.process.label),
        **more,
    )


def _set_going(
    bus: Bus,
    record: Record,
    plan: Plan,
    parked: Parked,
    runtime: Runtime,
    meanwhile: Callable[[], None],
    *,
    logged: bool,
) -> Started:
    facts = probe()
    with Undo() as undo:
        undo.add(lambda _: bus.close())
        attachments, ports, jobs, place = _surround(bus, record, plan, parked, undo, logged=logged)
        held = _write_limits(bus, record, plan, runtime.replace(networks=attachments))
        # before the command runs: it may end before its cgroup is read; with --rm its usage is not kept
        oom, used = _watched(runtime.cgroup, facts, used=not record.spec.remove)
        runtime = runtime.replace(started_ns=store.now_ns(), networks=attachments, ports=ports)
        if not plan.namespaces.joins_pid:
            _note(record, runtime, parked)
        # the child has inherited the value of the caller
        process.set_oom_score_adj(parked.pid, plan.process.oom_score_adj)
        terminal = _release(record, plan, parked, meanwhile, place)
        if plan.namespaces.joins_pid:
            # born only now
            _note(record, runtime, parked)
    return Started(
        pid=parked.pid, pidfd=parked.pidfd, terminal=terminal, oom=oom,
        oom_policy=[one.value for one in plan.scope.properties if one.name == "OOMPolicy"][-1],
        reports=used, thaw=thaw_file(facts, runtime.cgroup), bus=bus, start_jobs=jobs,
        link=attachments[0].host_link if attachments else "", held=held,
        longest=sum(one.value for one in plan.scope.properties if one.name == "RuntimeMaxUSec"),
    )  # fmt: skip


def _watched(cgroup: str, facts: HostFacts, *, used: bool) -> tuple[OutOfMemory, Reports | None]:
    from sysbox.run import cgroup_watch  # while the child makes its root

    return cgroup_watch.kills_in(cgroup, facts), (
        cgroup_watch.usage_of(cgroup, facts) if used else None
    )


def give_up_on_failure(record: Record, started: Started) -> Undo:
    """A context for what this process does for a container that it has started: a failure gives it up."""
    undo = Undo()
    undo.add(lambda _: supervisor.release_signals())
    undo.add(lambda error: give_up(record, started, error))
    return undo


def give_up(record: Record, started: Started, error: BaseException) -> None:
    """End a container that this process has started and cannot supervise, and record that; `error` is why.

    At once, whatever else fails: a later removal would wait for the supervisor, which is this process.
    The caller does not hold its lock.
    """
    try:
        process.send(started.pidfd, _signal.SIGKILL)
    except SysboxError:
        pass  # ignoring: `parent.destroy` sends it again
    thaw(started)
    status = parent.destroy(started.pid, started.pidfd)
    try:
        from sysbox.run import exit_record
        from sysbox.run.exit import settle

        if status is None:
            settle(record.id, force=True)
        else:
            ended = supervisor.ended_of(status).replace(error=exit_record.reason(error))
            settle(record.id, ended)
    except (SysboxError, OSError, ImportError):
        pass  # ignoring: why it was given up is the better message, and `gc` finds the run


def thaw(started: Started) -> None:
    """Thaw the container if it is paused; a signal that was sent before takes effect first."""
    path, text = started.thaw
    directory, _, file = path.rpartition("/")
    try:
        cgroup.write(directory, file, text)
    except KernelError:
        pass  # ignoring: there is no such freezer, or the cgroup has just been removed


def _note(record: Record, runtime: Runtime, parked: Parked) -> None:
    """Record the pid and start time of its first process, and name it on its networks."""
    start = process.start_time(parked.pid)
    runtime = runtime.replace(pid=parked.pid, start_time=start)
    store.write_runtime(record, runtime)
    if any(one.dns for one in runtime.attachments()):
        from sysbox.run import resolver_units

        resolver_units.publish(record, runtime)


def machine_of(record: Record, started: Started) -> Machine:
    """The machine by which machined knows the container."""
    from sysbox.units.machine import Machine

    return Machine(
        name=record.name,
        id=record.id,
        leader=started.pid,
        start_time=process.start_time(started.pid),
        link=started.link,
    )


def _claim(record: Record, plan: Plan) -> Runtime:
    """Record that a start is going on: from here on `gc` can detect that it was interrupted."""
    runtime = Runtime(
        pid=0,
        start_time=0,
        supervisor=posix.getpid(),
        supervisor_start=process.start_time(posix.getpid()),
        scope=plan.scope.unit,
        cgroup=names.in_slice(plan.scope.slice, plan.scope.unit),
    )
    store.write_runtime(record, runtime)
    identity_files.make(record, plan)
    return runtime


def _write_limits(bus: Bus, record: Record, plan: Plan, runtime: Runtime) -> Bus | None:
    """Write the limits that have no unit property, in the cgroups that systemd has made; `Started.held`."""
    facts = probe()
    writes = tree.split_writes(runtime.cgroup, plan.scope.writes, facts)[1]
    tree.apply_writes(writes, runtime.cgroup, facts)
    if plan.root.booted:
        delegation.bound_descendants(runtime.cgroup, facts)
        if plan.namespaces.uids:
            root = userns.root_of(plan.namespaces.uids, plan.namespaces.gids)
            delegation.give(runtime.cgroup, facts, root)
    bandwidths.protect(plan.scope.unit, plan.scope.properties)
    if any(one.file.endswith("weight_device") for one in writes):
        from sysbox.run import disk_weights  # which few containers need

        disk_weights.keep(bus, plan.scope.unit, runtime.cgroup, writes, facts)
    if not any(one.name.startswith("IPA") for one in plan.scope.properties):
        return None
    from sysbox.run import traffic  # which few containers need

    return traffic.begin(bus, record, plan.scope, runtime.networks, runtime.cgroup)


def _surround(
    bus: Bus, record: Record, plan: Plan, parked: Parked, whole: Undo, *, logged: bool
) -> tuple[tuple[Attachment, ...], tuple[Port, ...], tuple[str, ...], Place | None]:
    """Its scope, and its links: these with their addresses, the published ports, the scope's start jobs, and
    its place among the names of its networks, which `whole` undoes.
    """

    def free_name() -> None:
        from sysbox.run import name_hold

        name_hold.free_scope_name(bus, record.id)

    if plan.namespaces.uids:
        parked.await_child()  # 0
    # PID 1 needs a while: it is asked at once, and waited for last
    pending = scope.begin(bus, plan.scope, (parked.pid,), free_name)
    with Undo() as undo:
        # a scope that started after the unwinding would belong to no run
        undo.add(lambda _: pending.abandon())
        if logged:
            fields = log_options.fields(record, plan.process.image_env)
            journal.write_fields(plan.scope.unit, fields, record.spec.logging)
        # a privileged container could do to the host whatever the filter keeps from its neighbours
        filtered = not record.spec.security.privileged
        place = None
        if any(one.dns for one in plan.network.attachments):
            from sysbox.run import resolver_units

            # PID 1 makes what answers about names while this process makes the links
            place = resolver_units.reserve(bus, record.id, plan.network.attachments, whole)
        attachments, ports = _connect(plan, parked, filtered=filtered)
        addresses = tuple(f"{one.address} {one.address6}".rstrip() for one in attachments)
        if place:
            place.take()
        identity_files.write(record, plan, " ".join(addresses))
        pending.wait(done=lambda: parked.scoped(addresses))  # 2
    return attachments, ports, pending.jobs, place


def _release(
    record: Record, plan: Plan, parked: Parked, meanwhile: Callable[[], None], place: Place | None
) -> int:
    """Let it run its command; the master of its terminal, or -1."""
    if place:
        # its first instruction may ask for a name
        place.wait()
    supervisor.hold_signals()
    terminal = parked.await_console() if plan.process.tty else -1  # 3
    parked.proceed()  # 4
    # while the child goes on
    event = events.of_container("start", record)
    meanwhile()
    if plan.namespaces.joins_pid:
        parked.await_birth()
    parked.await_exec()  # 5
    if record.spec.pidfile:
        write_file(record.spec.pidfile, f"{parked.pid}\n".encode(), 0o644)
    events.send(event)
    return terminal


def _connect(
    plan: Plan, parked: Parked, *, filtered: bool
) -> tuple[tuple[Attachment, ...], tuple[Port, ...]]:
    """The container's links, addresses and rules; ((), ()) without a network of its own."""
    network = plan.network
    if not network.attachments:
        parked.await_namespaces()  # 1
        return (), ()
    # only now: the child makes its root meanwhile, and PID 1 the scope
    from sysbox.netns import members, port_filter

    attached, bridges = members.join(network)
    parked.await_namespaces()  # 1
    links.connect(network, parked.pid, bridges=bridges)
    if filtered:
        port_filter.install(attached)
    one = topology.publishing(attached)
    if one is None or not network.ports:
        return attached, ()
    from sysbox.netns import firewall  # few containers publish ports

    return attached, firewall.publish(network, one.address, one.address6)


def _record_failure(record: Record, runtime: Runtime, error: BaseException) -> None:
    # `unwind` may ask for a stop of the scope, and systemd then stops the service, which this process may be:
    # that must not end the start in place of the error
    early_stop.hold()
    try:
        from sysbox.run import exit_record
        from sysbox.run.teardown import unwind

        unwind(record, runtime, failed=True)
        store.write_final(record, exit_record.of_start(record, error))
        store.remove_run(record)
    except (SysboxError, OSError, ImportError):
        pass  # ignoring: why the start failed is the better message, and `gc` finds the run
