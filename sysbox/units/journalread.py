"""Reading a container's log, and events, through journalctl(1): what root wrote, and nobody else.

Any local user may write entries with any field that does not begin with "_" (systemd.journal-fields(7)).
Those that do are journald's own: who wrote it, and in which unit. So a log is what was written in the
container's scope, and an event is what root wrote outside of all containers and has signed (signature.py).
"""

from __future__ import annotations

import posix

from sysbox.base.errors import FormatError, SysboxError, Unsupported
from sysbox.base.frozen import Frozen
from sysbox.units import journal, names, signature

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Entry = dict[bytes, bytes]

STDOUT_PRIORITY = 6  # info
STDERR_PRIORITY = 3  # err
_PRIORITY_MAX = 7  # debug
_DIGITS_MAX = 20  # digits from which on a number may not fit into 64 bits

_JOURNALCTL = "/usr/bin/journalctl"
_CHUNK = 1 << 17
_ENTRY_MAX = (
    64 << 20
) + 4096  # journald's own bound for a field is 64 MiB (DATA_SIZE_MAX); and its name
_EVENT_FIELDS = ",".join((*signature.FIELDS, signature.FIELD, "_UID", "_SYSTEMD_CGROUP"))
_DELAY = 60_000_000  # microseconds until journald has read an event: one that comes later is a copy
_FIELDS = "MESSAGE,PRIORITY,CONTAINER_PARTIAL_MESSAGE,_LINE_BREAK"
# of a line that came by a stream: why journald ended it other than at its newline -> what stood there
_BREAKS = {b"nul": b"\0", b"line-max": b"", b"eof": b"", b"pid-change": b""}


class LogLine(Frozen):
    """A line of a container's output, or a piece of one; `message` ends as the payload ended it."""

    timestamp: int  # microseconds since 1970
    priority: int  # STDOUT_PRIORITY or STDERR_PRIORITY; in between where lines were dropped
    message: bytes


def journal_arguments(
    unit: str,
    *,
    follow: bool = False,
    since: int | None = None,
    until: int | None = None,
    lines: int | None = None,
) -> list[str]:
    """journalctl's argv for the payload's own lines (not systemd's about the unit); times in
    microseconds since 1970, `lines` the last so many.
    """
    argv = _journalctl(follow=follow, since=since, until=until, lines=lines)
    argv.append(f"--output-fields={_FIELDS}")
    # what the supervisor sent; and what came by a stream to journald, as version 0.1 once had it
    ours = [f"_SYSTEMD_UNIT={unit}", "SYSBOX_STREAM=stdout", "SYSBOX_STREAM=stderr"]
    return [*argv, *ours, "+", f"_SYSTEMD_UNIT={unit}", "_TRANSPORT=stdout"]


def event_arguments(
    message_ids: list[str],
    *matches: str,
    follow: bool = False,
    since: int | None = None,
    until: int | None = None,
    lines: int | None = None,
) -> list[str]:
    """journalctl's argv for root's records of these kinds; times in microseconds since 1970.

    Without `since`, those alone that come from now on. What comes is for `is_trusted` to judge.
    """
    if lines is None and since is None and follow:
        lines = 0
    argv = _journalctl(follow=follow, since=since, until=until, lines=lines)
    argv.append(f"--output-fields={_EVENT_FIELDS}")
    return [*argv, *(f"MESSAGE_ID={one}" for one in message_ids), *matches, "_UID=0"]


def is_trusted(entry: Entry) -> bool:
    """Whether sysbox wrote this event, as root on this host: it is signed, and not sent again by somebody.

    What is older than the key is not signed. That is trusted if journald knows where it came from, and that
    is no container.
    """
    cgroup = _text(entry, b"_SYSTEMD_CGROUP")
    inside = any(
        names.container_of(part) for part in cgroup.split("/") if part.startswith("docker-")
    )
    if entry.get(b"_UID") != b"0" or inside:
        return False
    try:
        key = signature.read_key()
    except FormatError:
        return False
    received = _number(entry, b"__REALTIME_TIMESTAMP")
    mark = entry.get(signature.FIELD.encode())
    if mark is None:
        return bool(cgroup) and 0 <= received < signature.key_time_us()
    if key is None or mark != signature.sign(entry, key):
        return False
    told = _number(entry, b"SYSBOX_TIME_NSEC") // 1000
    return received >= 0 and abs(received - told) <= _DELAY


def _journalctl(
    *,
    lines: int | None,
    follow: bool = False,
    since: int | None = None,
    until: int | None = None,
) -> list[str]:
    argv = ["journalctl", "--output=export", "--all", "--no-pager", "--quiet"]
    argv.append(f"--lines={'all' if lines is None else lines}")
    if follow:
        argv.append("--follow")
    for option, moment in (("since", since), ("until", until)):
        if moment is not None:
            argv.append(f"--{option}=@{moment // 1_000_000}.{moment % 1_000_000:06d}")
    return argv


