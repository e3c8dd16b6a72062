"""Read a container's log, and events, through journalctl(1), without entries that local users have forged.

Any local user may write entries with any field that does not begin with "_" (systemd.journal-fields(7)).
journald sets the fields that do: the sender's uid, its unit. So a log is what was sent from the container's
scope, and an event is what root sent from outside of all containers, with a signature (signature.py).
"""

from __future__ import annotations

import posix

from sysbox.base.errors import FormatError, SysboxError, Unsupported
from sysbox.base.frozen import Frozen
from sysbox.units import journal, names, signature

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    Entry = dict[bytes, bytes]

STDOUT_PRIORITY = 6  # info
STDERR_PRIORITY = 3  # err
_PRIORITY_MAX = 7  # debug
_DIGITS_MAX = 20  # a number of so many digits may not fit into 64 bits

_JOURNALCTL = "/usr/bin/journalctl"
_CHUNK = 1 << 17
# bytes: journald's own limit for a field, 64 MiB (DATA_SIZE_MAX), and room for its name
_ENTRY_MAX = (64 << 20) + 4096
_EVENT_FIELDS = ",".join(
    (*signature.FIELDS, signature.FIELD, "SYSBOX_LOG_DRIVER", "_UID", "_SYSTEMD_CGROUP")
)
_DELAY = 60_000_000  # microseconds until journald has read an event: a later one is a replay
_FIELDS = "MESSAGE,PRIORITY,CONTAINER_PARTIAL_MESSAGE,_LINE_BREAK"
# why journald ended a stream's line, if not at a newline (_LINE_BREAK=) -> the byte that was there
_BREAKS = {b"nul": b"\0", b"line-max": b"", b"eof": b"", b"pid-change": b""}


class LogLine(Frozen):
    """A line of a container's output, or a piece of one; `message` ends as the payload ended it."""

    timestamp: int  # microseconds since 1970
    priority: int  # STDOUT_PRIORITY or STDERR_PRIORITY; in between for a mark of dropped lines
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
    microseconds since 1970, `lines` for the last so many.
    """
    argv = _journalctl(follow=follow, since=since, until=until, lines=lines)
    argv.append(f"--output-fields={_FIELDS}")
    # lines that the supervisor sent, or lines of a stream to journald, which version 0.1 once used
    sent = [f"_SYSTEMD_UNIT={unit}", "SYSBOX_STREAM=stdout", "SYSBOX_STREAM=stderr"]
    return [*argv, *sent, "+", f"_SYSTEMD_UNIT={unit}", "_TRANSPORT=stdout"]


def event_arguments(
    message_ids: list[str],
    *matches: str,
    follow: bool = False,
    since: int | None = None,
    until: int | None = None,
) -> list[str]:
    """journalctl's argv for root's entries with these MESSAGE_IDs; times in microseconds since 1970.

    `follow` without `since` shows new ones only. The caller must ask `is_trusted` about each.
    """
    lines = 0 if since is None and follow else None
    argv = _journalctl(follow=follow, since=since, until=until, lines=lines)
    argv.append(f"--output-fields={_EVENT_FIELDS}")
    return [*argv, *(f"MESSAGE_ID={one}" for one in message_ids), *matches, "_UID=0"]


def is_trusted(entry: Entry) -> bool:
    """Whether sysbox wrote this event, as root on this host: it is signed, and no replay.

    An event older than the key is not signed. It is trusted if journald recorded its cgroup, and that is no
    container's.
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
    signed_us = _number(entry, b"SYSBOX_TIME_NSEC") // 1000
    return received >= 0 and abs(received - signed_us) <= _DELAY


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


def find_removed_scope(container: str, kinds: list[str]) -> tuple[str, str]:
    """The scope of the last removed container with this name or id, and the driver of its log, each "" if the
    journal does not say. `kinds` are the MESSAGE_IDs of the events to search.
    """
    for field in ("SYSBOX_NAME", "SYSBOX_ID"):
        for entry in entries([*event_arguments(kinds, f"{field}={container}"), "--reverse"]):
            unit = f"docker-{_text(entry, b'SYSBOX_ID')}.scope"
            # journalctl matches any value of a repeated field, and only the first one counts here
            found = _text(entry, field.encode()) == container
            if found and is_trusted(entry) and names.container_of(unit):
                return unit, _text(entry, b"SYSBOX_LOG_DRIVER")
    for entry in entries([*_journalctl(lines=None), "--reverse", f"CONTAINER_ID={container[:12]}"]):
        unit = _text(entry, b"_SYSTEMD_UNIT")
        if names.container_of(unit).startswith(container):
            return unit, ""
    return "", ""


def _text(entry: Entry, field: bytes) -> str:
    return entry.get(field, b"").decode("utf-8", "replace")


def _number(entry: Entry, field: bytes) -> int:
    """A decimal number of at most 63 bits; -1 if there is none."""
    value = entry.get(field, b"")
    return int(value) if value.isdigit() and len(value) < _DIGITS_MAX else -1


def parse_entry(entry: Entry) -> LogLine:
    """The line of an entry. Raises FormatError for an entry without a time. An invalid priority, which the
    container may have chosen, counts as that of standard output.
    """
    if entry.get(b"CONTAINER_PARTIAL_MESSAGE") == b"true":
        ending = b""
    else:
        ending = _BREAKS.get(entry.get(b"_LINE_BREAK", b""), b"\n")
    timestamp, priority = _number(entry, b"__REALTIME_TIMESTAMP"), _number(entry, b"PRIORITY")
    if timestamp < 0:
        raise FormatError("journalctl: a malformed entry: it has no time")
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
) -> Generator[LogLine, None, None]:
    """The payload's lines, oldest first; see `journal_arguments`. With `follow` also new ones, until it
    returns False: see `entries`. Raises Unsupported without journalctl.
    """
    journal.synchronize()
    argv = journal_arguments(unit, follow=follow is not None, since=since, until=until, lines=lines)
    for entry in entries(argv, follow):
        yield parse_entry(entry)


def entries(argv: list[str], wait: Callable[[int], bool] | None = None) -> Iterator[Entry]:
    """The entries that journalctl exports; raises SysboxError if it fails.

    `wait` is called with the descriptor of its output before each read; False ends the reading.
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
            return  # journalctl still runs: it is ended below
        status = posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1])
    finally:
        posix.close(fd)
        if status is None:
            stop_journalctl(pid)
    if status:
        raise SysboxError(f"journalctl exited with status {status}", hint="it said why above")


class Parser:
    """Parses the journal's export format (https://systemd.io/JOURNAL_EXPORT_FORMATS) piece by piece.

    A field is a line NAME=text; or a line with the name alone, a length in 64 bits, little-endian, so many
    bytes of any kind, and a newline. An empty line ends an entry. Of a repeated field the first value counts.
    """

    def __init__(self) -> None:
        self._pending = b""
        self._entry: Entry = {}

    def feed(self, chunk: bytes) -> Iterator[Entry]:
        """Add a piece; returns the entries that it completes. Raises FormatError."""
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
    """Start journalctl with a clean environment: its pid, and a pipe of its output. Raises Unsupported."""
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
    """End journalctl, whose output the caller reads no longer; already gone is success."""
    import _signal

    try:
        posix.kill(pid, _signal.SIGTERM)
        posix.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass
