"""The container's log is its scope's journal: written by the payload itself, read through journalctl(1).

A stream connected to journald carries a header that names the unit; a file beside systemd's own lends
each of the unit's lines more fields. journald files a line under the cgroup of the process that *wrote*
it, whoever connected the stream; the header's unit counts only where that process is gone already.
So the payload writes itself, or whoever copies for it sends `writer_credentials` along. Empty lines are
not kept: journald drops them.
"""

from __future__ import annotations

import _socket
import posix

from sysbox import codec
from sysbox.errors import FormatError, KernelError, SpecError, SysboxError, Unsupported
from sysbox.frozen import Frozen
from sysbox.linux import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from struct import Struct
else:
    from _struct import Struct

STDOUT_SOCKET = "/run/systemd/journal/stdout"
STDOUT_PRIORITY = 6  # info
STDERR_PRIORITY = 3  # err

_UNITS = "/run/systemd/units"
_DRAFTS = "log-extra-fields:docker-"
_RATE_LIMITS = ("log-rate-limit-interval", "log-rate-limit-burst")
_VARLINK = "/run/systemd/journal/io.systemd.journal"
_JOURNALCTL = "/usr/bin/journalctl"
_FIELD = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_FIELD_MAX = 64  # characters of a name, of journald
_VALUE_MAX = 4096
_LE64 = Struct("<Q").pack
_UCRED = Struct("@iII").pack  # struct ucred, unix(7)

_SYNC_TIMEOUT = 5.0  # seconds
_LINE_MAX = (
    64 << 20
)  # one entry as JSON; journald's own bound for a field is 64 MiB (DATA_SIZE_MAX)
# why journald ended a line other than at its newline -> what stood there
_BREAKS = {"nul": b"\0", "line-max": b"", "eof": b"", "pid-change": b""}


class LogLine(Frozen):
    """One line of a container's output; `message` ends as the payload ended it."""

    timestamp: int  # microseconds since 1970
    priority: int  # STDOUT_PRIORITY or STDERR_PRIORITY
    message: bytes


def stream_header(identifier: str, unit: str, priority: int) -> bytes:
    """What a stream to STDOUT_SOCKET begins with; sent by root, the unit holds even for lines whose
    writer is gone before journald looks. Everything after it is the payload's.
    """
    name = "".join(char if char.isprintable() else "?" for char in identifier)[:_FIELD_MAX]
    # identifier, unit, priority, and no: prefixes, syslog, kmsg, console
    return f"{name}\n{unit}\n{priority}\n0\n0\n0\n0\n".encode()


def connect_stream(identifier: str, unit: str, priority: int) -> int:
    """A new stream to journald as a descriptor for standard output or error. Raises KernelError."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        sock.connect(STDOUT_SOCKET)
        sock.shutdown(_socket.SHUT_RD)
        sock.sendall(stream_header(identifier, unit, priority))
    except OSError as error:
        sock.close()
        raise KernelError.of("connect to", STDOUT_SOCKET, error) from None
    return sock.detach()


def writer_credentials(pid: int) -> tuple[int, int, bytes]:
    """Ancillary data for sendmsg(2) on a stream, by which what we copy counts as written by `pid`.

    Needs CAP_SYS_ADMIN, and `pid` not yet reaped (a zombie will do): ESRCH otherwise.
    """
    return _socket.SOL_SOCKET, _socket.SCM_CREDENTIALS, _UCRED(pid, 0, 0)


def encode_fields(fields: dict[str, str]) -> bytes:
    """The file of additional fields: for each a little-endian 64-bit length and FIELD=value."""
    encoded = bytearray()
    for name, value in fields.items():
        if not name or not _FIELD.issuperset(name) or name[0] in "_0123456789":
            raise SpecError(f"journal field {name!r}: upper-case letters, digits and '_'")
        if len(name) > _FIELD_MAX:
            raise SpecError(f"journal field {name!r}: at most {_FIELD_MAX} characters")
        item = f"{name}={value[:_VALUE_MAX]}".encode("utf-8", "surrogateescape")
        encoded += _LE64(len(item)) + item
    return bytes(encoded)


def container_fields(container: str, name: str, image: str) -> dict[str, str]:
    """The fields of docker's journald driver, which scripts filter by."""
    return {
        "CONTAINER_ID": container[:12],
        "CONTAINER_ID_FULL": container,
        "CONTAINER_NAME": name,
        "CONTAINER_TAG": container[:12],
        "IMAGE_NAME": image,
    }


def write_fields(unit: str, fields: dict[str, str]) -> None:
    """Lend the fields to every line of the unit from now on, and have none of its lines dropped.

    Done before its first line. The links are what LogRateLimitIntervalSec= and LogRateLimitBurst= of a
    service would leave there for journald (systemd.exec(5)); a scope has no such settings, and 0 is no limit.
    """
    path = _fields_path(unit)
    part = f"{path}.sysbox-{posix.getpid()}"
    try:
        fd = posix.open(
            part, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC, 0o644
        )
        try:
            posix.write(fd, encode_fields(fields))
        finally:
            posix.close(fd)
        posix.rename(part, path)
        for limit in _RATE_LIMITS:
            _link("0", f"{_UNITS}/{limit}:{unit}")
    except OSError as error:
        raise KernelError.of("write", path, error) from None


def _link(target: str, path: str) -> None:
    try:
        posix.symlink(target, path)
    except FileExistsError:
        pass


