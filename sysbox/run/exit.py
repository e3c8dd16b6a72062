"""The end of a container: record how it ended, give back what the kernel does not free by itself.

What must be undone is one short list, the same after a failed start, after a normal end and for
`sysbox gc`: every step of it treats "already gone" as success.
"""

from __future__ import annotations

import _signal
import posix
import time

from sysbox import scope
from sysbox.base.errors import (
    Conflict,
    FormatError,
    KernelError,
    NotFound,
    SysboxError,
    SystemdError,
)
from sysbox.base.files import read_file
from sysbox.container import events, store, systemd_mode
from sysbox.container.locks import Lock
from sysbox.fs import volumes
from sysbox.fs.drivers import overlay
from sysbox.host import probe
from sysbox.linux.freezer import frozen
from sysbox.run import exit_record, name_hold, restart, tuned
from sysbox.units import journal, machine, names, unit_file
from sysbox.units.bus import Bus
from sysbox.units.cgroup import freezer, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.records import Ended
    from sysbox.container.store import Record, Runtime
    from sysbox.image.model import Image

_PATIENCE = 10.0  # seconds for a supervisor to write down what it saw
_BRIEFLY = 0.5
_STEP = 0.004
_STARTS = 5  # that `rm -f` ends, one after the other


def settle(
    container_id: str, ended: Ended | None = None, *, force: bool = False
) -> store.Final | None:
    """Record the end of a run whose first process is gone, undo what it had, remove it if it was --rm.

    `ended` is given by the supervisor itself, or read from what the monitor wrote. Does nothing while the
    container runs or its supervisor has yet to say how it ended (unless by `force`), and when somebody
    else has done it already. What was recorded, if it was now. Raises FormatError for damaged records.
    """
    try:
        lock = Lock(container_id)
    except NotFound:
        return None
    with lock:
        try:
            record = store.load(container_id)
            runtime = store.runtime(container_id)
        except NotFound:
            return None
        if runtime is None:
            return None
        ended = ended or _recorded(record)
        if ended is None and runtime.supervised() and not force:
            return None
        if not record.spec.remove:
            # of a service's container systemd has it still; in the foreground it was watched
            record = tuned.harvest(record)
        unwind(record, runtime)
        final = exit_record.of_run(record, runtime, ended)
        store.write_final(record, final)
        # before the run is forgotten: whoever has waited for that tells next what came of it
        _tell(record, final, told=ended is not None and ended.oom_told)
        store.remove_run(record)
        if final.rebooted:
            if record.spec.remove:
                overlay.renew(record.directory)
        elif record.spec.remove:
            discard(record)
        return final


def _recorded(record: Record) -> Ended | None:
    try:
        return exit_record.of_monitor(record.run_directory)
    except FormatError:
        return None  # ignoring: with nothing that can be read, nobody saw how it ended


def _tell(record: Record, final: store.Final, *, told: bool) -> None:
    if not final.started_ns:
        return
    if final.oom_killed and not told:
        events.container("oom", record)
    seconds = (final.finished_ns - final.started_ns) // 1_000_000_000
    events.container("die", record, exitCode=str(final.exit_code), execDuration=str(seconds))


def unwind(record: Record, runtime: Runtime, *, failed: bool = False) -> None:
    """Give back what a run had. Everything else is the kernel's: mounts, links and namespaces die with it."""
    if failed or runtime.alive() or record.spec.namespaces.pid != "private":
        # without a pid namespace of its own, its other processes are held together by the scope alone
        stop_scope(runtime.scope, runtime.cgroup)
    tree.remove_cgroups(runtime.cgroup, probe())
    machine.withdraw(runtime.scope)
    tuned.unwatch(record.id)
    if record.spec.namespaces.network == "bridge":
        _disconnect(record.id)


def _disconnect(container_id: str) -> None:
    from sysbox.netns import firewall, leases  # which only a bridge needs

    firewall.unpublish(container_id)
    leases.release(container_id)


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
    store.release_name(record.name, record.id)
    if record.spec.detach:
        # what it wrote last may still be on its way, and shall carry its name
        journal.synchronize()
    journal.remove_fields(names.scope_unit(record.id))
    if restart.has_policy(record):
        unit_file.uninstall(record.id)
    for name in record.anonymous_volumes.values():
        volumes.remove(name)
    store.discard(record.id)


def await_end(record: Record, timeout: float | None = None) -> bool:
    """Wait until the container does not run and its end is recorded; False when the time is over.

    `timeout` is in seconds; None waits for ever.
    """
    runtime = store.runtime(record.id)
    if runtime is None:
        return True
    if not runtime.await_end(timeout):
        return False
    patience = time.monotonic() + _PATIENCE
    while time.monotonic() < patience:
        current = store.runtime(record.id)
        if current is None or current.pid != runtime.pid:
            return True
        if not runtime.supervised() or _monitor_wrote(record):
            break
        if runtime.supervisor == posix.getpid():
            break  # nobody else will say it
        time.sleep(_STEP)
    # its supervisor has had the time to say how it ended
    settle(record.id, force=True)
    return True


def _monitor_wrote(record: Record) -> bool:
    try:
        return read_file(f"{record.run_directory}/exit", 4096) is not None
    except FormatError:
        return True


def remove(record: Record, *, force: bool, with_volumes: bool) -> None:
    """`sysbox rm`. Raises Conflict for a container that runs, without `force`."""
    by_file = restart.has_policy(record)
    try:
        lock = _ended(record, force=force)
    except NotFound:
        return  # --rm: its supervisor was faster
    with lock:
        if record.anonymous_volumes and not (with_volumes or record.spec.remove):
            # they stay, even if the rest of this is left to gc
            record = record.replace(anonymous_volumes={})
            store.save(record)
        discard(record)
    if name_hold.guarded(record.id):
        restart.unguard(record.id)
    if not record.spec.remove:
        forget_failure(names.scope_unit(record.id))
        if by_file:
            restart.forget(record.id)


def _ended(record: Record, *, force: bool) -> Lock:
    """Its lock, once it does not run. Raises Conflict, NotFound."""
    for _ in range(_STARTS if force else 1):
        _end(record, force=force)
        lock = Lock(record.id)
        try:
            if store.runtime(record.id) is None:
                return lock
        except BaseException:
            lock.release()
            raise
        # a start was on its way, which goes on without the command that asked for it
        lock.release()
    raise Conflict(f"container {record.name} was started meanwhile")


def _end(record: Record, *, force: bool) -> None:
    runtime = store.runtime(record.id)
    if runtime is not None and (runtime.alive() or runtime.restarting):
        if not force:
            doing = "restarting" if runtime.restarting else "running"
            raise Conflict(
                f"container {record.name} is {doing}", hint="stop it first, or use `sysbox rm -f`"
            )
        by_systemd = restart.end(record)
        kill_now(record, runtime)
        if by_systemd:
            restart.await_service(record)
    elif restart.end(record):
        # it has just ended, and systemd was about to start it again
        restart.await_service(record)
    await_end(record)


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


def kill_now(record: Record, runtime: Runtime) -> None:
    """SIGKILL to its first process, and to everything in its scope, and wait for the end."""
    send(runtime, 9)
    kill_frozen(runtime.cgroup)
    if not await_end(record, _PATIENCE):
        stop_scope(runtime.scope, runtime.cgroup)
        if not await_end(record, _PATIENCE):
            raise SysboxError(
                f"container {record.name} is still running after SIGKILL",
                hint=f"`systemctl status {runtime.scope}` and /proc/{runtime.pid}/stack may tell why",
            )


def send(runtime: Runtime, signal: int) -> None:
    """A signal to its first process; one that is gone meanwhile is fine."""
    try:
        runtime.send(signal)
    except KernelError:
        pass  # ignoring: it is gone


def remove_damaged(container_id: str) -> None:
    """`rm -f` of a container whose record cannot be read: by its id alone."""
    unit = names.scope_unit(container_id)
    stop_scope(unit)
    for path in tree.left(probe(), unit):
        kill_frozen(path)
        tree.remove_cgroups(path, probe())
    for name, owner in store.names().items():
        if owner == container_id:
            store.release_name(name, owner)
    _disconnect(container_id)
    unit_file.uninstall(container_id)
    journal.remove_fields(names.scope_unit(container_id))
    tuned.unwatch(container_id)
    store.discard(container_id)


def stop_signal(record: Record, image: Image | None = None) -> int:
    """The signal that asks it to end: the user's, the image's, systemd's if that is what runs, SIGTERM."""
    from sysbox.image.store import Store  # to remove one takes none of it
    from sysbox.parse.time import parse_signal

    asked = record.spec.stop_signal
    default = systemd_mode.stop_signal(record.spec, record.argv)
    if not asked:
        try:
            asked = (image or Store().resolve(record.image_id)).config.stop_signal
        except NotFound:
            asked = ""
    return parse_signal(asked or default, "stop signal")


def passed_on(record: Record, image: Image | None = None) -> dict[int, int]:
    """The signals that reach the container as others: of SIGTERM systemd makes something else."""
    if not systemd_mode.applies(record.spec, record.argv):
        return {}
    return {_signal.SIGTERM: stop_signal(record, image)}
