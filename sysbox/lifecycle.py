"""What the verbs do: run, create, start, stop, kill, restart, rename, wait; and the supervising service.

In the foreground the command itself supervises the container. Detached, a transient service
`sysbox-<id>.service` does: systemd starts it with a clean environment, it brings the container up and
turns into the static monitor; `sysbox _cleanup`, its ExecStopPost=, records the end whatever happened.
"""

from __future__ import annotations

import _signal
import posix

from sysbox import codec, ending, monitor, program, scope, starting, state, streams
from sysbox.errors import Conflict, NotFound, SysboxError, SystemdError, Unsupported
from sysbox.files import make_private, read_file, unlink, write_file
from sysbox.fs import volumes
from sysbox.fs.drivers import overlay
from sysbox.host import probe
from sysbox.image.store import Store
from sysbox.linux import process
from sysbox.paths import RUN
from sysbox.plan import resolve_argv
from sysbox.spec import ContainerSpec, Mount
from sysbox.units import names
from sysbox.units.bus import Bus
from sysbox.units.properties import Property
from sysbox.values_time import parse_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.image.model import Image
    from sysbox.plan import Plan
    from sysbox.state import Record

_SECOND = 1_000_000  # microseconds
_MARGIN = 5  # seconds that systemd waits beyond the monitor's own patience
_REPORTS = f"{RUN}/reports"  # <id>: why a supervising service could not start its container


def run(spec: ContainerSpec, *, dry_run: bool = False) -> int:
    """`sysbox run`: the exit status of the container's command, or 0 once it is detached."""
    if dry_run:
        image, spec = prepare(spec)
        record = _draft(spec, image)
        print(_plan(record, image).describe())
        return 0
    record, image = _create(spec)
    attended = None
    try:
        if spec.detach:
            start_detached(record)
        else:
            attended = _bring_up(record, image)
    except BaseException:
        _abandon(record)
        raise
    if attended:
        return attended.wait()
    print(record.id, flush=True)
    return 0


def create(spec: ContainerSpec) -> str:
    """`sysbox create`: the new container's id. Raises SysboxError; nothing is left then."""
    return _create(spec)[0].id


def prepare(spec: ContainerSpec) -> tuple[Image, ContainerSpec]:
    """Find the image, and write into the specification what it and other containers decide.

    Raises NotFound, Unsupported.
    """
    if posix.geteuid() != 0:
        raise Unsupported("containers are made by root", hint="run it with sudo")
    image = find_image(spec)
    asked = spec.namespaces
    changes = {
        kind: f"container:{state.resolve(mode[10:])}"
        for kind in ("network", "pid", "ipc", "uts", "cgroup")
        if (mode := getattr(asked, kind)).startswith("container:")
    }
    chosen = {mount.target for mount in spec.mounts}
    extra = tuple(
        Mount(kind="volume", target=path) for path in image.config.volumes if path not in chosen
    )
    return image, spec.replace(namespaces=asked.replace(**changes), mounts=spec.mounts + extra)


def find_image(spec: ContainerSpec) -> Image:
    """The image a container is to be made of. Raises NotFound, Unsupported."""
    if spec.pull == "always":
        raise Unsupported(
            "--pull always: there is no registry client yet", hint="use --pull missing or never"
        )
    return Store().resolve(spec.image)


def _draft(spec: ContainerSpec, image: Image) -> Record:
    """The record of a container that does not exist yet."""
    anonymous = {
        mount.target: volumes.new_name()
        for mount in spec.mounts
        if mount.kind == "volume" and not mount.source
    }
    return state.Record(
        id=state.new_id(),
        name=spec.name,
        created_ns=state.now_ns(),
        spec=spec,
        image_id=image.id,
        image_name=spec.image,
        argv=resolve_argv(spec, image),
        anonymous_volumes=anonymous,
    )


def _plan(record: Record, image: Image) -> Plan:
    return starting.plan_of(record, image, probe(), "")


def _create(spec: ContainerSpec) -> tuple[Record, Image]:
    image, spec = prepare(spec)
    record = _draft(spec, image)
    _plan(record, image)  # what is wrong with it is said before anything is made
    if spec.cidfile:
        _write_cidfile(spec.cidfile, record.id)
    try:
        record, lock = state.claim(record)
        with lock:
            try:
                overlay.prepare(record.directory)
                for mount in record.spec.mounts:
                    if mount.kind == "volume":
                        volumes.ensure(mount.source or record.anonymous_volumes[mount.target])
            except BaseException:
                ending.discard(record)
                raise
    except BaseException:
        if spec.cidfile:
            unlink(spec.cidfile)
        raise
    return record, image


def _write_cidfile(path: str, container_id: str) -> None:
    try:
        fd = posix.open(
            path, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o644
        )
    except FileExistsError:
        raise Conflict(
            f"--cidfile {path}: the file exists already",
            hint="remove it, if no container belongs to it",
        ) from None
    except OSError as error:
        raise SysboxError(f"--cidfile {path}: {error.strerror}") from None
    posix.write(fd, container_id.encode())
    posix.close(fd)


def _abandon(record: Record) -> None:
    """A container that `run` made and that never ran is removed, --rm or not: nothing half-made is left."""
    try:
        ending.remove(record, force=True, with_volumes=True)
        if record.spec.cidfile:
            unlink(record.spec.cidfile)
    except SysboxError:
        pass  # ignoring: why it did not start is the better message


