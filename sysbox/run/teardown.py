"""Give back what a run had and the kernel does not free by itself; remove what a container had at rest.

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
from sysbox.host import probe
from sysbox.linux.freezer import frozen
from sysbox.run import restart, tuned
from sysbox.units import journal, machine, names, unit_file
from sysbox.units.bus import Bus
from sysbox.units.cgroup import freezer, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.store import Record, Runtime

_BRIEFLY = 0.5


def unwind(record: Record, runtime: Runtime, *, failed: bool = False) -> None:
    """Give back what a run had. Everything else is the kernel's: mounts, links and namespaces die with it."""
    if failed or runtime.alive() or record.spec.namespaces.pid != "private":
        # without a pid namespace of its own, its other processes are held together by the scope alone
        stop_scope(runtime.scope, runtime.cgroup)
    tree.remove_cgroups(runtime.cgroup, probe())
    machine.unregister(runtime.scope)
    tuned.unwatch(record.id)
    if record.spec.namespaces.network == "bridge":
        disconnect(record.id)


def stop_scope(unit: str, cgroup: str = "") -> None:
    """Kill everything in a scope and wait until it is gone; no scope is success.

    `cgroup` is its path, where it is known: something frozen in it dies even without systemd.
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
                # on cgroup v1 nobody tells systemd of a scope whose processes were gone before it was made
                scope.request_stop(bus, unit)
                scope.await_inactive(bus, unit, _BRIEFLY)
            scope.reset_failed(bus, unit)
    except SystemdError:
        pass  # ignoring: without systemd there is no scope, or it went away between the calls


def kill_frozen(cgroup: str) -> None:
    """Kill what is in a cgroup if it is frozen: on v1 it would take no signal before it is thawed."""
    if cgroup and frozen(probe(), cgroup):
        freezer.kill(cgroup, probe())


def discard(record: Record) -> None:
    """Remove a container that does not run, with its anonymous volumes. The caller holds its lock."""
    events.container("destroy", record)
    release_name(record.name, record.id)
    if record.spec.detach:
        # what it wrote last may still be on its way, and shall carry its name
        journal.synchronize()
    journal.remove_fields(names.scope_unit(record.id))
    if restart.has_policy(record):
        unit_file.uninstall(record.id)
    for name in record.anonymous_volumes.values():
        volumes.remove(name)
    store.discard(record.id)


def forget_failure(unit: str) -> None:
    """A scope that failed stays loaded until its container is removed: systemd sees a kill for lack of memory
    on cgroup v2, and a stop that took too long on both.
    """
    try:
        with Bus.connect() as bus:
            if scope.await_inactive(bus, unit, _BRIEFLY):
                scope.reset_failed(bus, unit)
                return
    except SystemdError:
        return  # ignoring: what remains is a line in a list
    # what was written down about a run was lost, and it goes on
    stop_scope(unit)


def disconnect(container_id: str) -> None:
    from sysbox.netns import firewall, leases  # which only a bridge needs

    firewall.unpublish(container_id)
    leases.release(container_id)