def find_removed_scope(container: str, kinds: list[str]) -> str:
    """The scope of the latest container with this name or id that was removed; "" where the journal knows of
    none. `kinds` are the MESSAGE_IDs of the events that tell of one.
    """
    for field in ("SYSBOX_NAME", "SYSBOX_ID"):
        for entry in entries([*event_arguments(kinds, f"{field}={container}"), "--reverse"]):
            unit = f"docker-{_text(entry, b'SYSBOX_ID')}.scope"
            # journalctl finds an entry by any of the values of a field, and ours is the first of them
            found = _text(entry, field.encode()) == container
            if found and is_trusted(entry) and names.container_of(unit):
                return unit
    for entry in entries([*_journalctl(lines=None), "--reverse", f"CONTAINER_ID={container[:12]}"]):
        unit = _text(entry, b"_SYSTEMD_UNIT")
        if names.container_of(unit).startswith(container):
            return unit
    return ""


def _text(entry: Entry, field: bytes) -> str:
    return entry.get(field, b"").decode("utf-8", "replace")


def _number(entry: Entry, field: bytes) -> int:
    """A decimal number of at most 63 bits; -1 where there is none."""
    value = entry.get(field, b"")
    return int(value) if value.isdigit() and len(value) < _DIGITS_MAX else -1


def parse_entry(entry: Entry) -> LogLine:
    """Raises FormatError where it is not journalctl's. A priority that is none is that of output: the
    container may have chosen it.
    """
    if entry.get(b"CONTAINER_PARTIAL_MESSAGE") == b"true":
        ending = b""
    else:
        ending = _BREAKS.get(entry.get(b"_LINE_BREAK", b""), b"\n")
    timestamp, priority = _number(entry, b"__REALTIME_TIMESTAMP"), _number(entry, b"PRIORITY")
    if timestamp < 0:
        raise FormatError("journalctl: a malformed entry: it says no time")
    return LogLine(
        timestamp=timestamp,
        priority=priority if 0 <= priority <= _PRIORITY_MAX else STDOUT_PRIORITY,
        message=entry.get(b"MESSAGE", b"") + ending,
    )


def read_logs(
    unit: str,
    *,
    follow: Callable[[int], bool] | None = None,
    since: int | None = None,
    until: int | None = None,
    lines: int | None = None,
) -> Iterator[LogLine]:
    """The payload's lines, oldest first; see `journal_arguments`. With `follow` it goes on until that says
    False: see `entries`. Raises Unsupported without journalctl.
    """
    journal.synchronize()
    argv = journal_arguments(unit, follow=follow is not None, since=since, until=until, lines=lines)
    for entry in entries(argv, follow):
        yield parse_entry(entry)


def entries(argv: list[str], wait: Callable[[int], bool] | None = None) -> Iterator[Entry]:
    """What journalctl exports; raises SysboxError where it fails.

    `wait` is called with its descriptor before each read, and ends it by saying False.
    """
    pid, fd = start_journalctl(argv)
    status = None
    parser = Parser()
    try:
        while wait is None or wait(fd):
            if not (chunk := posix.read(fd, _CHUNK)):
                break
            yield from parser.feed(chunk)
        else:
            return  # it would go on
        status = posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1])
    finally:
        posix.close(fd)
        if status is None:
            stop_journalctl(pid)
    if status:
        raise SysboxError(f"journalctl exited with status {status}", hint="it said why above")


class Parser:
    """The journal's export format (https://systemd.io/JOURNAL_EXPORT_FORMATS), as it comes in pieces.

    A field is NAME=text in a line; or the name alone, a length in 64 bits, little-endian, so many bytes of
    any kind, and a newline. An empty line ends an entry. Of a field that comes twice the first counts.
    """

    def __init__(self) -> None:
        self._pending = b""
        self._entry: Entry = {}

    def feed(self, chunk: bytes) -> Iterator[Entry]:
        """The entries that are complete now. Raises FormatError."""
        data = self._pending + chunk if self._pending else chunk
        entry = self._entry
        at = 0
        while (end := data.find(b"\n", at)) >= 0:
            if end == at:
                at += 1
                if entry:
                    yield entry
                entry = self._entry = {}
                continue
            name, mark, value = data[at:end].partition(b"=")
            after = end + 1
            if not mark:
                begin = after + 8
                after = begin + int.from_bytes(data[after:begin], "little") + 1
                if after - at > _ENTRY_MAX:
                    raise FormatError("journalctl: a field over 64 MiB")
                if after > len(data):
                    break
                value = data[begin : after - 1]
            entry.setdefault(name, value)
            at = after
        self._pending = data[at:]
        if len(self._pending) > _ENTRY_MAX:
            raise FormatError("journalctl: an entry over 64 MiB")


def start_journalctl(argv: list[str]) -> tuple[int, int]:
    """Start journalctl, with nothing of our environment but the locale: its pid, and its output."""
    read_end, write_end = posix.pipe2(posix.O_CLOEXEC)
    env = {"LANG": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    try:
        pid = posix.posix_spawn(
            _JOURNALCTL, argv, env, file_actions=[(posix.POSIX_SPAWN_DUP2, write_end, 1)]
        )
    except OSError as error:
        posix.close(read_end)
        raise Unsupported(f"{_JOURNALCTL}: {posix.strerror(error.errno or 0)}") from None
    finally:
        posix.close(write_end)
    return pid, read_end


def stop_journalctl(pid: int) -> None:
    """End our journalctl, which the caller stopped reading."""
    import _signal

    try:
        posix.kill(pid, _signal.SIGTERM)
        posix.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass
