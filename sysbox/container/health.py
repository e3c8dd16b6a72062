"""Health: the check of a container, the state of its run, and the state after the next result."""

from __future__ import annotations

import time

from sysbox.base import codec
from sysbox.base.errors import FormatError, SpecError
from sysbox.base.files import read_file
from sysbox.base.frozen import Frozen
from sysbox.spec import Health

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.records import Record

DEFAULTS = Health(
    interval=30_000_000, timeout=30_000_000, start_period=0, start_interval=5_000_000, retries=3
)
# characters of output that the state of a run holds: JSON takes six bytes for some, and a file has 1 MiB
MOST_OUTPUT = 1 << 17
# microseconds: the shortest interval that an image may set, since each check costs the host some 40 ms of CPU
# time, which no limit of the container bounds. The user may set a shorter one.
FLOOR = 1_000_000


class Result(Frozen):
    """The result of one check."""

    started_ns: int
    finished_ns: int
    exit_code: int  # 0 is success, -1 a timeout
    output: str


class State(Frozen):
    """The health of a run."""

    status: str = "starting"  # starting, healthy, unhealthy
    failing_streak: int = 0
    log: tuple[Result, ...] = ()
    # of the start-up check: successes in a row, and failures; `started` once it has succeeded often enough
    started: bool = False
    successes: int = 0
    failures: int = 0


def merge(asked: Health, image: Health | None) -> Health:
    """Each setting is the user's, else the image's, else docker's default; without a command, no check.

    Raises SpecError for a start-up check alone.
    """
    if asked.disabled:
        return Health(disabled=True)
    chosen = asked
    for source in (_bounded(image), DEFAULTS):
        if source is None or source.disabled:
            continue
        missing = {
            field: getattr(source, field)
            for field in ("interval", "timeout", "start_period", "start_interval", "retries")
            if getattr(chosen, field) < 0
        }
        chosen = chosen.replace(**missing, command=chosen.command or source.command)
    if chosen.startup_command and not chosen.command:
        raise SpecError(
            "--health-startup-cmd: there is no health check that begins after it",
            hint="--health-cmd is one",
        )
    return chosen


def _bounded(image: Health | None) -> Health | None:
    """The image's check, its intervals raised to FLOOR at least."""
    if image is None:
        return None
    slower = {
        field: max(getattr(image, field), FLOOR)
        for field in ("interval", "start_interval")
        if getattr(image, field) >= 0
    }
    return image.replace(**slower)


def status(record: Record) -> State | None:
    """The health of the current run; None without checks.

    A damaged file counts as a missing one: the next check replaces it.
    """
    if not record.spec.health.command:
        return None
    where = f"the health of container {record.id[:12]}"
    try:
        data = read_file(path(record))
        return State() if data is None else State.from_data(codec.loads(data, where), where)
    except (FormatError, ValueError):
        return State()


def path(record: Record) -> str:
    """The file with the health of the current run."""
    return f"{record.run_directory}/health.json"


def judge(before: State, result: Result, health: Health, started_ns: int) -> State:
    """The state after `result`, by docker's rule: healthy after one success, unhealthy after `retries`
    failures in a row; until the first success, those in the start period do not count.
    """
    log = _kept((*before.log, result)[-health.kept :])
    if is_starting(before, health):
        return _judge_start(before.replace(log=log), result, health)
    if result.exit_code == 0:
        return State(status="healthy", log=log, started=before.started)
    if before.status == "starting" and in_start_period(health, started_ns, result.started_ns):
        return before.replace(log=log)
    streak = before.failing_streak + 1
    status = "unhealthy" if streak >= health.retries else before.status
    return before.replace(status=status, failing_streak=streak, log=log)


def _kept(log: tuple[Result, ...]) -> tuple[Result, ...]:
    """The last results whose output fits into the file."""
    left, found = MOST_OUTPUT, 0
    for one in reversed(log):
        left -= len(one.output)
        if left < 0:
            break
        found += 1
    return log[-found:] if found else ()


def is_starting(state: State, health: Health) -> bool:
    """Whether the start-up check is the one to make."""
    return bool(health.startup_command) and not state.started


def _judge_start(before: State, result: Result, health: Health) -> State:
    """The state after a start-up check: it is never healthy by that alone, which the other check decides."""
    if result.exit_code:
        return before.replace(successes=0, failures=before.failures + 1)
    count = before.successes + 1
    return before.replace(successes=count, failures=0, started=count >= health.startup_successes)


def has_not_started(state: State, health: Health) -> bool:
    """Whether the start-up check has failed as often as it may."""
    return is_starting(state, health) and 0 < health.startup_retries <= state.failures


def in_start_period(health: Health, started_ns: int, now_ns: int = 0) -> bool:
    """Whether failures do not count yet, at `now_ns` (0: now)."""
    return (now_ns or time.time_ns()) - started_ns < health.start_period * 1000
