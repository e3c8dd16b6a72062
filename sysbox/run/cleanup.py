"""What systemd runs when a container in the background is to end, or has: `_stop` and `_cleanup`.

The latter is the ExecStopPost= of its service: the end is recorded whatever happened.
"""

from __future__ import annotations

from sysbox.base.errors import NotFound
from sysbox.container import store
from sysbox.container.locks import Lock
from sysbox.run import restart, tuned
from sysbox.run.exit import await_end, settle
from sysbox.run.teardown import stop_scope
from sysbox.units import unit_file


def stop_for_scope(container_id: str) -> int:
    """ExecStop= of the unit that is stopped with the scope: have the service stopped, and wait for the end.

    Not for the service: its own end waits for that of this unit.
    """
    try:
        record = store.load(container_id)
        runtime = store.runtime(container_id)
        if runtime is not None and runtime.alive():
            restart.request_stop(record)
            await_end(record)
        # this unit has kept the scope loaded: what was set on it goes with the two. It is stopped for a scope
        # that has ended by itself too: machined asks for that
        with Lock(container_id):
            tuned.harvest(store.load(container_id))
    except NotFound:
        pass
    return 0


def cleanup(container_id: str) -> int:
    """ExecStopPost= of the supervising service: it has ended, whatever became of it."""
    try:
        record = store.load(container_id)
        runtime = store.runtime(container_id)
        if runtime is not None and runtime.alive():
            # the monitor was killed, and the container did not go with it
            stop_scope(runtime.scope)
    except NotFound:
        restart.stop_stopper(container_id)
        return 0
    settle(record.id)
    if restart.needs_stopper(record):
        restart.stop_stopper(record.id)
    if restart.has_policy(record):
        unit_file.remember(record)
        return 0
    if (final := store.final(record.id)) is not None and final.rebooted:
        # whoever has recorded it
        restart.start_again(record)
    return 0
