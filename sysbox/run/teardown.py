"""Release what a run had and the kernel does not free by itself; remove what a container had at rest.

It is one short list, the same after a failed start, after a normal end and for `sysbox gc`: every step
treats "already gone" as success.
"""

from __future__ import annotations

from sysbox import scope
from sysbox.base.errors import (
    SystemdError,
)
from sysbox.container import events, store
from sysbox.container.names import release_name
from sysbox.fs import volumes
from sysbox.host import exists, probe
from sysbox.linux.freezer import is_frozen
from sysbox.netns import names as name_files
from sysbox.run import tuned
from sysbox.spec import Bandwidth
from sysbox.units import journal, names, unit_file
from sysbox.units.bus import Bus
from sysbox.units.cgroup import freezer, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.store import Record, Runtime

_BRIEFLY = 0.5


def unwind(record: Record, runtime: Runtime, *, failed: bool = False, behind: bool = False) -> None:
    """Release what a run had. The kernel frees the rest: mounts, links and namespaces vanish with it.

    With `behind` a child may go on, for a process that is about to exit.
    """
    if failed or runtime.alive() or record.spec.namespaces.pid != "private":
        # without a pid namespace of its own, only the scope holds its other processes together
        stop_scope(runtime.scope, runtime.cgroup)
    tree.remove_cgroups(runtime.cgroup, probe())
    tuned.unwatch(record.id)
    if record.spec.unit:
        from sysbox.run import service_settings

        service_settings.unfollow(record)
    if record.spec.bandwidth != Bandwidth():
        from sysbox.netns import shaping  # few containers have a limit

        shaping.remove(record.id)
    if record.spec.namespaces.network == "bridge":
        disconnect(record.id, behind=behind)


def stop_scope(unit: str, cgroup: str = "") -> None:
    """Kill everything in a scope and wait until it is gone; no scope is success.

    `cgroup` is its path, if known: frozen processes in it are killed even without systemd.
    A stop job is not waited for: it comes after that of the service that supervises the scope, and the
    caller may be that service.
    """
    kill_frozen(cgroup)
    try:
        with Bus.connect() as bus:
            scope.kill(bus, unit, 9)
            if not cgroup:
                known = scope.properties(bus, unit, scope.INTERFACES[".scope"], ("ControlGroup",))
                kill_frozen(known.get("ControlGroup", ""))
            if not scope.await_inactive(bus, unit, _BRIEFLY):
                # on cgroup v1 systemd does not learn that the processes had ended before the scope was made
                scope.request_stop(bus, unit)
                scope.await_inactive(bus, unit, _BRIEFLY)
            scope.reset_failed(bus, unit)
    except SystemdError:
        pass  # ignoring: without systemd there is no scope, or it went away between the calls


def kill_frozen(cgroup: str) -> None:
    """Kill the processes of a frozen cgroup: on v1 they act on no signal before they are thawed."""
    if cgroup and is_frozen(probe(), cgroup):
        freezer.kill(cgroup, probe())


def discard(record: Record) -> None:
    """Remove a container that does not run, with its anonymous volumes. The caller holds its lock."""
    events.container("destroy", record)
    release_name(record.name, record.id)
    if record.spec.detach:
        # journald may have yet to read its last lines, and needs the fields for them
        journal.synchronize()
    journal.remove_fields(names.scope_unit(record.id))
    if unit_file.has_policy(record) and not record.spec.unit:
        unit_file.uninstall(record.id)
    for name in record.anonymous_volumes.values():
        volumes.remove(name)
    if record.uids:
        from sysbox.container import id_ranges

        # while the record is there: `gc` frees what belongs to none
        id_ranges.release(record.id)
    if record.mount_label:
        from sysbox.container import levels  # few hosts have SELinux

        levels.release(record.id)
    store.discard(record.id)
    if record.spec.pod:
        from sysbox.container import pods

        pods.drop_member(record.spec.pod, record.id)


def forget_failure(unit: str) -> None:
    """Reset a failed scope, which stays loaded until its container is removed. A scope fails by a kill for
    lack of memory on cgroup v2, and by a stop that took too long on both.
    """
    try:
        with Bus.connect() as bus:
            if scope.await_inactive(bus, unit, _BRIEFLY):
                scope.reset_failed(bus, unit)
                return
    except SystemdError:
        return  # ignoring: the scope stays in systemctl's list
    # the scope still runs: the record of that run was lost
    stop_scope(unit)


def disconnect(container_id: str, *, behind: bool = False) -> None:
    """Release what a container has of networks."""
    from sysbox.netns import members  # only a bridge needs it

    rest = None
    if exists(name_files.DIRECTORY):
        from sysbox.run import resolver_units

        lock, last = resolver_units.begin_withdraw(container_id)
        if lock:
            rest = members.Rest(lock, lambda: resolver_units.stop(last))
    members.leave(container_id, behind=behind, rest=rest)
