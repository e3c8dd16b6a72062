"""Who stands by a container that runs: the command itself, or a service of its own.

In the foreground the command is the container's parent. Detached, a transient service
`sysbox-<id>.service` is: systemd starts it with a clean environment, it brings the container up and
turns into the static monitor; `sysbox _cleanup`, its ExecStopPost=, records the end whatever happened.
"""

from __future__ import annotations

import _signal
import _socket
import posix
import time

from sysbox import (
    attaching,
    codec,
    ending,
    finals,
    monitor,
    program,
    restarting,
    scope,
    starting,
    state,
    static_monitor,
    stoprequests,
    streams,
    systemd_mode,
    tuning,
    witness,
)
from sysbox.errors import NotFound, SysboxError, SystemdError
from sysbox.files import make_private, read_file, unlink, write_file
from sysbox.image.store import Store
from sysbox.linux import process
from sysbox.netns import topology
from sysbox.paths import RUN
from sysbox.units import machine, names, serviceplan
from sysbox.units.bus import Bus
from sysbox.values_time import parse_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.image.model import Image
    from sysbox.state import Record

_STALE = 60  # seconds after which nobody comes to read a report
_REPORTS = f"{RUN}/reports"  # <id>: why a supervising service could not start its container


class Attended:
    """A container that this process supervises, with the caller's streams."""

    def __init__(self, record: Record, image: Image) -> None:
        self._record = record
        self._image = image
        self._begin()

    def _begin(self) -> None:
        record = self._record
        started, wired = _bring_up(record, self._image)
        self._entry = _machine(record, started)
        self._oom = witness.OutOfMemory(started.memory_cgroup, started.cgroup_version)
        # nobody can ask what one has used that is removed at its end
        self._reports = None if record.spec.remove else witness.Reports(*started.reports)
        self._foreground = monitor.Foreground(started.pid, started.pidfd, wired, started.terminal)
        if systemd_mode.applies(record.spec, record.argv):
            # of SIGTERM systemd makes something else
            self._foreground.instead = {_signal.SIGTERM: stop_signal(record, self._image)}
        self._hear_of_stops(started)
        if not record.spec.remove and (fd := tuning.watch(record.id)) >= 0:
            self._foreground.watches[fd] = lambda: tuning.changed(record.id, fd)

    def _hear_of_stops(self, started: starting.Started) -> None:
        """systemd leaves it to us to stop it, and kills it when its time is over."""
        requests = stoprequests.StopRequests(names.scope_unit(self._record.id))
        watches = self._foreground.watches

        def heard() -> None:
            fd = next(fd for fd, act in watches.items() if act is heard)
            del watches[fd]
            try:
                if not requests.asked():
                    watches[requests.fileno()] = heard
                    return
            except SystemdError:
                return  # without systemd nobody will ask
            requests.close()
            finals.will_time_out(self._record)
            process.send(started.pidfd, stop_signal(self._record, self._image))
            _thaw(started)

        watches[requests.fileno()] = heard

    def wait(self) -> int:
        """Until its end, which is recorded; the exit status. A restart that it asks for is no end."""
        while True:
            machine.announce_later(self._entry)
            ended = self._foreground.wait(self._oom, self._reports)
            machine.cancel()
            final = ending.settle(self._record.id, ended)
            if final is None or not final.rebooted:
                return final.exit_code if final else ended.code
            self._begin()


def _thaw(started: starting.Started) -> None:
    """What is paused gets its signal first, and then goes on."""
    path, text = started.thaw
    try:
        fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
    except OSError:
        return  # ignoring: without that freezer it is not paused
    try:
        posix.write(fd, text.encode())
    except OSError:
        pass  # ignoring: the cgroup has just been removed
    finally:
        posix.close(fd)


def attend(record: Record, image: Image) -> Attended:
    """Start it as a child of this process. Raises SysboxError."""
    return Attended(record, image)


def _bring_up(record: Record, image: Image) -> tuple[starting.Started, streams.Streams]:
    spec = record.spec
    for number in (_signal.SIGTERM, _signal.SIGHUP):
        # until it runs, and these are passed on to it, they end the start as ^C does
        _signal.signal(number, _signal.default_int_handler)
    # the log of a --rm container would go with it: then nothing stands between it and the caller's pipe
    log = None if spec.remove else (record.name, names.scope_unit(record.id))
    wired = streams.for_caller(tty=spec.tty, interactive=spec.interactive, log=log)
    try:
        with state.Lock(record.id):
            started = starting.bring_up(record, image, wired, service="")
    except BaseException:
        monitor.release_signals()
        raise
    return started, wired


def _machine(record: Record, started: starting.Started) -> machine.Machine:
    bridged = record.spec.namespaces.network == "bridge"
    return machine.Machine(
        name=record.name,
        id=record.id,
        leader=started.pid,
        start_time=process.start_time(started.pid),
        link=topology.host_link(record.id) if bridged else "",
    )


def start_detached(record: Record) -> None:
    """Start it under a service of its own. Raises SysboxError with what the service reported."""
    unit = names.service_unit(record.id)
    report = f"{_REPORTS}/{record.id}"
    unlink(report)
    bus = Bus.connect()
    try:
        # that of an earlier run may still be recording its end
        scope.await_inactive(bus, unit)
        # a scope that failed stays loaded, and would for as long as the new service names it
        scope.reset_failed(bus, names.scope_unit(record.id))
        scope.reset_failed(bus, unit)
        if restarting.has_policy(record):
            restarting.started(record)
            scope.start_unit(bus, unit)
        else:
            scope.start_service(bus, unit, serviceplan.transient(restarting.plan_of(record))).wait()
    except SystemdError as error:
        scope.await_inactive(bus, unit)
        data = read_file(report)
        unlink(report)
        if data is None:
            raise SysboxError(
                f"{error.message}", hint=f"`journalctl -u {unit}` may tell why"
            ) from None
        values = codec.loads(data, report)
        raise SysboxError(values["message"], hint=values["hint"], status=values["status"]) from None
    finally:
        bus.close()


