"""How a run ended, as it is recorded: exited, signalled, oom, timeout, lost or failed."""

from __future__ import annotations

import time

from sysbox.base import codec
from sysbox.base.errors import FAILED, FormatError, Interrupted, StartError, SysboxError
from sysbox.base.files import read_file, unlink, write_file
from sysbox.container import store, systemd_mode
from sysbox.container.records import Ended, Final, Usage
from sysbox.host import exists, probe
from sysbox.run import backoff
from sysbox.units import unit_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.records import Record, Runtime

# files in the directory of a run
_TIMED_OUT, _STOPPED, _KEPT = "timeout", "stopped", "kept"
_LOST = 137  # as after SIGKILL: no process saw how it ended


def of_monitor(directory: str) -> Ended | None:
    """The end that the monitor wrote; None if it wrote none. Raises FormatError."""
    from sysbox.units.cgroup.usage import parse_usage  # the foreground does not need it

    data = read_file(f"{directory}/exit")
    if data is None:
        return None
    where = f"{directory}/exit"
    values = codec.loads(data, where)
    try:
        return Ended(
            usage=parse_usage(values.get("usage", {})),
            code=int(values["code"]),
            signal=int(values["signal"]),
            oom=bool(values["oom"]),
            oom_told=bool(values.get("oom_told", False)),
            timeout=bool(values["timeout"]),
            stopped=bool(values.get("stopped", False)),
            unrecorded=bool(values.get("unrecorded", False)),
            finished_ns=int(values["finished"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{where}: not the end of a run: {error!r}") from None


def of_run(record: Record, runtime: Runtime, ended: Ended | None) -> Final:
    """The end of a run that has begun; `ended` is what its supervisor saw, None if that was killed."""
    policy = unit_file.has_policy(record)
    if ended is None:
        final = unseen(runtime.started_ns, "its supervisor was killed")
        return final.replace(quick_ends=_quick_ends(record, runtime) if policy else 0)
    code = systemd_mode.exit_status(record.spec, record.argv, ended.code)
    stopped = ended.stopped or exists(f"{record.run_directory}/{_STOPPED}")
    rebooted = code != ended.code and ended.signal == systemd_mode.RESTART and not stopped
    if code != ended.code:
        # systemd inside ended by itself: its reboot(2) looks like a signal
        ended = ended.replace(code=code, signal=0)
    victims: tuple[str, ...] = ()
    if ended.oom or _may_be_victim(record, ended):
        victims = _victims(runtime, _previous(record))
        ended = ended.replace(oom=ended.oom or bool(victims))
    how = _how(record, ended)
    return Final(
        exit_code=code,
        rebooted=rebooted,
        started_ns=runtime.started_ns,
        finished_ns=ended.finished_ns or store.now_ns(),
        how=how,
        signal=ended.signal,
        oom_killed=ended.oom,
        victims=victims,
        error=ended.error,
        quick_ends=_quick_ends(record, runtime) if policy or rebooted else 0,
        usage=ended.usage,
    )


def unseen(started_ns: int, why: str) -> Final:
    """The end of a run that no supervisor saw."""
    return Final(
        exit_code=_LOST,
        started_ns=started_ns,
        finished_ns=store.now_ns(),
        how="lost",
        error=f"nobody saw how it ended: {why}",
    )


def _quick_ends(record: Record, runtime: Runtime) -> int:
    return backoff.quick_ends(_previous(record), store.now_ns() - runtime.started_ns)


def _previous(record: Record) -> Final | None:
    try:
        return store.final(record.id)
    except FormatError:
        return None  # ignoring: it is about to be replaced


def _how(record: Record, ended: Ended) -> str:
    if ended.oom and ended.signal == 9:
        return "oom"
    if ended.timeout or (ended.signal == 9 and exists(f"{record.run_directory}/{_TIMED_OUT}")):
        return "timeout"
    return "signalled" if ended.signal else "exited"


def _may_be_victim(record: Record, ended: Ended) -> bool:
    """Whether to ask the kernel's log: on cgroup v2 the counter goes with the cgroup, sometimes unread."""
    if probe().cgroup_mode != "v2":
        return False
    if ended.usage == Usage() and not record.spec.remove:  # with --rm it is not read
        return True  # the cgroup went first: any of its processes may have been killed
    return ended.signal == 9 and _how(record, ended) != "timeout"


def _victims(runtime: Runtime, previous: Final | None) -> tuple[str, ...]:
    """The victims of this run in the kernel's log, from the middle of the pause before it on.

    The log has monotonic times; the wall clock may have been set since.
    """
    from sysbox.linux import kmsg

    if previous is None:
        return kmsg.oom_victims(runtime.scope, 0)
    between_ns = (previous.finished_ns + runtime.started_ns) // 2
    ago_us = (time.time_ns() - between_ns) // 1000
    return kmsg.oom_victims(runtime.scope, time.monotonic_ns() // 1000 - ago_us)


def of_start(record: Record, error: BaseException, phase: str = "") -> Final:
    """The end of a start that failed: that of the run before, with the error added.

    `phase` is how far the start came, unless the error says so.
    """
    phase = error.phase if isinstance(error, StartError) else phase
    message = reason(error)
    previous = _previous(record)
    # systemd tries again: each failed start makes the back-off longer
    quick = backoff.quick_ends(previous, 0) if unit_file.has_policy(record) else 0
    if previous is not None and previous.started_ns:
        # the restart that the run before asked for was tried just now
        return previous.replace(phase=phase, error=message, quick_ends=quick, rebooted=False)
    return Final(
        exit_code=error.status if isinstance(error, SysboxError) else FAILED,
        started_ns=0,
        finished_ns=store.now_ns(),
        how="failed",
        phase=phase,
        error=message,
        quick_ends=quick,
    )


def reason(error: BaseException) -> str:
    """The text of an error in the record."""
    if isinstance(error, SysboxError):
        return error.message
    if isinstance(error, Interrupted):
        return f"signal {error.number} ended the start"
    return f"{error}" if isinstance(error, OSError) else f"interrupted: {error!r}"


def mark_timed_out(record: Record) -> None:
    """Note that a SIGKILL from now on means that the container did not stop in time."""
    _mark(record, _TIMED_OUT)


def mark_stopped(record: Record) -> None:
    """Note that its user stops it: a reboot from now on is an end like any other."""
    if systemd_mode.applies(record.spec, record.argv):
        _mark(record, _STOPPED)


def mark_kept(record: Record) -> None:
    """Note that the end of this run does not remove the container, --rm or not: it is started again."""
    _mark(record, _KEPT)


def is_kept(record: Record) -> bool:
    """Whether `mark_kept` was called for this run, whose directory is still there."""
    return exists(f"{record.run_directory}/{_KEPT}")


def forget_stop(record: Record) -> None:
    """Undo `mark_stopped` and `mark_kept`: whoever stopped it has given up."""
    for name in (_STOPPED, _KEPT):
        unlink(f"{record.run_directory}/{name}")


def _mark(record: Record, what: str) -> None:
    if exists(record.run_directory):
        write_file(f"{record.run_directory}/{what}", b"")
