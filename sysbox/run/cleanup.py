"""What systemd runs to stop a detached container, and after its end: `_stop` and `_cleanup`.

`_cleanup` is the ExecStopPost= of the service, so the end is recorded however the service ended.
"""

from __future__ import annotations

from sysbox.base import wait
from sysbox.base.errors import Conflict, FormatError, NotFound
from sysbox.container import store
from sysbox.container.locks import Lock
from sysbox.run import exit_record, reports, restart, tuned
from sysbox.run.exit import await_end, settle
from sysbox.run.teardown import stop_scope
from sysbox.units import unit_file

_PATIENCE, _POLL = 1.0, 0.01  # seconds: less than a start waits for the name of its scope


def stop_for_scope(container_id: str) -> int:
    """ExecStop= of the unit that is stopped with the scope: stop the service, wait for the container's end.

    It does not wait for the service, whose stop job waits for this unit.
    """
    try:
        record = store.load(container_id)
        runtime = store.runtime(container_id)
        if runtime is not None and runtime.alive():
            restart.request_stop(record)
            await_end(record)
        # this unit has kept the scope loaded, and systemd removes what was set on the scope along with it:
        # save that now. The container may have ended by itself: machined has the scope stopped then
        wait.until(lambda: _harvest(container_id), _PATIENCE, _POLL)
    except NotFound:
        pass
    return 0


def _harvest(container_id: str) -> bool:
    """Whether its lock was free. A start holds it while it waits until systemd has forgotten the last scope,
    which this unit keeps loaded; what was set on that was saved before, when the end was recorded.
    """
    try:
        with Lock(container_id, wait=False):
            tuned.harvest(store.load(container_id))
    except Conflict:
        return False
    return True


def cleanup(container_id: str) -> int:
    """ExecStopPost= of the supervising service, which has ended: record the end of the container, and answer
    clients that still wait for its start.
    """
    ran = _has_run(container_id)
    try:
        return _record_end(container_id)
    finally:
        if ran:
            # who has begun to wait after the supervisor's answer
            reports.send(container_id, None)
        else:
            reports.send_after_end(container_id)


def _has_run(container_id: str) -> bool:
    """Whether the monitor has said how the command ended."""
    try:
        return exit_record.of_monitor(store.load(container_id).run_directory) is not None
    except (FormatError, NotFound):
        return False


def _record_end(container_id: str) -> int:
    try:
        record = store.load(container_id)
        runtime = store.runtime(container_id)
        if runtime is not None and runtime.alive():
            # the monitor was killed, and the container survived it
            stop_scope(runtime.scope)
    except NotFound:
        restart.stop_stopper(container_id)
        return 0
    settle(record.id)
    if restart.needs_stopper(record):
        restart.stop_stopper(record.id)
    if unit_file.has_policy(record):
        unit_file.save_boot_choice(record)
        return 0
    if (final := store.final(record.id)) is not None and final.rebooted:
        # whichever process has recorded the end
        restart.start_again(record)
    return 0