def remove_fields(unit: str) -> None:
    """Undo `write_fields`; already gone is success."""
    for path in (_fields_path(unit), *(f"{_UNITS}/{limit}:{unit}" for limit in _RATE_LIMITS)):
        try:
            posix.unlink(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise KernelError.of("remove", path, error) from None


def drafts() -> list[str]:
    """The paths of files of `write_fields` whose writer did not live to give them their name."""
    try:
        found = [name for name in posix.listdir(_UNITS) if name.startswith(_DRAFTS)]
    except FileNotFoundError:
        return []
    left = []
    for name in found:
        _, mark, pid = name.rpartition(".sysbox-")
        if mark and pid.isdigit() and not process.start_time(int(pid)):
            left.append(f"{_UNITS}/{name}")
    return left


def _fields_path(unit: str) -> str:
    return f"{_UNITS}/log-extra-fields:{unit}"


def synchronize() -> None:
    """Wait until journald has taken all that was written to it; without journald there is nothing to
    wait for, and after some seconds its silence is taken for that.
    """
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        sock.settimeout(_SYNC_TIMEOUT)
        sock.connect(_VARLINK)
        sock.sendall(b'{"method":"io.systemd.Journal.Synchronize","parameters":{}}\0')
        while (data := sock.recv(4096)) and b"\0" not in data:
            pass
    except OSError:
        pass
    finally:
        sock.close()


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
    argv.append("--output-fields=MESSAGE,PRIORITY,_LINE_BREAK")
    return [*argv, f"_SYSTEMD_UNIT={unit}", "_TRANSPORT=stdout"]


def event_arguments(
    message_ids: list[str],
    *,
    follow: bool = False,
    since: int | None = None,
    until: int | None = None,
) -> list[str]:
    """journalctl's argv for records of these kinds; times in microseconds since 1970.

    Without `since`, those alone that come from now on.
    """
    lines = 0 if since is None and follow else None
    argv = _journalctl(follow=follow, since=since, until=until, lines=lines)
    return [*argv, *(f"MESSAGE_ID={one}" for one in message_ids)]


def _journalctl(
    *,
    lines: int | None,
    follow: bool = False,
    since: int | None = None,
    until: int | None = None,
) -> list[str]:
    argv = ["journalctl", "--output=json", "--all", "--no-pager", "--quiet"]
    argv.append(f"--lines={'all' if lines is None else lines}")
    if follow:
        argv.append("--follow")
    for option, moment in (("since", since), ("until", until)):
        if moment is not None:
            argv.append(f"--{option}=@{moment // 1_000_000}.{moment % 1_000_000:06d}")
    return argv


def unit_of(container: str) -> str:
    """The scope of the latest container with this name or id, removed or not, that has written anything;
    "" where the journal knows of none.
    """
    for field in ("CONTAINER_NAME", "CONTAINER_ID", "CONTAINER_ID_FULL"):
        argv = _journalctl(lines=1)
        for line in _entries([*argv, "--output-fields=CONTAINER_ID_FULL", f"{field}={container}"]):
            found = codec.loads(line, "journalctl").get("CONTAINER_ID_FULL")
            if type(found) is str:
                return f"docker-{found}.scope"
    return ""


def parse_entry(line: bytes) -> LogLine:
    """One line of journalctl's JSON; raises FormatError."""
    entry = codec.loads(line, "journalctl")
    try:
        message = entry.get("MESSAGE")
        if type(message) is str:
            raw = message.encode("utf-8", "surrogatepass")
        else:
            raw = bytes(message or ())  # an array of bytes where it is not text
        return LogLine(
            timestamp=int(entry["__REALTIME_TIMESTAMP"]),
            priority=int(entry.get("PRIORITY", STDOUT_PRIORITY)),
            message=raw + _BREAKS.get(entry.get("_LINE_BREAK", ""), b"\n"),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FormatError(f"journalctl: an entry that is none: {error}") from None


def read_logs(
    unit: str,
    *,
    follow: bool = False,
    since: int | None = None,
    until: int | None = None,
    lines: int | None = None,
) -> Iterator[LogLine]:
    """The payload's lines, oldest first; see `journal_arguments`. With `follow` it ends only when the
    caller stops asking. Raises Unsupported without journalctl.
    """
    synchronize()
    argv = journal_arguments(unit, follow=follow, since=since, until=until, lines=lines)
    for line in _entries(argv):
        yield parse_entry(line)


def _entries(argv: list[str]) -> Iterator[bytes]:
    """The lines that journalctl prints; raises SysboxError where it fails."""
    pid, fd = _spawn(argv)
    status = None
    try:
        yield from _lines(fd)
        status = posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1])
    finally:
        posix.close(fd)
        if status is None:
            _end(pid)
    if status:
        raise SysboxError(f"journalctl exited with status {status}", hint="it said why above")


def _spawn(argv: list[str]) -> tuple[int, int]:
    """Start journalctl with its output in a pipe, and nothing of our environment but the locale."""
    read_end, write_end = posix.pipe()
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


def _lines(fd: int) -> Iterator[bytes]:
    pending = bytearray()
    while chunk := posix.read(fd, 1 << 16):
        pending += chunk
        if b"\n" in chunk:
            whole, _, rest = pending.rpartition(b"\n")
            pending = bytearray(rest)
            yield from bytes(whole).split(b"\n")
        elif len(pending) > _LINE_MAX:
            raise FormatError("journalctl: an entry over 64 MiB")


def _end(pid: int) -> None:
    """End our journalctl, which the caller stopped reading."""
    import _signal

    try:
        posix.kill(pid, _signal.SIGTERM)
        posix.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass
