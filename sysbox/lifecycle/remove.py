"""Remove a container: `sysbox rm`, and what a failed `run` made."""

from __future__ import annotations

from sysbox import scope
from sysbox.base.errors import Conflict, FormatError, NotFound, SysboxError
from sysbox.base.paths import LEVELS
from sysbox.container import id_ranges, lease_files, locks, store
from sysbox.container.locks import Lock
from sysbox.container.names import release_name, taken_names
from sysbox.fs import volumes
from sysbox.host import probe
from sysbox.run import name_hold, restart, tuned
from sysbox.run.exit import await_end, kill_now
from sysbox.run.signals import send
from sysbox.run.teardown import discard, disconnect, forget_failure, kill_frozen, stop_scope
from sysbox.units import journal, names, unit_file
from sysbox.units.bus import Bus
from sysbox.units.cgroup import tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from sysbox.base.flock import Held
    from sysbox.container.store import Record

_SERVICE_PATIENCE = 15.0  # seconds for its service to end, after everything in the scope was killed
_STARTS = 5  # how many starts in a row `rm -f` ends


def remove(record: Record, *, force: bool, with_volumes: bool) -> None:
    """`sysbox rm`. Raises Conflict for a container that runs, without `force`."""
    by_file = unit_file.has_policy(record)
    try:
        lock = _ended(record, force=force)
    except NotFound:
        return  # --rm: its supervisor was faster
    with lock:
        if record.anonymous_volumes and not (with_volumes or record.spec.remove):
            # these volumes stay, even if `gc` has to do the rest
            record = record.replace(anonymous_volumes={})
            store.save(record)
        discard(record)
    if name_hold.has_stopper(record.id):
        restart.stop_stopper(record.id)
    if not record.spec.remove:
        forget_failure(names.scope_unit(record.id))
        if by_file:
            restart.forget(record.id)


def _ended(record: Record, *, force: bool) -> Lock:
    """The container's lock, once it does not run. Raises Conflict, NotFound."""
    for _ in range(_STARTS if force else 1):
        _end(record, force=force)
        lock = Lock(record.id)
        try:
            if store.runtime(record.id) is None:
                return lock
        except BaseException:
            lock.release()
            raise
        # its service was about to start it, and does so without the command that asked for that
        lock.release()
    raise Conflict(f"container {record.name} was started meanwhile")


def _end(record: Record, *, force: bool) -> None:
    runtime = store.runtime(record.id)
    if runtime is not None and (runtime.alive() or runtime.restarting):
        if not force:
            raise _refusal(record, "restarting" if runtime.restarting else "running")
        by_systemd = restart.request_stop(record)
        kill_now(record, runtime)
        if by_systemd:
            restart.await_service(record)
    elif not force and restart.runs_again(record, planned=True):
        raise _refusal(record, "restarting")
    elif restart.request_stop(record):
        # it has just ended, and systemd was about to start it again
        restart.await_service(record)
    await_end(record, 0.0)  # that it is recorded; not the end of a run that has begun since


def _refusal(record: Record, doing: str) -> Conflict:
    return Conflict(
        f"container {record.name} is {doing}", hint="stop it first, or use `sysbox rm -f`"
    )


class Killed:
    """Containers that are to be removed by force, killed all at once.

    A context manager, left when they are removed. The kernel takes longer to free the namespaces of one than
    `remove` takes, so the ends go on beside each other. Those that systemd would start again are left to
    `remove`, and so is every error.
    """

    def __init__(self, names: list[str]) -> None:
        self._removals: list[Held] = []
        for name in names:
            try:
                self._kill(store.find(name))
            except SysboxError:
                continue  # ignoring: `remove` meets it again, and reports it

    def _kill(self, record: Record) -> None:
        runtime = store.runtime(record.id)
        if runtime is None or not runtime.alive() or restart.needs_stopper(record):
            return
        # before the kill, since the service looks for it when it ends
        if (removal := locks.begin_removal(record.id)) is not None:
            self._removals.append(removal)
        send(runtime, 9)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for removal in self._removals:
            removal.release()


def remove_damaged(container_id: str, *, with_volumes: bool) -> None:
    """`sysbox rm -f` of a container with unreadable files: by its id, and by what can be read.

    It may run. Raises SysboxError.
    """
    _end_by_id(container_id)
    try:
        lock = _lock(container_id)
    except NotFound:
        return  # another command was faster
    with lock:
        if with_volumes:
            for name in _anonymous_volumes(container_id):
                volumes.remove(name)
        discard_by_id(container_id)


def _lock(container_id: str) -> Lock:
    try:
        return Lock(container_id)
    except FormatError:
        return locks.replace_lock(container_id)


def _end_by_id(container_id: str) -> None:
    """End it without the lock, which its service takes at its end."""
    with Bus.connect() as bus:
        service = names.service_unit(container_id)
        # first, or systemd would start it again
        scope.request_stop(bus, service)
        stop_scope(names.scope_unit(container_id))
        scope.await_inactive(bus, service, _SERVICE_PATIENCE)
        restart.stop_stopper(container_id)
        scope.reset_failed(bus, service)


def _anonymous_volumes(container_id: str) -> list[str]:
    try:
        return list(store.load(container_id).anonymous_volumes.values())
    except (FormatError, NotFound):
        return []  # ignoring: `sysbox volume prune` finds them


def discard_by_id(container_id: str) -> None:
    """Release and remove all that can be found by the id alone, without the record."""
    unit = names.scope_unit(container_id)
    stop_scope(unit)
    for path in tree.find_scope_cgroups(probe(), unit):
        kill_frozen(path)
        tree.remove_cgroups(path, probe())
    for name, owner in taken_names().items():
        if owner == container_id:
            release_name(name, owner)
    disconnect(container_id)
    unit_file.uninstall(container_id)
    journal.remove_fields(names.scope_unit(container_id))
    tuned.unwatch(container_id)
    store.discard(container_id)
    id_ranges.release(container_id)
    lease_files.release(LEVELS, container_id)
