"""Start a container once more: how long that waits, and what ends the wait.

A restart policy does so, and a systemd inside that has asked for a reboot. Both wait by the same back-off,
and are seen as `restarting` meanwhile. Who waits is the supervising service (for a policy), the unit
sysbox-start-<id> (`start_again`, after a reboot) or the command in the foreground.
"""

from __future__ import annotations

import _signal
import posix

from sysbox.base.errors import NotFound
from sysbox.container import store
from sysbox.container.locks import Lock
from sysbox.linux import process
from sysbox.run import backoff, restart
from sysbox.run.teardown import discard
from sysbox.units import names, unit_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.container.store import Record, Runtime

ENDING = frozenset((_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP))


def wait(
    record: Record,
    signals: frozenset[int] = frozenset((_signal.SIGTERM,)),
    announce: Callable[[float], None] | None = None,
) -> bool:
    """Wait for the back-off; False if the container is not to be started: it was stopped, started or removed.

    The caller has blocked `signals`, which end the wait; `announce` gets its seconds first. Raises
    FormatError, KernelError.
    """
    pid = posix.getpid()
    waiting = store.Runtime(
        pid=0,
        start_time=0,
        supervisor=pid,
        supervisor_start=process.start_time(pid),
        scope=names.scope_unit(record.id),
        restarting=True,
    )
    try:
        with Lock(record.id):
            found = store.runtime(record.id)
            if found is not None and (found.alive() or found.supervised()):
                return False  # another command was faster
            if not unit_file.has_policy(record) and not is_wanted(record):
                return False  # it was stopped meanwhile
            store.write_runtime(record, waiting)
            seconds = backoff.back_off(store.final(record.id))
        if announce and seconds:
            announce(seconds)
        stopped = backoff.wait_or_stopped(seconds, signals)
        with Lock(record.id):
            if not _waits(store.runtime(record.id), pid):
                return False
            if stopped:
                give_up(record)
    except NotFound:
        return False  # it was removed
    return not stopped


def is_wanted(record: Record) -> bool:
    """Whether its systemd has asked for another start, and nobody has stopped it since."""
    final = store.final(record.id)
    return final is not None and final.rebooted


def _waits(runtime: Runtime | None, supervisor: int) -> bool:
    return runtime is not None and runtime.restarting and runtime.supervisor == supervisor


def give_up(record: Record) -> None:
    """Record that a container that waited is not started: remove it if it is a --rm container.

    The caller holds its lock.
    """
    if record.spec.remove:
        discard(record)
        return
    final = store.final(record.id)
    if final is not None and (final.rebooted or final.quick_ends):
        store.write_final(record, final.replace(rebooted=False, quick_ends=0))
    store.remove_run(record)


def take_over(record: Record) -> None:
    """Leave a container that waits to the caller, who starts it for the user; the back-off begins anew.

    Nothing is done where a policy has it wait: its service goes on.
    """
    if unit_file.has_policy(record):
        return
    with Lock(record.id):
        runtime, final = store.runtime(record.id), store.final(record.id)
        if runtime is None or not runtime.restarting:
            return
        if final is not None:
            store.write_final(record, final.replace(quick_ends=0))
        store.remove_run(record)
    restart.wake(runtime)


def start_again(container_id: str) -> int:
    """ExecStart= of the unit that starts a container whose systemd has rebooted. Raises SysboxError."""
    from sysbox.run import background

    _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGTERM,))
    try:
        if not wait(store.load(container_id)):
            return 0
        record = store.load(container_id)  # it may have been renamed or updated meanwhile
    except NotFound:
        return 0
    # SIGTERM stays blocked: a start that was requested is not left half done, and `stop` waits for it
    background.start_detached(record)
    return 0
