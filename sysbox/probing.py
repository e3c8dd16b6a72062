"""Making a health check, and doing what is to follow.

The monitor has `sysbox _health ID` run when a check is due (see src/monitor.c), one at a time: there is no
unit and no timer to be left behind. Nothing is checked while the container is paused.
"""

from __future__ import annotations

import _signal
import posix
import time

from sysbox import codec, ending, events, execute, health, restarting, state
from sysbox.errors import Conflict, FormatError, KernelError, NotFound, SysboxError
from sysbox.execute import ExecSpec
from sysbox.files import write_file
from sysbox.host import probe
from sysbox.linux.freezer import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from signal import ITIMER_REAL, setitimer

    from sysbox.records import Record, Runtime
else:
    from _signal import ITIMER_REAL, setitimer

STARTING = 1  # exit status of `_health`: the next check comes after the start interval

_OUTPUT = 4096  # bytes of it that are kept
_TIMED_OUT = -1  # docker's exit code for it
_FAILED = 1
_LOOK = 1.0  # seconds after which it is looked whether a container is still paused


def check(container_id: str) -> int:
    """`sysbox _health ID`: make one check and record it; 0, or STARTING."""
    try:
        record = state.load(container_id)
        runtime = state.runtime(container_id)
        if runtime is None or not runtime.alive() or state.status(record).state == "paused":
            return 0
        before = health.status(record) or health.State()
        result = _run(record, runtime)
        if result is None or not runtime.alive():
            return 0  # it ended or was paused meanwhile: that is no matter of its health
        after = health.judge(before, result, record.spec.health, runtime.started_ns)
        write_file(health.path(record), codec.dumps(after.to_data()))
    except (NotFound, FormatError, KernelError):
        return 0
    if after.status != before.status:
        events.container(f"health_status: {after.status}", record)
        if after.status == "unhealthy":
            _act(record, runtime)
    starting = after.status == "starting" and health.in_start_period(
        record.spec.health, runtime.started_ns
    )
    return STARTING if starting else 0


class _TimedOut(Exception):
    pass


def _run(record: Record, runtime: Runtime) -> health.Result | None:
    """The command, in the container; it dies with us. None where nothing runs there any more.

    What is paused in the midst of it goes on later, and has all its time from then on.
    """

    paused = False

    def time_over(*_: object) -> None:
        nonlocal paused
        was_paused, paused = paused, frozen(probe(), runtime.cgroup)
        if not (was_paused or paused):
            raise _TimedOut
        setitimer(ITIMER_REAL, _LOOK if paused else seconds)

    seconds = max(record.spec.health.timeout, 1) / 1e6
    started = time.time_ns()
    output = posix.memfd_create("health", posix.MFD_CLOEXEC)
    for fd in (1, 2):
        posix.dup2(output, fd)
    _signal.signal(_signal.SIGALRM, time_over)
    setitimer(ITIMER_REAL, seconds)
    spec = ExecSpec(argv=record.spec.health.command, told=False)
    try:
        code = execute.exec_in(record, spec)
        text = ""
    except _TimedOut:
        code = _TIMED_OUT
        text = f"Health check exceeded timeout ({record.spec.health.timeout / 1e6:g}s)\n"
    except Conflict:
        return None
    except SysboxError as error:
        code, text = _FAILED, f"{error.message}\n"
    finally:
        setitimer(ITIMER_REAL, 0)
    shown = posix.pread(output, _OUTPUT, 0).decode("utf-8", "replace")
    return health.Result(
        started_ns=started, finished_ns=time.time_ns(), exit_code=code, output=shown + text
    )


def _act(record: Record, runtime: Runtime) -> None:
    """`--health-on-failure`. This process belongs to the service: what ends that is left to systemd."""
    wish = record.spec.health.on_failure
    if wish == "none":
        return
    if wish == "restart":
        restarting.restart_elsewhere(record)
        return
    if wish == "stop":
        restarting.stopped(record)
        if restarting.end(record):
            return
    ending.send(runtime, 9 if wish == "kill" else ending.stop_signal(record))
