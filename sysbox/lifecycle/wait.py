"""`sysbox wait`: until a container does not run, until it has ended once more, or until it is removed.

The names of the conditions are those of docker's API. While the container runs, its first process is waited
for; before and after, a change in the directories of its records, by F_NOTIFY of fcntl(2).
"""

from __future__ import annotations

import _signal
import fcntl
import posix

from sysbox.base.errors import FormatError, NotFound
from sysbox.base.files import is_directory
from sysbox.base.paths import CONTAINERS, RUN_CONTAINERS
from sysbox.base.wait import until
from sysbox.container import events, store, systemd_mode
from sysbox.lifecycle import control
from sysbox.run import exit_record
from sysbox.run.exit import settle
from sysbox.units import journal, journalread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from sysbox.container.store import Record, Runtime

NOT_RUNNING, NEXT_EXIT, REMOVED = CONDITIONS = ("not-running", "next-exit", "removed")
_PATIENCE = 10.0  # seconds for a supervisor to record the end
_STEP = 0.004
_CODE_DIGITS = 3  # of an exit status
_LOOK = 5.0  # seconds after which everything is read again even without a notification
_CHANGES = fcntl.DN_CREATE | fcntl.DN_DELETE | fcntl.DN_RENAME | fcntl.DN_MULTISHOT


def wait(record: Record, condition: str = NOT_RUNNING) -> int:
    """The exit status of the run that ended; 0 if there was none. Raises NotFound, FormatError."""
    control.settle_if_dead(record)
    runtime = store.runtime(record.id)
    if runtime is not None and runtime.alive():
        code = _end_of(record, runtime)
    elif condition == NEXT_EXIT or runtime is not None:
        # one that is about to start, again or for the first time, counts as running
        code = _next_exit(record)
    else:
        final = store.final(record.id)
        code = final.exit_code if final else 0
    if condition == REMOVED:
        with _Watch(CONTAINERS) as watch:
            while is_directory(record.directory):
                watch.pause()
    return code


def _next_exit(record: Record) -> int:
    before = store.final(record.id)
    with _Watch(RUN_CONTAINERS, record.directory) as watch:
        while True:
            runtime = store.runtime(record.id)
            if runtime is not None and runtime.alive():
                return _end_of(record, runtime)
            final = store.final(record.id)
            if final is not None and final != before:
                return final.exit_code
            if not is_directory(record.directory):
                code = _told(record)
                if code is None:
                    raise NotFound(f"container {record.name} was removed")
                return code
            # the process is recorded a moment after the run
            watch.pause(_LOOK if runtime is None else _STEP)


def _end_of(record: Record, runtime: Runtime) -> int:
    """Wait for the end of a run; its status, by what the monitor wrote or by the record, as they come."""
    runtime.await_end()
    ended = None

    def told() -> bool:
        nonlocal ended
        try:
            # with --rm there may be no record of the end a moment later
            ended = exit_record.of_monitor(record.run_directory)
        except FormatError:
            pass  # being written
        current = store.runtime(record.id)
        over = current is None or current.pid != runtime.pid or not runtime.supervised()
        return over or ended is not None

    until(told, _PATIENCE, _STEP)
    if ended is not None:
        # so that the caller finds the end recorded
        settle(record.id)
        return systemd_mode.exit_status(record.spec, record.argv, ended.code)
    control.settle_if_dead(record)
    final = store.final(record.id)
    if final is not None:
        return final.exit_code
    return _told(record) or 0


def _told(record: Record) -> int | None:
    """The exit status in the last event of a removed container; None if there is none."""
    from sysbox.parse.common import is_digits  # rarely needed

    journal.synchronize()
    mark = events.MESSAGE_IDS["container", "die"]
    argv = [*journalread.event_arguments([mark], f"SYSBOX_ID={record.id}"), "--reverse"]
    for entry in journalread.entries(argv):
        event = events.parse(entry)
        if not event or event["Actor"]["ID"] != record.id:
            continue
        code = event["Actor"]["Attributes"].get("exitCode", "0")
        if is_digits(code) and len(code) <= _CODE_DIGITS:
            return int(code)
    return None


class _Watch:
    """Waits until a file is made, renamed or removed in some directories; a context manager."""

    def __init__(self, *directories: str) -> None:
        self._fds: list[int] = []
        self._directories = directories

    def __enter__(self) -> Self:
        # blocked, so that it stays pending for `pause`
        _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGIO,))
        for path in self._directories:
            try:
                fd = posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
            except FileNotFoundError:
                continue
            self._fds.append(fd)
            try:
                fcntl.fcntl(fd, fcntl.F_NOTIFY, _CHANGES)
            except OSError:
                pass  # ignoring: a kernel without F_NOTIFY; `pause` then waits for its time
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._fds:
            posix.close(fd)
        _signal.sigtimedwait((_signal.SIGIO,), 0)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGIO,))

    def pause(self, seconds: float = _LOOK) -> None:
        """Wait for a change, at most `seconds`."""
        _signal.sigtimedwait((_signal.SIGIO,), seconds)