def forget_reports() -> None:
    """Remove the reports of services whose callers did not live to read them."""
    try:
        left = [f"{_REPORTS}/{name}" for name in posix.listdir(_REPORTS)]
    except FileNotFoundError:
        return
    for path in left:
        try:
            stale = time.time() - posix.stat(path).st_mtime > _STALE
        except FileNotFoundError:
            continue
        if stale:
            unlink(path)


def supervise(container_id: str) -> int:
    """ExecStart= of the supervising service: bring it up, say so, become the monitor."""
    # a request to stop is for the monitor, which inherits it
    _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGTERM,))
    again = 0
    try:
        record = state.load(container_id)
    except NotFound as error:
        restarting.abandon(container_id)
        return error.status
    try:
        again = restarting.restarts(record) if restarting.has_policy(record) else 0
        if again and not _may_restart(record):
            return 0
        with state.Lock(container_id):
            image = Store().resolve(record.image_id)
            attach = attaching.listen(record)
            wired = streams.for_service(record.spec, names.scope_unit(container_id))
            unit = names.service_unit(container_id)
            started = starting.bring_up(record, image, wired, service=unit)
            if restarting.has_policy(record):
                restarting.guard(record)
    except SysboxError as error:
        make_private(_REPORTS)
        report = {"message": error.message, "hint": error.hint, "status": error.status}
        write_file(f"{_REPORTS}/{container_id}", codec.dumps(report))
        if not again:
            # what its user has started and has never run is not tried again
            restarting.end(record)
        return error.status
    else:
        _notify("READY=1")
        machine.announce(_machine(record, started))
        duties = _duties(record, image, started, attach)
        static_monitor.become(duties, wired, started.terminal)


def _duties(
    record: Record, image: Image, started: starting.Started, attach: int
) -> static_monitor.Duties:
    logging = record.spec.logging
    json = (record.log_path, logging.max_size, logging.max_files)
    return static_monitor.Duties(
        pid=started.pid,
        directory=record.run_directory,
        stop_signal=stop_signal(record, image),
        stop_timeout=record.spec.stop_timeout,
        memory_cgroup=started.memory_cgroup,
        cgroup_version=started.cgroup_version,
        events=started.reports[0],
        reports=started.reports[1],
        thaw=started.thaw,
        attach=attach,
        wait_for_first=attaching.is_expected(record),
        json=json if logging.driver == "json-file" else None,
        health=_checks(record),
    )


def _checks(record: Record) -> tuple[int, int, str, str] | None:
    """Intervals in milliseconds, and what is to be run then."""
    asked = record.spec.health
    if not asked.command:
        return None
    starting = asked.start_interval if asked.start_period > 0 else asked.interval
    return max(asked.interval // 1000, 1), max(starting // 1000, 1), program.launcher, record.id


def _may_restart(record: Record) -> bool:
    """Wait as long as the policy has it; False where it is to be stopped instead."""
    seconds = restarting.back_off(state.final(record.id))
    pid = posix.getpid()
    waiting = state.Runtime(
        pid=0,
        start_time=0,
        supervisor=pid,
        supervisor_start=process.start_time(pid),
        scope=names.scope_unit(record.id),
        restarting=True,
    )
    with state.Lock(record.id):
        state.write_runtime(record, waiting)
    if not restarting.wait_or_stopped(seconds):
        return True
    with state.Lock(record.id):
        state.remove_run(record)
    return False


def stop_for_scope(container_id: str) -> int:
    """ExecStop= of the unit that is stopped with the scope: have the service stopped, and wait for the end.

    Not for the service: its own end waits for that of this unit.
    """
    try:
        record = state.load(container_id)
        runtime = state.runtime(container_id)
        if runtime is not None and runtime.alive():
            restarting.end(record)
            ending.await_end(record)
        # this unit has kept the scope loaded: what was set on it goes with the two. It is stopped for a scope
        # that has ended by itself too: machined asks for that
        with state.Lock(container_id):
            tuning.harvest(state.load(container_id))
    except NotFound:
        pass
    return 0


def cleanup(container_id: str) -> int:
    """ExecStopPost= of the supervising service: it has ended, whatever became of it."""
    try:
        record = state.load(container_id)
        runtime = state.runtime(container_id)
        if runtime is not None and runtime.alive():
            # the monitor was killed, and the container did not go with it
            ending.stop_scope(runtime.scope)
    except NotFound:
        restarting.unguard(container_id)
        return 0
    ending.settle(record.id)
    if restarting.has_policy(record):
        restarting.unguard(record.id)
    elif (final := state.final(record.id)) is not None and final.rebooted:
        # whoever has recorded it
        restarting.start_again(record)
    return 0


def _notify(message: str) -> None:
    """sd_notify(3), where the caller is a service that wants to know."""
    address = posix.environ.get(b"NOTIFY_SOCKET", b"").decode()
    if not address:
        return
    socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        socket.sendto(message.encode(), "\0" + address[1:] if address[0] == "@" else address)
    finally:
        socket.close()


def stop_signal(record: Record, image: Image | None = None) -> int:
    """The signal that asks it to end: the user's, the image's, systemd's if that is what runs, SIGTERM."""
    asked = record.spec.stop_signal
    default = systemd_mode.stop_signal(record.spec, record.argv)
    if not asked:
        try:
            asked = (image or Store().resolve(record.image_id)).config.stop_signal
        except NotFound:
            asked = ""
    return parse_signal(asked or default, "stop signal")
