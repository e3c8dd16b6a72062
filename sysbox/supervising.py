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

from sysbox import codec, ending, monitor, program, scope, starting, state, streams
from sysbox.errors import NotFound, SysboxError, SystemdError
from sysbox.files import make_private, read_file, unlink, write_file
from sysbox.image.store import Store
from sysbox.paths import RUN
from sysbox.units import names
from sysbox.units.bus import Bus
from sysbox.units.properties import Property
from sysbox.values_time import parse_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.image.model import Image
    from sysbox.state import Record

_SECOND = 1_000_000  # microseconds
_MARGIN = 5  # seconds that systemd waits beyond the monitor's own patience
_SYSTEMD = ("/sbin/init", "/usr/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd")
_STALE = 60  # seconds after which nobody comes to read a report
_REPORTS = f"{RUN}/reports"  # <id>: why a supervising service could not start its container


class Attended:
    """A container that this process supervises, with the caller's streams."""

    def __init__(self, record: Record, started: starting.Started, wired: streams.Streams) -> None:
        self._id = record.id
        self._oom = monitor.OutOfMemory(started.memory_cgroup, started.cgroup_version)
        # nobody can ask what one has used that is removed at its end
        self._reports = None if record.spec.remove else monitor.Reports(*started.reports)
        self._foreground = monitor.Foreground(started.pid, started.pidfd, wired, started.terminal)

    def wait(self) -> int:
        """Until its end, which is recorded; the exit status."""
        ended = self._foreground.wait(self._oom, self._reports)
        ending.settle(self._id, ended)
        return ended.code


def attend(record: Record, image: Image) -> Attended:
    """Start it as a child of this process. Raises SysboxError."""
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
    return Attended(record, started, wired)


def start_detached(record: Record) -> None:
    """Start it under a service of its own. Raises SysboxError with what the service reported."""
    unit = names.service_unit(record.id)
    report = f"{_REPORTS}/{record.id}"
    unlink(report)
    asked_ns = state.now_ns()
    bus = Bus.connect()
    try:
        # that of an earlier run may still be recording its end
        scope.await_inactive(bus, unit)
        # a scope that failed stays loaded, and would for as long as the new service names it
        scope.reset_failed(bus, names.scope_unit(record.id))
        scope.reset_failed(bus, unit)
        scope.start_service(bus, unit, _service(record)).wait()
    except SystemdError as error:
        # a scope that ends takes its service along, so this job may be over before the service is
        scope.await_inactive(bus, unit)
        data = read_file(report)
        unlink(report)
        if data is None and _has_run(record, asked_ns):
            return
        if data is None:
            raise SysboxError(
                f"{error.message}", hint=f"`journalctl -u {unit}` may tell why"
            ) from None
        values = codec.loads(data, report)
        raise SysboxError(values["message"], hint=values["hint"], status=values["status"]) from None
    finally:
        bus.close()


def _has_run(record: Record, since_ns: int) -> bool:
    """Whether it has run and ended already: a scope that goes can cancel the start of its service."""
    try:
        state.load(record.id)
    except NotFound:
        return record.spec.remove
    final = state.final(record.id)
    return final is not None and final.started_ns > 0 and final.finished_ns >= since_ns


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


def _service(record: Record) -> tuple[Property, ...]:
    launcher = program.launcher
    patience = record.spec.stop_timeout
    stop = (1 << 64) - 1 if patience < 0 else (patience + _MARGIN) * _SECOND

    def command(verb: str) -> list[tuple[str, list[str], bool]]:
        return [(launcher, [launcher, verb, record.id], False)]

    settings: tuple[tuple[str, str, object], ...] = (
        ("Description", "s", f"sysbox container {record.name}"),
        ("Type", "s", "notify"),
        ("NotifyAccess", "s", "main"),
        ("ExecStart", "a(sasb)", command("_supervise")),
        ("ExecStopPost", "a(sasb)", command("_cleanup")),
        ("KillMode", "s", "mixed"),
        ("TimeoutStopUSec", "t", stop),
        ("CollectMode", "s", "inactive-or-failed"),
        ("Slice", "s", "sysbox.slice"),
        ("OOMPolicy", "s", "continue"),
        # the scope's name here keeps it loaded, with what `systemctl set-property` has changed of it,
        # until this service is gone: `cleanup` reads that (systemd drops it with the unit)
        ("After", "as", ["network.target", "dbus.socket", names.scope_unit(record.id)]),
    )
    return tuple(Property(name=name, signature=kind, value=value) for name, kind, value in settings)


def supervise(container_id: str) -> int:
    """ExecStart= of the supervising service: bring it up, say so, become the monitor."""
    # a request to stop is for the monitor, which inherits it; and the scope of a start that failed
    # sends one as it goes (PropagatesStopTo=), which must not keep us from reporting the failure
    _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGTERM,))
    try:
        record = state.load(container_id)
        with state.Lock(container_id):
            image = Store().resolve(record.image_id)
            wired = streams.for_service(record.spec, names.scope_unit(container_id))
            unit = names.service_unit(container_id)
            started = starting.bring_up(record, image, wired, service=unit)
    except SysboxError as error:
        make_private(_REPORTS)
        report = {"message": error.message, "hint": error.hint, "status": error.status}
        write_file(f"{_REPORTS}/{container_id}", codec.dumps(report))
        return error.status
    else:
        _notify("READY=1")
        monitor.become(
            started.pid,
            wired,
            started.terminal,
            directory=record.run_directory,
            oom=(started.memory_cgroup or "/", started.cgroup_version),
            stop=(stop_signal(record, image), record.spec.stop_timeout),
            reports=started.reports,
        )


def cleanup(container_id: str) -> int:
    """ExecStopPost= of the supervising service: it has ended, whatever became of it."""
    try:
        record = state.load(container_id)
        runtime = state.runtime(container_id)
        if runtime is not None and runtime.alive():
            # the monitor was killed, and the container did not go with it
            ending.stop_scope(runtime.scope)
    except NotFound:
        return 0
    ending.settle(record.id)
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
    default = "RTMIN+3" if record.argv[0] in _SYSTEMD else "TERM"  # systemd(1), SIGNALS
    if not asked:
        try:
            asked = (image or Store().resolve(record.image_id)).config.stop_signal
        except NotFound:
            asked = ""
    return parse_signal(asked or default, "stop signal")