class _Attended:
    """A container that this process supervises, with the caller's streams."""

    def __init__(self, record: Record, started: starting.Started, wired: streams.Streams) -> None:
        self._id = record.id
        self._oom = monitor.OutOfMemory(started.memory_cgroup, started.cgroup_version)
        self._foreground = monitor.Foreground(started.pid, started.pidfd, wired, started.terminal)

    def wait(self) -> int:
        """Until its end, which is recorded; the exit status."""
        ended = self._foreground.wait(self._oom)
        ending.settle(self._id, ended)
        return ended.code


def _bring_up(record: Record, image: Image) -> _Attended:
    """Start it as a child of this process."""
    spec = record.spec
    for number in (_signal.SIGTERM, _signal.SIGHUP):
        # until it runs, and these are passed on to it, they end the start as ^C does
        _signal.signal(number, _signal.default_int_handler)
    # the log of a --rm container would go with it: then nothing stands between it and the caller's pipe
    log = None if spec.remove else (record.name, names.scope_unit(record.id))
    wired = streams.for_caller(tty=spec.tty, interactive=spec.interactive, log=log)
    with state.Lock(record.id):
        started = starting.bring_up(record, image, wired, service="")
    return _Attended(record, started, wired)


def start(record: Record, *, attach: bool, interactive: bool) -> int:
    """`sysbox start`. One that runs already is success, as docker has it."""
    settle_if_dead(record)
    if state.status(record).state == "running":
        if attach:
            raise Conflict(
                f"container {record.name} runs already", hint="`sysbox logs -f` shows its output"
            )
        return 0
    if not attach:
        start_detached(record)
        return 0
    spec = record.spec.replace(interactive=interactive and record.spec.interactive)
    return _bring_up(record.replace(spec=spec), Store().resolve(record.image_id)).wait()


def settle_if_dead(record: Record) -> None:
    """Record the end of a run that nobody recorded: its supervisor was killed."""
    runtime = state.runtime(record.id)
    if runtime is None or runtime.supervised():
        return
    if runtime.alive():
        ending.kill_now(record, runtime)
    ending.settle(record.id)


def start_detached(record: Record) -> None:
    """Start it under a service of its own. Raises SysboxError with what the service reported."""
    unit = names.service_unit(record.id)
    report = f"{_REPORTS}/{record.id}"
    unlink(report)
    bus = Bus.connect()
    try:
        # that of an earlier run may still be recording its end
        scope.await_inactive(bus, unit)
        scope.reset_failed(bus, unit)
        scope.start_service(bus, unit, _service(record)).wait()
    except SystemdError as error:
        # a scope that ends takes its service along, so this job may be over before the service is
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
        ("After", "as", ["network.target", "dbus.socket"]),
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
        notify("READY=1")
        monitor.become(
            started.pid,
            wired,
            started.terminal,
            directory=record.run_directory,
            oom=(started.memory_cgroup or "/", started.cgroup_version),
            stop=(stop_signal(record, image), record.spec.stop_timeout),
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


def notify(message: str) -> None:
    """sd_notify(3), where the caller is a service that wants to know."""
    import _socket

    address = posix.environ.get(b"NOTIFY_SOCKET", b"").decode()
    if not address:
        return
    socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        socket.sendto(message.encode(), "\0" + address[1:] if address[0] == "@" else address)
    finally:
        socket.close()


def stop_signal(record: Record, image: Image | None = None) -> int:
    """The signal that asks it to end: the user's, the image's, SIGTERM."""
    asked = record.spec.stop_signal
    if not asked:
        try:
            asked = (image or Store().resolve(record.image_id)).config.stop_signal
        except NotFound:
            asked = ""
    return parse_signal(asked or "TERM", "stop signal")


def stop(record: Record, timeout: int | None) -> None:
    """`sysbox stop`: its stop signal, and SIGKILL when the timeout (seconds, -1 never) is over."""
    settle_if_dead(record)
    runtime = state.runtime(record.id)
    if runtime is None or not runtime.alive():
        ending.settle(record.id)
        return
    patience = record.spec.stop_timeout if timeout is None else timeout
    _signal_first(runtime, stop_signal(record))
    if not ending.await_end(record, None if patience < 0 else float(patience)):
        ending.kill_now(record, runtime)


def kill(record: Record, signal: int) -> None:
    """`sysbox kill`. Raises Conflict when it does not run."""
    runtime = state.runtime(record.id)
    if runtime is None or not runtime.alive():
        raise Conflict(f"container {record.name} does not run")
    if signal == 9:
        ending.kill_now(record, runtime)
    else:
        _signal_first(runtime, signal)


def _signal_first(runtime: state.Runtime, signal: int) -> None:
    pidfd = process.pidfd(runtime.pid)
    try:
        # asked again with the handle in hand: the number may have become another's
        if runtime.alive():
            process.send(pidfd, signal)
    finally:
        posix.close(pidfd)


def restart(record: Record, timeout: int | None) -> None:
    """`sysbox restart`: stop it, if it runs, and start it detached."""
    stop(record, timeout)
    start_detached(record)


def remove(record: Record, *, force: bool, volumes: bool) -> None:
    """`sysbox rm`. Raises Conflict for a container that runs, without `force`."""
    settle_if_dead(record)
    ending.remove(record, force=force, with_volumes=volumes)


def wait(record: Record) -> int:
    """`sysbox wait`: the exit status, once it does not run."""
    settle_if_dead(record)
    ending.await_end(record)
    final = state.final(record.id)
    return final.exit_code if final else 0


def rename(record: Record, name: str) -> None:
    """`sysbox rename`. Raises Conflict when the name is taken."""
    with state.Lock(record.id):
        state.rename(state.load(record.id), name)
