"""The service of a detached container, `sysbox _supervise`: it starts the container and becomes the monitor.

The service is transient, or has a unit file if there is a restart policy (see serviceplan.py). systemd starts
it with a clean environment, and runs run/cleanup.py at its end.
"""

from __future__ import annotations

import _signal
import posix

from sysbox.base import program
from sysbox.base.errors import FormatError, NotFound, described
from sysbox.container import log_options, store
from sysbox.container.locks import Lock
from sysbox.host import probe
from sysbox.image.resolved import resolved_of
from sysbox.linux import unix
from sysbox.run import (
    attach_socket,
    early_stop,
    name_hold,
    reports,
    signals,
    start,
    stdio,
)
from sysbox.units import unit_file
from sysbox.units.cgroup import tree
from sysbox.units.names import scope_unit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from sysbox.container.store import Record
    from sysbox.run import monitor

_WAITING = {
    "healthy": "it is healthy",
    "container": "it says that it is ready",
}
_START = 90.0  # seconds that a start may take after the wait: systemd's own default
_DAMAGED = 10.0  # seconds between two starts of a container whose record cannot be read


def supervise(container_id: str) -> int:
    """ExecStart= of the service: start the container, report it, become the monitor.

    That of a declared unit has made the container just now: systemd alone decides when it starts again.
    Raises SysboxError, and KeyboardInterrupt where the service was stopped before the command runs. Whatever
    it raises, the client that waits has been told.
    """
    early_stop.hold()  # for what waits
    record = _record(container_id)
    try:
        return _supervise(record)
    except KeyboardInterrupt:
        reports.send(container_id, reports.stopped())
        raise


def _supervise(record: Record) -> int:
    again, started = 0, None
    try:
        again = _times(record)
        if again and not _wait_again(record):
            reports.send(record.id, reports.stopped())
            return 0
        tree.expect_move(probe())
        # until the command may run: from then on a SIGTERM stays pending for the monitor
        early_stop.heed()
        with Lock(record.id):
            with start.RecordedFailure(record):
                image_env = resolved_of(record).env
                attach, size = attach_socket.listen(record), attach_socket.is_expected(record)
                wired = _wired(record)
                # before it runs: it may end at once, and its cgroup be gone before the monitor looks
                stop_signal = signals.stop_signal(record)
            unit = unit_file.service_of(record)
            started = start.bring_up(record, wired, _import_rest, service=unit, size=size or b"")
            if unit_file.has_policy(record) or name_hold.names_no_scope(record.id):
                from sysbox.run import restart  # few containers have a policy

                restart.start_stopper(record)
        _notify(_state(record))
    except Exception as error:
        early_stop.hold()  # one that is asked for below does not end this before it has said why
        if started:
            start.give_up(record, started, error)
        reports.send(record.id, described(error, f"start {record.name}"))
        if not again and not record.spec.unit:
            from sysbox.run import restart

            # a start by the user that has failed is not tried again
            restart.request_stop(record)
        raise
    else:
        reports.send(record.id, None)
        with start.give_up_on_failure(record, started):
            duties = _duties(record, stop_signal, started, attach, wait=size is not None)
            _become(duties.replace(json=_json(record, image_env)), wired, started.terminal)


def _state(record: Record) -> str:
    """What systemd is told once the command runs."""
    where = f"STATUS=in {scope_unit(record.id)}"
    # else its first good health check says that it is ready, or its payload
    waiting = _WAITING.get(record.spec.ready) if record.spec.unit else None
    return f"{where}, waiting until {waiting}" if waiting else f"READY=1\n{where}"


def _wait_again(record: Record) -> bool:
    """Wait for the back-off, unless a user starts it meanwhile; False if it is not to be started."""
    from sysbox.run import again, backoff

    _signal.pthread_sigmask(_signal.SIG_BLOCK, (backoff.HASTEN,))
    try:
        return again.wait(record, announce=_announce)
    finally:
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (backoff.HASTEN,))


def _announce(seconds: float) -> None:
    """Have systemd allow for the wait: it counts to TimeoutStartSec=, which may be shorter (sd_notify(3))."""
    micros = int((seconds + _START) * 1e6)
    _notify(f"STATUS=waiting {seconds:.1f} s before the next start\nEXTEND_TIMEOUT_USEC={micros}")


def _times(record: Record) -> int:
    """How often its policy has started it again; of a declared one systemd's RestartSec= is the back-off."""
    if record.spec.unit or not unit_file.has_policy(record):
        return 0
    from sysbox.run import restart

    return restart.restarts(record)


def _import_rest() -> None:
    """Import what is only needed once the command runs."""
    from sysbox.run import monitor, tuned  # noqa: F401
    from sysbox.units import machine  # noqa: F401


def _become(duties: monitor.Duties, wired: stdio.Streams, terminal: int) -> NoReturn:
    from sysbox.run import monitor

    monitor.become(duties, wired, terminal)


def _record(container_id: str) -> Record:
    try:
        return store.load(container_id)
    except NotFound as error:
        reports.send(container_id, error)
        from sysbox.run import restart

        restart.abandon(container_id)
        raise
    except FormatError as error:
        from sysbox.run import backoff

        reports.send(container_id, error)
        # Restart= has no limit of its own, and the next try most likely ends here too
        backoff.wait_or_stopped(_DAMAGED)
        raise
    except Exception as error:
        reports.send(container_id, described(error, "read the container's record"))
        raise


def _wired(record: Record) -> stdio.Streams:
    journald = record.spec.logging.driver == "journald"
    return stdio.for_service(record.spec, log_options.sink(record) if journald else None)


def _duties(
    record: Record, stop_signal: int, started: start.Started, attach: int, *, wait: bool
) -> monitor.Duties:
    from sysbox.run import monitor, tuned
    from sysbox.units import machine

    return monitor.Duties(
        name=record.name,
        pid=started.pid,
        directory=record.run_directory,
        stop_signal=stop_signal,
        stop_timeout=record.spec.stop_timeout,
        oom=started.oom,
        oom_policy=started.oom_policy,
        reports=started.reports,
        thaw=started.thaw,
        attach=attach,
        wait_for_first=wait,
        helper=(program.launcher, record.id),
        drop_ins=(tuned.prepare(record.id), *_of_service(record)),
        health=_checks(record),
        notify=_told(record),
        listening=_listening(),
        hold=machine.register(start.machine_of(record, started)),
    )


def _of_service(record: Record) -> tuple[str, ...]:
    if not record.spec.unit:
        return ()
    from sysbox.run import service_settings

    return service_settings.follow(record)


def _told(record: Record) -> tuple[str, str] | None:
    """The cgroup whose processes are heard, and who is told; None where the payload tells nothing."""
    runtime = store.runtime(record.id) if record.spec.ready == "container" else None
    return (runtime.cgroup, unix.notify_address()) if runtime else None


def _listening() -> tuple[int, ...]:
    if b"LISTEN_FDS" not in posix.environ:
        return ()
    from sysbox.run import listen

    return listen.listening()


def _json(record: Record, image_env: tuple[str, ...]) -> tuple[str, int, int, str] | None:
    logging = record.spec.logging
    if logging.driver != "json-file":
        return None
    beside = log_options.json_attributes(record, image_env)
    return record.log_path, logging.max_size, logging.max_files, beside


def _checks(record: Record) -> tuple[int, int, str, str] | None:
    """Interval and start interval in milliseconds, launcher and container; None without a check."""
    asked = record.spec.health
    if not asked.command:
        return None
    starting = asked.start_interval if asked.start_period > 0 else asked.interval
    if asked.startup_command:
        starting = asked.startup_interval
    return max(asked.interval // 1000, 1), max(starting // 1000, 1), program.launcher, record.id


def _notify(message: str) -> None:
    """sd_notify(3); does nothing unless systemd has set NOTIFY_SOCKET."""
    if address := unix.notify_address():
        unix.notify(address, message)
