"""Read the log of the json-file driver (see src/jsonlog.c): all lines, the last ones, and new ones."""

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
    """The lines of a log of up to `files` files; with `lines` the last so many.

    `since` and `until` are microseconds since 1970. New lines are awaited for as long as `goes_on` returns
    True. Raises FormatError.
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
    """The files, oldest first. A descriptor stays with its file when that is rotated."""
    fds: list[int] = []
    # the newest first: a file that is rotated meanwhile is met twice, and none is missed
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
    """Raises FormatError unless it is a regular file: a FIFO would never end."""
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
    if not _stat.S_ISREG(posix.fstat(fd).st_mode):
        posix.close(fd)
        raise FormatError(f"{path}: not a regular file")
    return fd


def _last(fds: list[int], lines: int, since: int | None, until: int | None) -> list[LogLine]:
    """The last `lines` lines, read backwards; each file's offset is left after its last complete line."""
    ends = {fd: _whole(fd) for fd in fds}
    for fd, end in ends.items():
        posix.lseek(fd, end, _FROM_START)
    newest_first = (_parse(raw) for fd in reversed(fds) for raw in _backwards(fd, ends[fd]))
    found = [
        line for _, line in zip(range(lines), _wanted(newest_first, since, until), strict=False)
    ]
    return found[::-1]


def _whole(fd: int) -> int:
    """The offset after the last complete line."""
    at = posix.fstat(fd).st_size
    while at > 0:
        begin = max(at - _CHUNK, 0)
        newline = posix.pread(fd, at - begin, begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        at = begin
    return 0


def _backwards(fd: int, end: int) -> Iterator[bytes]:
    """The lines before the offset `end`, which follows a newline, the last one first."""
    at = end - 1
    rest = b""
    while at > 0:
        begin = max(at - _CHUNK, 0)
        chunk = posix.pread(fd, at - begin, begin)
        if len(chunk) < at - begin:
            return  # the file was truncated
        first, *whole = (chunk + rest).split(b"\n")
        yield from reversed(whole)
        rest, at = first, begin
        if len(rest) > _LINE_MAX:
            raise FormatError("the log has a line longer than any that sysbox writes")
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
    """The lines that can be read now; half a line at the end is left for the next call."""
    pending = b""
    while chunk := posix.read(fd, _CHUNK):
        pending += chunk
        *whole, pending = pending.split(b"\n")
        for line in whole:
            yield _parse(line)
        if len(pending) > _LINE_MAX:
            raise FormatError("the log has a line longer than any that sysbox writes")
    if pending:
        posix.lseek(fd, -len(pending), _FROM_HERE)


def _following(path: str, fds: list[int], goes_on: Callable[[], bool]) -> Iterator[LogLine]:
    last = 0
    while True:
        ended = not goes_on()
        for line in _entries_or_reread(fds[-1], last) if fds else ():
            last = line.timestamp
            yield line
        if _rotated(path, fds):
            # lines that the old file got between the two looks
            for fd in fds[-2:-1]:
                yield from _entries(fd)
            continue
        if ended:
            return
        time.sleep(_POLL)


def _entries_or_reread(fd: int, last: int) -> Iterator[LogLine]:
    """The new lines. A file that was truncated and written again is read from its start: it is shorter, or
    no line begins at our offset. `last` is the time of the last known line, in microseconds since 1970.
    """
    rewritten = posix.fstat(fd).st_size < posix.lseek(fd, 0, _FROM_HERE)
    if not rewritten:
        try:
            for line in _entries(fd):
                last = line.timestamp
                yield line
        except FormatError:
            rewritten = True
    if rewritten:
        posix.lseek(fd, 0, _FROM_START)
        yield from (line for line in _entries(fd) if line.timestamp > last)


def _rotated(path: str, fds: list[int]) -> bool:
    """Add the next newer file to `fds` if ours is not the newest; True if there was one."""
    number = _position(path, fds[-1]) if fds else 1
    if number == 0:
        return False
    try:
        fd = _open(f"{path}.{number - 1}" if number > 1 else path)
    except FileNotFoundError:
        return False
    if fds and _position(path, fds[-1]) != number:
        # rotated between the two looks: this is not the next file
        posix.close(fd)
        return _rotated(path, fds)
    fds.append(fd)
    return True


def _position(path: str, fd: int) -> int:
    """How often our file was rotated since it was opened; a removed one counts as the oldest."""
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
