"""Reading what the json-file driver keeps (see src/jsonlog.c): all of it, the last lines, and what comes."""

from __future__ import annotations

import _stat
import posix
import time

from sysbox.base import codec
from sysbox.base.errors import FormatError
from sysbox.units.journalread import STDERR_PRIORITY, STDOUT_PRIORITY, LogLine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CHUNK = 1 << 16
_LINE_MAX = 1 << 20  # bytes; the writer's longest is a tenth of that
_POLL = 0.1  # seconds
_FROM_START, _FROM_HERE = 0, 1  # SEEK_SET, SEEK_CUR of lseek(2)


def read_logs(
    path: str,
    *,
    files: int,
    goes_on: Callable[[], bool] | None = None,
    since: int | None = None,
    until: int | None = None,
    lines: int | None = None,
) -> Iterator[LogLine]:
    """The lines of a log of up to `files` files; times in microseconds since 1970, `lines` the last so many.

    With `goes_on` it waits for more as long as that says so. Raises FormatError.
    """
    fds = _open_all(path, files)
    try:
        if lines is None:
            found = (one for fd in fds for one in _entries(fd))
            yield from _wanted(found, since, until)
        else:
            yield from _last(fds, lines, since, until)
        if goes_on:
            yield from _wanted(_following(path, fds, goes_on), since, until)
    finally:
        for fd in fds:
            posix.close(fd)


def _open_all(path: str, files: int) -> list[int]:
    """Oldest first. Those that are rotated meanwhile stay what they are."""
    fds: list[int] = []
    # the newest is opened first: what is rotated now comes once more, and none is passed over
    for number in range(files):
        try:
            fd = _open(f"{path}.{number}" if number else path)
        except FileNotFoundError:
            continue
        if any(_inode(fd) == _inode(other) for other in fds):
            posix.close(fd)
        else:
            fds.insert(0, fd)
    return fds


def _inode(fd: int) -> int:
    return posix.fstat(fd).st_ino


def _open(path: str) -> int:
    """Raises FormatError for what is no file: a FIFO there would never come to an end."""
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
    if not _stat.S_ISREG(posix.fstat(fd).st_mode):
        posix.close(fd)
        raise FormatError(f"{path}: not a regular file")
    return fd


def _last(fds: list[int], lines: int, since: int | None, until: int | None) -> list[LogLine]:
    """The last so many lines, read from the end; each file is left behind its last whole line."""
    ends = {fd: _whole(fd) for fd in fds}
    for fd, end in ends.items():
        posix.lseek(fd, end, _FROM_START)
    newest_first = (_parse(raw) for fd in reversed(fds) for raw in _backwards(fd, ends[fd]))
    found = [
        line for _, line in zip(range(lines), _wanted(newest_first, since, until), strict=False)
    ]
    return found[::-1]


def _whole(fd: int) -> int:
    """Where the last line ends that is there as a whole."""
    at = posix.fstat(fd).st_size
    while at > 0:
        begin = max(at - _CHUNK, 0)
        newline = posix.pread(fd, at - begin, begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        at = begin
    return 0


def _backwards(fd: int, end: int) -> Iterator[bytes]:
    """The lines before a place that is behind a newline, the last one first."""
    at = end - 1
    rest = b""
    while at > 0:
        begin = max(at - _CHUNK, 0)
        chunk = posix.pread(fd, at - begin, begin)
        if len(chunk) < at - begin:
            return  # it has become shorter
        first, *whole = (chunk + rest).split(b"\n")
        yield from reversed(whole)
        rest, at = first, begin
        if len(rest) > _LINE_MAX:
            raise FormatError("the log has a line that is too long to be one of ours")
    if end > 0:
        yield rest


def _wanted(found: Iterator[LogLine], since: int | None, until: int | None) -> Iterator[LogLine]:
    for line in found:
        if since is not None and line.timestamp < since:
            continue
        if until is not None and line.timestamp > until:
            continue
        yield line


def _entries(fd: int) -> Iterator[LogLine]:
    """What can be read now; half a line at the end is left for the next time."""
    pending = b""
    while chunk := posix.read(fd, _CHUNK):
        pending += chunk
        *whole, pending = pending.split(b"\n")
        for line in whole:
            yield _parse(line)
        if len(pending) > _LINE_MAX:
            raise FormatError("the log has a line that is too long to be one of ours")
    if pending:
        posix.lseek(fd, -len(pending), _FROM_HERE)


def _following(path: str, fds: list[int], goes_on: Callable[[], bool]) -> Iterator[LogLine]:
    last = 0
    while True:
        ended = not goes_on()
        for line in _entries_or_anew(fds[-1], last) if fds else ():
            last = line.timestamp
            yield line
        if _rotated(path, fds):
            # what came between the two looks
            for fd in fds[-2:-1]:
                yield from _entries(fd)
            continue
        if ended:
            return
        time.sleep(_POLL)


def _entries_or_anew(fd: int, last: int) -> Iterator[LogLine]:
    """What has come. A file that was emptied and written anew is read from its start: it is shorter, or what
    stands where we were is no line. `last` is when the last line was written that is known.
    """
    anew = posix.fstat(fd).st_size < posix.lseek(fd, 0, _FROM_HERE)
    if not anew:
        try:
            for line in _entries(fd):
                last = line.timestamp
                yield line
        except FormatError:
            anew = True
    if anew:
        posix.lseek(fd, 0, _FROM_START)
        yield from (line for line in _entries(fd) if line.timestamp > last)


def _rotated(path: str, fds: list[int]) -> bool:
    """Go on with the next file, where ours is not the newest; True if there was one."""
    number = _position(path, fds[-1]) if fds else 1
    if number == 0:
        return False
    try:
        fd = _open(f"{path}.{number - 1}" if number > 1 else path)
    except FileNotFoundError:
        return False
    if fds and _position(path, fds[-1]) != number:
        # rotated between the two: it is not the next one
        posix.close(fd)
        return _rotated(path, fds)
    fds.append(fd)
    return True


def _position(path: str, fd: int) -> int:
    """How often our file was rotated since it was opened; one that is gone counts as the oldest there is."""
    ours = _inode(fd)
    number = 0
    while True:
        try:
            status = posix.stat(f"{path}.{number}" if number else path)
        except FileNotFoundError:
            return number
        if status.st_ino == ours:
            return number
        number += 1


def _parse(line: bytes) -> LogLine:
    entry = codec.loads(line, "the log")
    try:
        return LogLine(
            timestamp=_microseconds(entry["time"]),
            priority=STDERR_PRIORITY if entry["stream"] == "stderr" else STDOUT_PRIORITY,
            message=entry["log"].encode("utf-8", "surrogatepass"),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"the log has a malformed line: {error}") from None


def _microseconds(text: str) -> int:
    from datetime import datetime

    return round(datetime.fromisoformat(text).timestamp() * 1_000_000)
