"""Run a health check, and act on its result.

The monitor runs `sysbox _health ID` when a check is due (see src/monitor.c), one at a time: no unit and no
timer can be left behind. A paused container is not checked.
"""

from __future__ import annotations

import _signal
import posix
import time

from sysbox.base import codec
from sysbox.base.errors import Conflict, FormatError, KernelError, NotFound, SysboxError
from sysbox.base.files import write_file
from sysbox.container import events, health, store
from sysbox.container.status import read_status
from sysbox.host import probe
from sysbox.linux import unix
from sysbox.linux.freezer import is_frozen
from sysbox.run import restart, stdio
from sysbox.run.exec import ExecContext, ExecSpec, exec_in
from sysbox.run.signals import send, stop_signal
from sysbox.units import unit_file
from sysbox.units.cgroup.check import CheckGroup
from sysbox.units.names import scope_unit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from signal import ITIMER_REAL, setitimer

    from sysbox.container.records import Record, Runtime
else:
    from _signal import ITIMER_REAL, setitimer

STARTING = 1  # exit status of `_health`: the next check comes after the start interval

_NOTIFY = "/run/systemd/notify"  # where PID 1 listens; the monitor passes on no environment
_CHUNK = 1 << 16
_HANDLED = 5.0  # seconds for systemd to handle a message, as in systemd-notify(1)
_TIMED_OUT = -1  # docker's exit code for a check that took too long
_FAILED = 1
_LOOK = 1.0  # seconds between two looks whether the container is still paused


def check(container_id: str) -> int:
    """`sysbox _health ID`: make one check and record it; 0, or STARTING."""
    try:
        record = store.load(container_id)
        runtime = store.runtime(container_id)
        if runtime is None or not runtime.alive() or read_status(record).state == "paused":
            return 0
        before = health.status(record) or health.State()
        result = _run(record, runtime, before)
        if result is None or not runtime.alive():
            return 0  # the container ended or was paused meanwhile, which is not ill health
        after = health.judge(before, result, record.spec.health, runtime.started_ns)
        write_file(health.path(record), codec.dumps(after.to_data()))
    except (NotFound, FormatError, KernelError):
        return 0
    if after.status != before.status:
        events.container(f"health_status: {after.status}", record)
        if after.status == "unhealthy":
            _act(record, runtime)
        elif after.status == "healthy" and record.spec.ready == "healthy":
            unix.notify(_NOTIFY, f"READY=1\nSTATUS=in {scope_unit(record.id)}, healthy")
            # by whose process it is systemd finds out when it reads the message
            unix.notify_barrier(_NOTIFY, _HANDLED)
    if health.has_not_started(after, record.spec.health):
        # podman's rule; where a unit file declares it, its Restart= decides
        _end(record, runtime, "kill" if record.spec.unit else "restart")
    starting = health.is_starting(after, record.spec.health) or (
        after.status == "starting"
        and health.in_start_period(record.spec.health, runtime.started_ns)
    )
    return STARTING if starting else 0


class _TimedOut(Exception):
    pass


class _Output:
    """The output of a check: its beginning is kept, the rest is read and dropped, so that the check goes on.

    This process keeps it, outside of the container's limits: hence the bound.
    """

    def __init__(self, limit: int) -> None:
        """`limit` is in bytes."""
        self._limit = limit
        self.streams = stdio.Streams()
        self.fd = self.streams.pipe(1)
        self.streams.child[2] = self.streams.child[1]
        posix.set_blocking(self.fd, False)
        self.watches: dict[int, Callable[[], None]] = {self.fd: self._turn}
        self._kept = b""

    def _turn(self) -> None:
        self._read()

    def _read(self) -> bool:
        try:
            data = posix.read(self.fd, _CHUNK)
        except OSError:
            return False  # no output yet, or the check never began
        if not data:
            self.watches.pop(self.fd, None)  # every process has closed it
        self._kept += data[: self._limit - len(self._kept)]
        return bool(data)

    def text(self) -> str:
        """The kept beginning, with what is still in the pipe; a process left running may write for ever."""
        while len(self._kept) < self._limit and self._read():
            pass
        return self._kept.decode("utf-8", "replace")


def _run(record: Record, runtime: Runtime, state: health.State) -> health.Result | None:
    """Run the command in the container; None if nothing runs there any more.

    A command that takes too long is killed, with all the processes it has started.
    """
    started = time.time_ns()
    asked = record.spec.health
    starting = health.is_starting(state, asked)
    timeout = asked.startup_timeout if starting else asked.timeout
    output = _Output(asked.output)
    group = CheckGroup(runtime.pid, probe())
    context = ExecContext()
    context.streams, context.watches, context.group = (
        output.streams,
        output.watches,
        group.directory,
    )
    argv = asked.startup_command if starting else asked.command
    spec = ExecSpec(argv=argv, emits_events=False)
    try:
        with _Timeout(timeout, runtime):
            code = exec_in(record, spec, context)
        text = ""
        group.dissolve()
    except _TimedOut:
        group.kill()
        code = _TIMED_OUT
        text = f"Health check exceeded timeout ({timeout / 1e6:g}s)\n"
    except Conflict:
        return None  # its cgroup is removed with the container, or by the next check
    except SysboxError as error:
        group.kill()
        code, text = _FAILED, f"{error.message}\n"
    return health.Result(
        started_ns=started, finished_ns=time.time_ns(), exit_code=code, output=output.text() + text
    )


class _Timeout:
    """Raises _TimedOut in the block once it has lasted `timeout` microseconds.

    If the container is paused meanwhile, the check gets the whole time again once it is thawed.
    """

    def __init__(self, timeout: int, runtime: Runtime) -> None:
        self._seconds = max(timeout, 1) / 1e6
        self._runtime = runtime
        self._paused = False

    def __enter__(self) -> None:
        _signal.signal(_signal.SIGALRM, self._over)
        setitimer(ITIMER_REAL, self._seconds)

    def __exit__(self, *_: object) -> None:
        setitimer(ITIMER_REAL, 0)

    def _over(self, *_: object) -> None:
        was_paused, self._paused = self._paused, is_frozen(probe(), self._runtime.cgroup)
        if not (was_paused or self._paused):
            raise _TimedOut
        setitimer(ITIMER_REAL, _LOOK if self._paused else self._seconds)


def _act(record: Record, runtime: Runtime) -> None:
    """Apply `--health-on-failure`."""
    wish = record.spec.health.on_failure
    # Restart= of a declared one decides whether it runs again: sysbox must not start its service by itself
    _end(record, runtime, "kill" if wish == "restart" and record.spec.unit else wish)


def _end(record: Record, runtime: Runtime, wish: str) -> None:
    """Do what is wished. This process is part of the service, so systemd has to stop that."""
    if wish == "none":
        return
    if wish == "restart":
        restart.restart_elsewhere(record)
        return
    if wish == "stop":
        unit_file.note_stopped(record)
        if restart.request_stop(record):
            return
    send(runtime, 9 if wish == "kill" else stop_signal(record))
