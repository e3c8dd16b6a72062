"""`sysbox logs`: the output of a container; its standard error goes to standard error."""

from __future__ import annotations

import select
import time

from sysbox.base.errors import Conflict, KernelError, NotFound
from sysbox.cli.output import write_all
from sysbox.container import events, store
from sysbox.linux import process
from sysbox.units import journalread, names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values
    from sysbox.units.journalread import LogLine

_MICRO = 1_000_000
_KEPT = 1 << 16  # bytes that are written together


# message ids of the events of containers
_KINDS = [one for (kind, _), one in events.MESSAGE_IDS.items() if kind == "container"]


def main(values: Values) -> int:
    """0 once all is printed; with -f, once the container has stopped."""
    try:
        record = store.find(values.container)
    except NotFound:
        since, until = _times(values)
        unit, driver = journalread.find_removed_scope(values.container, _KINDS)
        if not unit:
            raise
        _check_driver(values.container, driver)
        return _from_journal(unit, values, since, until)
    details = _details(record) if values.details else {}
    return show(record, values, Printer(details, timestamps=values.timestamps))


def show(record: store.Record, values: Values, printer: Printer) -> int:
    """Print the log of a container as `logs` does, with its flags but --details. Raises Conflict."""
    since, until = _times(values)
    unit = names.scope_unit(record.id)
    if record.spec.logging.driver != "journald":
        return _from_file(record, values, printer, since, until)
    ends = _end_pidfds(record) if values.follow and until is None else None
    printer.at_once = ends is not None
    follow = None if ends is None else lambda fd: _wait_readable(fd, ends)
    for line in journalread.read_logs(
        unit, follow=follow, since=since, until=until, lines=_lines(values.tail)
    ):
        printer.show(line)
    if follow:
        # journalctl -f may have been ended before it printed the last lines
        printer.skip_shown()
        begin = since if printer.last is None else printer.last
        lines = _lines(values.tail) if printer.last is None else None
        for line in journalread.read_logs(unit, since=begin, lines=lines):
            printer.show(line)
    printer.flush()
    return 0


def _check_driver(container: str, driver: str) -> None:
    """Raise Conflict where a removed container has left nothing in the journal; "" is unknown."""
    if driver == "json-file":
        raise Conflict(
            f"the log of the removed container {container} was a file, and was removed with it",
            hint="the journal keeps the log of a container that is removed: --log-driver journald",
            status=1,
        )
    if driver == "none":
        raise Conflict(f"the removed container {container} kept no log", status=1)


def _from_journal(unit: str, values: Values, since: int | None, until: int | None) -> int:
    """Print the log of a container that was removed."""
    printer = Printer({}, timestamps=values.timestamps)
    for line in journalread.read_logs(unit, since=since, until=until, lines=_lines(values.tail)):
        printer.show(line)
    printer.flush()
    return 0


def _details(record: store.Record) -> dict[str, str]:
    """The labels and environment variables that --log-opt chose for the log."""
    from sysbox.container import log_options
    from sysbox.image.resolved import resolved_of

    if not record.spec.logging.env:
        return log_options.attributes(record, ())
    return log_options.attributes(record, resolved_of(record).env)


def _from_file(
    record: store.Record, values: Values, printer: Printer, since: int | None, until: int | None
) -> int:
    if record.spec.logging.driver == "none":
        raise Conflict(f"container {record.name} keeps no log (--log-driver none)", status=1)
    from sysbox.run import json_log

    def goes_on() -> bool:
        runtime = store.runtime(record.id)
        return runtime is not None and (runtime.alive() or runtime.supervised())

    printer.at_once = values.follow
    try:
        for line in json_log.read_logs(
            record.log_path,
            files=record.spec.logging.max_files,
            goes_on=goes_on if values.follow and until is None else None,
            since=since,
            until=until,
            lines=_lines(values.tail),
        ):
            printer.show(line)
    finally:
        printer.flush()
    return 0


def _times(values: Values) -> tuple[int | None, int | None]:
    return _moment(values.since, "--since"), _moment(values.until, "--until")


def _moment(text: str | None, flag: str) -> int | None:
    if text is None:
        return None
    from sysbox.parse.time import parse_moment

    return int(parse_moment(text, flag, time.time()) * _MICRO)


def _lines(text: str | None) -> int | None:
    if text is None or text == "all" or text.startswith("-"):
        return None
    from sysbox.parse.common import parse_int

    return parse_int(text, "--tail", 0, 1 << 31)


def _end_pidfds(record: store.Record) -> list[int] | None:
    """Pidfds of the processes that write to the log; None for a container that does not run."""
    runtime = store.runtime(record.id)
    if runtime is None or not runtime.alive():
        return None
    fds = []
    # the payload, and the supervisor, which copies its output to the log
    for pid in (runtime.pid, runtime.supervisor):
        try:
            fds.append(process.pidfd(pid))
        except (KernelError, OSError):
            pass  # the process has ended: nothing to wait for
    return fds


def _wait_readable(fd: int, ends: list[int]) -> bool:
    """Wait until `fd` is readable; False once all processes of the pidfds `ends` have ended and it is not.

    Removes from `ends` the pidfds of processes that have ended.
    """
    while True:
        poll = select.poll()
        for one in (fd, *ends):
            poll.register(one, select.POLLIN)
        ready = {one for one, _ in poll.poll(None if ends else 0)}
        if fd in ready or not ends:
            return fd in ready
        ends[:] = [one for one in ends if one not in ready]


class Printer:
    """Prints each line once, and keeps the time of the last one."""

    def __init__(self, details: dict[str, str], *, timestamps: bool) -> None:
        self.timestamps = timestamps
        self.at_once = False  # write each line at once, without waiting for more
        pairs = ",".join(f"{key}={details[key]}" for key in sorted(details))
        self.details = f"{pairs} ".encode("utf-8", "surrogateescape") if pairs else b""
        self._kept: list[bytes] = []
        self._size = 0
        self._target = 1  # descriptor for the lines in _kept
        self.last: int | None = None  # time of the last line, microseconds since 1970
        self._shown = 0  # lines printed with that time
        self._skip = 0
        self._at_start = {1: True, 2: True}

    def skip_shown(self) -> None:
        """The log is read again from the last line's time on: skip the lines of that time already printed."""
        self._skip = self._shown

    def show(self, line: LogLine) -> None:
        if self._skip and line.timestamp == self.last:
            self._skip -= 1
            return
        self._skip = 0
        self._shown = self._shown + 1 if line.timestamp == self.last else 1
        self.last = line.timestamp
        fd = 2 if line.priority < journalread.STDOUT_PRIORITY else 1
        prefix = self._prefix(line) if self._at_start[fd] else b""
        self._at_start[fd] = line.message.endswith(b"\n")
        if fd != self._target or self._size > _KEPT:
            self.flush()
        self._target = fd
        self._kept.append(prefix + line.message)
        self._size += len(line.message)
        if self.at_once:
            self.flush()

    def flush(self) -> None:
        """Write the lines that are kept; done before the stream changes, so that the order is kept."""
        if self._kept:
            write_all(self._target, b"".join(self._kept))
        self._kept = []
        self._size = 0

    def _prefix(self, line: LogLine) -> bytes:
        if not self.timestamps:
            return self.details
        seconds, micro = divmod(line.timestamp, _MICRO)
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        return f"{moment}.{micro:06}000Z ".encode() + self.details
