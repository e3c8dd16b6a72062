"""`sysbox logs`: what a container wrote, standard output and standard error apart."""

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
_KEPT = 1 << 16  # bytes that are printed together


# the events that tell of a container
_KINDS = [one for (kind, _), one in events.MESSAGE_IDS.items() if kind == "container"]


def main(values: Values) -> int:
    """0 once all is printed; with -f, once the container has stopped."""
    since, until = _moment(values.since, "--since"), _moment(values.until, "--until")
    try:
        record = store.find(values.container)
    except NotFound:
        unit = journalread.find_removed_scope(values.container, _KINDS)
        if not unit:
            raise
        return _from_journal(unit, values, since, until)
    unit = names.scope_unit(record.id)
    details = _details(record) if values.details else {}
    printer = _Printer(details, timestamps=values.timestamps)
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
        # what was written last may not have come through journalctl -f
        printer.skip_shown()
        begin = since if printer.last is None else printer.last
        lines = _lines(values.tail) if printer.last is None else None
        for line in journalread.read_logs(unit, since=begin, lines=lines):
            printer.show(line)
    printer.flush()
    return 0


def _from_journal(unit: str, values: Values, since: int | None, until: int | None) -> int:
    """Of a container that was removed."""
    printer = _Printer({}, timestamps=values.timestamps)
    for line in journalread.read_logs(unit, since=since, until=until, lines=_lines(values.tail)):
        printer.show(line)
    printer.flush()
    return 0


def _details(record: store.Record) -> dict[str, str]:
    """The labels and variables that --log-opt has chosen."""
    from sysbox.container import log_options
    from sysbox.image.resolved import resolved_of

    if not record.spec.logging.env:
        return log_options.attributes(record, ())
    return log_options.attributes(record, resolved_of(record).env)


def _from_file(
    record: store.Record, values: Values, printer: _Printer, since: int | None, until: int | None
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
    """Descriptors of the processes with whose end the log ends; None for a container that does not run."""
    runtime = store.runtime(record.id)
    if runtime is None or not runtime.alive():
        return None
    fds = []
    # the payload, and what pumps its terminal into the log
    for pid in (runtime.pid, runtime.supervisor):
        try:
            fds.append(process.pidfd(pid))
        except (KernelError, OSError):
            pass  # it has ended: nothing to wait for
    return fds


def _wait_readable(fd: int, ends: list[int]) -> bool:
    """Wait until there is something to read; False where nothing is, and all of the others have ended."""
    while True:
        poll = select.poll()
        for one in (fd, *ends):
            poll.register(one, select.POLLIN)
        ready = {one for one, _ in poll.poll(None if ends else 0)}
        if fd in ready or not ends:
            return fd in ready
        ends[:] = [one for one in ends if one not in ready]


class _Printer:
    """Prints lines once each, and knows which one was the last."""

    def __init__(self, details: dict[str, str], *, timestamps: bool) -> None:
        self.timestamps = timestamps
        self.at_once = False  # each line, since nobody knows when the next one comes
        pairs = ",".join(f"{key}={details[key]}" for key in sorted(details))
        self.details = f"{pairs} ".encode("utf-8", "surrogateescape") if pairs else b""
        self._kept: list[bytes] = []
        self._size = 0
        self._target = 1  # of what is kept
        self.last: int | None = None  # microseconds since 1970
        self._shown = 0  # lines that bear that time
        self._skip = 0
        self._at_start = {1: True, 2: True}

    def skip_shown(self) -> None:
        """Lines are read again from the last one's time on: pass over those that were printed."""
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
        """Print what is kept, so that both streams stay in their order."""
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
