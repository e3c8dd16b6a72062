"""`sysbox update`: change the limits of a container, on its running scope and in its record.

The record has what was asked, so it is written once the scope has changed; if the kernel refuses a value,
the scope is changed back. What others have set with `systemctl set-property` is replaced only by a value for
the same limit.
"""

from __future__ import annotations

import errno
import posix

from sysbox import scope
from sysbox.base.errors import KernelError, NotFound, SysboxError
from sysbox.base.undo import Undo
from sysbox.container import store
from sysbox.container.locks import Lock
from sysbox.host import probe
from sysbox.lifecycle import update_plan
from sysbox.linux import _sys, cgroup, namespace, process
from sysbox.netns import topology
from sysbox.run import disk_weights, helper, planning, property_changes, tuned
from sysbox.run.frozen_while import FrozenWhile
from sysbox.units.bus import Bus
from sysbox.units.cgroup import blockdev, tree
from sysbox.units.limits import bandwidths, dropins, readback, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.store import Record, Runtime
    from sysbox.host import HostFacts
    from sysbox.lifecycle.update_plan import Change, Delta
    from sysbox.spec import Ulimit
    from sysbox.units.limits.disks import Disks
    from sysbox.units.limits.properties import Property

_INTERFACE = scope.INTERFACES[".scope"]


def update(record: Record, change: Change) -> tuple[str, ...]:
    """Change a container, running or not; returns the flags that take effect at its next start only.

    Raises SysboxError; the container is then as before.
    """
    with Lock(record.id):
        record = store.load(record.id)
        runtime = store.runtime(record.id)
        running = runtime is not None and bool(runtime.started_ns) and runtime.alive()
        facts = probe()
        if running:
            record = tuned.harvest(record)
            property_changes.apply_newest(record, facts)  # the monitor may not have done so yet
        about = update_plan.touched(change, facts)
        disks = blockdev.look(update_plan.paths(record.spec, change, facts))
        after = record.replace(
            spec=update_plan.change_spec(record.spec, change, facts, disks),
            tuned={} if change.forget else dropins.without(record.tuned, about, facts),
            updated=_updated(record, change),
        )
        if change.bandwidth:
            _check_shaped(after, runtime if running else None)
        if running and runtime is not None:
            # frozen: a process that is just being forked has its parent's limits, and is not listed yet
            with FrozenWhile(record, wanted=bool(change.ulimits)), Undo() as undo:
                if change.bandwidth:
                    _shape(record, after, runtime, undo)
                _apply(record, after, about, runtime, facts, disks)
                _limit_processes(runtime, change.ulimits, facts, mapped=bool(record.uids))
        else:
            # what cannot be started is not written down
            update_plan.wanted(after.spec, {}, facts, disks)
        store.save(after)
    return update_plan.at_next_start(change, facts) if running else ()


def _shape(before: Record, after: Record, runtime: Runtime, undo: Undo) -> None:
    """Change the limits of its links; `undo` changes them back. Raises KernelError."""
    from sysbox.netns import shaping  # few containers have such a limit

    ends = shaping.ends(before.id, runtime.attachments())
    was, now = before.spec.bandwidth, after.spec.bandwidth

    both = now.replace(up=now.up or was.up, down=now.down or was.down)

    def change_back(_: BaseException) -> None:
        try:
            shaping.limit(before.id, ends, was, now)
            store.save(before)
        except SysboxError:
            pass  # ignoring: why the change failed is the better message

    undo.add(change_back)
    # before there are devices: if this command is killed, the end of the run removes what the record names
    store.save(before.replace(spec=before.spec.replace(bandwidth=both)))
    shaping.limit(before.id, ends, now, was)


def _check_shaped(after: Record, runtime: Runtime | None) -> None:
    """Raises SpecError if one of the container's networks has links that cannot be limited."""
    if runtime is not None:
        topology.check_shaped(after.spec, runtime.attachments())
        return
    try:
        topology.plan_network(after.id, after.spec, *planning.networks_around(after.spec))
    except NotFound:
        pass  # ignoring: the network was removed, which the next start says


def _updated(record: Record, change: Change) -> dict[str, int]:
    now = store.now_ns()
    said = [*change.fields, *(key for key, _ in change.properties)]
    said += [
        f"ulimit {name}" for name in (*change.no_ulimits, *(one.name for one in change.ulimits))
    ]
    return record.updated | dict.fromkeys(said, now)


