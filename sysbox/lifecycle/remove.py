"""Removing a container of which some file cannot be read: by its id, and by what can be read."""

from __future__ import annotations

from sysbox import scope
from sysbox.base.errors import FormatError, NotFound
from sysbox.container import locks, store
from sysbox.container.locks import Lock
from sysbox.fs import volumes
from sysbox.run import restart
from sysbox.run.exit import remove_damaged, stop_scope
from sysbox.units import names
from sysbox.units.bus import Bus

_PATIENCE = 15.0  # seconds for its service to end, after everything in the scope was killed


def remove(container_id: str, *, with_volumes: bool) -> None:
    """`sysbox rm -f` of it, whether it runs or not. Raises SysboxError."""
    _end(container_id)
    try:
        lock = _lock(container_id)
    except NotFound:
        return  # somebody was faster
    with lock:
        if with_volumes:
            for name in _anonymous_volumes(container_id):
                volumes.remove(name)
        remove_damaged(container_id)


def _lock(container_id: str) -> Lock:
    try:
        return Lock(container_id)
    except (FormatError, NotFound):
        return locks.replaced(container_id)


def _end(container_id: str) -> None:
    """Without the lock, which its service wants at its end."""
    with Bus.connect() as bus:
        service = names.service_unit(container_id)
        # first, or it would be started again
        scope.request_stop(bus, service)
        stop_scope(names.scope_unit(container_id))
        scope.await_inactive(bus, service, _PATIENCE)
        restart.unguard(container_id)
        scope.reset_failed(bus, service)


def _anonymous_volumes(container_id: str) -> list[str]:
    try:
        return list(store.load(container_id).anonymous_volumes.values())
    except (FormatError, NotFound):
        return []  # ignoring: `sysbox volume prune` finds them
