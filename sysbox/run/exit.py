"""The end of a run: kill it, wait for it, record it, and release what the run had."""

from __future__ import annotations

import posix

from sysbox.base.errors import (
    FormatError,
    NotFound,
    SysboxError,
)
from sysbox.base.files import read_file
from sysbox.base.wait import until
from sysbox.container import events, store
from sysbox.container.locks import Lock
from sysbox.container.records import Traffic
from sysbox.fs.drivers.driver import driver_of
from sysbox.run import exit_record, tuned
from sysbox.run.signals import send
from sysbox.run.teardown import discard, kill_frozen, stop_scope, unwind
from sysbox.units import machine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.records import Ended
    from sysbox.container.store import Record, Runtime

_PATIENCE = 10.0  # seconds for a supervisor to record the end
_STEP = 0.004


def settle(
    container_id: str, ended: Ended | None = None, *, force: bool = False, behind: bool = False
) -> store.Final | None:
    """Record the end of a run whose first process is gone, release what it had, remove a --rm container.

    `ended` is what the supervisor saw; without it, what the monitor wrote. Nothing is done while the
    container runs, while its supervisor has yet to say how it ended (unless `force`), or if another process
    has done it already. Returns what it has recorded, or None. `behind` is that of `unwind`. Raises
    FormatError for damaged records.
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
        if runtime.restarting:
            from sysbox.run import again

            again.give_up(record)  # who waited to start it again was killed
            return None
        return _settled(record, runtime, ended, behind=behind)


def _settled(record: Record, runtime: Runtime, ended: Ended | None, *, behind: bool) -> store.Final:
    """What `settle` does once it is clear that the run is over. The caller holds the lock."""
    unregistered = machine.begin_unregister(runtime.scope)
    # systemd still has what was set on a detached container's scope, and what it has counted; in the
    # foreground, what was set was saved then
    record = record if record.spec.remove else tuned.harvest(record)
    used = _traffic(record, runtime)
    kept = record.spec.remove and exit_record.is_kept(record)
    unwind(record, runtime, behind=behind)
    final = exit_record.of_run(record, runtime, ended).replace(traffic=used)
    if record.spec.security.recorded:
        from sysbox.run import recording  # few containers are recorded

        final = recording.finish(record, final, lacking=ended is not None and ended.unrecorded)
    store.write_final(record, final)
    # before the run is forgotten: a command that waits for that emits its own event next
    _emit_events(record, final, oom_told=ended is not None and ended.oom_told)
    unregistered()
    store.remove_run(record)
    if record.spec.pod:
        from sysbox.run import pods

        pods.ended(record)
    if record.spec.remove:
        _remove(record, kept=kept or final.rebooted)
    return final


def _traffic(record: Record, runtime: Runtime) -> Traffic:
    """What systemd has counted of its packets; unknown unless anybody has asked for it."""
    if not (
        record.spec.limits.ip_accounting
        or "IPAccounting" in record.tuned
        or any(text.startswith("IPAccounting") for text in record.spec.properties)
    ):
        return Traffic()
    from sysbox.run import traffic

    return traffic.counted((runtime.scope,)).get(runtime.scope, Traffic())


def _remove(record: Record, *, kept: bool) -> None:
    if kept:
        driver_of(record).renew(record.directory)
    else:
        discard(record)


def _recorded(record: Record) -> Ended | None:
    try:
        return exit_record.of_monitor(record.run_directory)
    except FormatError:
        return None  # ignoring: recorded as an end that no process saw


def _emit_events(record: Record, final: store.Final, *, oom_told: bool) -> None:
    if not final.started_ns:
        return
    if final.oom_killed and not oom_told:
        events.container("oom", record)
    seconds = (final.finished_ns - final.started_ns) // 1_000_000_000
    events.container("die", record, exitCode=str(final.exit_code), execDuration=str(seconds))


def await_end(record: Record, timeout: float | None = None) -> bool:
    """Wait until the container does not run and its end is recorded; False when the time is over.

    `timeout` is in seconds; None waits for ever.
    """
    runtime = store.runtime(record.id)
    if runtime is None:
        return True
    if not runtime.await_end(timeout):
        return False

    def recorded() -> bool:
        current = store.runtime(record.id)
        return current is None or current.pid != runtime.pid

    def no_more_to_come() -> bool:
        """The supervisor has written the end, is gone, or is this process."""
        own = runtime.supervisor == posix.getpid()
        return own or not runtime.supervised() or _monitor_wrote(record)

    until(lambda: recorded() or no_more_to_come(), _PATIENCE, _STEP)
    if not recorded():
        settle(record.id, force=True)
    return True


def _monitor_wrote(record: Record) -> bool:
    try:
        return read_file(f"{record.run_directory}/exit", 4096) is not None
    except FormatError:
        return True


def kill_now(record: Record, runtime: Runtime) -> None:
    """Send SIGKILL to the first process, then to the scope, and wait for the end. Raises SysboxError."""
    send(runtime, 9)
    kill_frozen(runtime.cgroup)
    if not await_end(record, _PATIENCE):
        stop_scope(runtime.scope, runtime.cgroup)
        if not await_end(record, _PATIENCE):
            raise SysboxError(
                f"container {record.name} is still running after SIGKILL",
                hint=f"`systemctl status {runtime.scope}` and /proc/{runtime.pid}/stack may tell why",
            )