def _apply(
    before: Record,
    after: Record,
    about: frozenset[str],
    runtime: Runtime,
    facts: HostFacts,
    disks: Disks,
) -> None:
    was, will = (before.spec, before.tuned), (after.spec, after.tuned)
    tuning = tuned.tuning(tuned.drop_ins(before.id), facts, about | before.tuned.keys())
    there = update_plan.delta(was, will, about, tuning, disks)
    with Bus.connect() as bus:
        try:
            _tell(bus, there, runtime, facts, check=True)
            _follow(bus, after, there, runtime)
        except SysboxError:
            back = update_plan.delta(will, was, about, tuning.replace(found={}), disks)
            _take_back(bus, before, back, runtime, facts)
            raise


def _follow(bus: Bus, record: Record, delta: Delta, runtime: Runtime) -> None:
    """Have the properties of its packets act. Raises SysboxError."""
    told = [one for one in delta.properties if one.name.startswith("IPA")]
    if told:
        from sysbox.run import packet_lists  # few containers have these

        packet_lists.follow(bus, record, runtime.attachments(), told, runtime.cgroup)


def _take_back(bus: Bus, record: Record, delta: Delta, runtime: Runtime, facts: HostFacts) -> None:
    try:
        _tell(bus, delta, runtime, facts, check=False)
        _follow(bus, record, delta, runtime)
    except SysboxError:
        pass  # ignoring: why the change failed is the better message, and `explain` shows what is left of it


def _tell(bus: Bus, delta: Delta, runtime: Runtime, facts: HostFacts, *, check: bool) -> None:
    """Set it on the scope. Raises SysboxError; with `check` also if a value that is read back differs."""
    early = tuple(one for one in delta.writes if one.before)
    late = tuple(one for one in delta.writes if not one.before)
    tree.apply_writes(early, runtime.cgroup, facts)
    if delta.properties:
        scope.set_properties(bus, runtime.scope, delta.properties)
        # the reply says that the change is queued; the next reply comes after it was made
        scope.active_state(bus, runtime.scope)
        bandwidths.protect(runtime.scope, delta.properties)
        if check:
            _verify(bus, delta.properties, runtime, facts)
    tree.apply_writes(late, runtime.cgroup, facts)
    disk_weights.keep(bus, runtime.scope, runtime.cgroup, late, facts)
    for one in delta.writes if check else ():
        drift = readback.write_drift(one, runtime.cgroup, facts)
        if drift:
            raise SysboxError(f"{one.file}: the kernel has not taken it: {drift}")


def _verify(bus: Bus, told: tuple[Property, ...], runtime: Runtime, facts: HostFacts) -> None:
    """Read the properties back. Raises SysboxError if systemd or the kernel has another value."""
    set_now = {dropins.base_name(one.name): one for one in told}
    live = scope.properties(bus, runtime.scope, _INTERFACE, tuple(set_now))
    for name, one in set_now.items():
        if name == one.name and name in live and not dropins.same_value(live[name], one.value):
            raise SysboxError(
                f"{name}: systemd has {live[name]} after it was set to {one.value}",
                hint=f"`systemctl show {runtime.scope}` shows all of it",
            )
    for resource in table.TABLE:
        setting = resource.setting(facts)
        if setting.bus_name in set_now and setting.bus_name in live:
            drift = readback.drift(setting, live, runtime.cgroup, facts)
            if drift:
                raise SysboxError(
                    f"{resource.flag}: the kernel has not taken it: {drift}",
                    hint=readback.refusal_reason(
                        setting, runtime.cgroup, facts, live[setting.bus_name]
                    )
                    or "the journal of PID 1 has what the kernel said",
                )


def _limit_processes(
    runtime: Runtime, ulimits: tuple[Ulimit, ...], facts: HostFacts, *, mapped: bool
) -> None:
    """prlimit(2) on every process of the scope, which is frozen; their children inherit the limits.

    `mapped`: the container has a user namespace of its own. Raises SysboxError.
    """
    if not ulimits:
        return
    pids = cgroup.processes(cgroup.directory(facts, "name=systemd", runtime.cgroup))

    def limit() -> None:
        for pid in pids:
            for one in ulimits:
                process.set_rlimit_of(pid, one.name, one.soft, one.hard)

    def limit_inside() -> tuple[int, ...]:
        _sys.setns(inside, namespace.CLONE_NEWUSER)
        limit()
        return ()

    try:
        limit()
    except KernelError as error:
        if error.errno != errno.EPERM or not mapped:
            raise
        # without CAP_SYS_RESOURCE, which each process has in a user namespace that it enters
        inside = namespace.open_ns(runtime.pid, "user")
        try:
            helper.have_done("change the limits of its processes", limit_inside)
        finally:
            posix.close(inside)
