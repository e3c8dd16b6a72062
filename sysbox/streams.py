"""A container's standard streams: what its first process gets, and what its supervisor copies where.

The container never holds the caller's terminal (CVE-2016-10124: it could push input into it): it gets a
pipe or a terminal of its own. A caller's pipe is handed over as it is. Output that is kept goes
through a pipe and its supervisor to the journal, not into the journal's socket itself: a socket cannot be
opened anew, and many images write their logs to /dev/stdout. The supervisor sends as the container, so
that the journal files every line under the container's scope.
"""

from __future__ import annotations

import _stat
import posix

from sysbox.units import journal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.spec import ContainerSpec

TERMINAL, NOWHERE = (
    -1,
    -2,
)  # ends of a pump: the container's terminal, which is known only later; none
INFO, ERROR = 6, 3  # syslog priorities of standard output and standard error, as docker has them


class Streams:
    """The ends for the child, and the copying left for the supervisor.

    `pumps` are (from, to, to...); an end may be TERMINAL or NOWHERE.
    """

    def __init__(self) -> None:
        self.child = [-1, -1, -1]
        self.owned: list[int] = []
        self.journals: list[int] = []  # those sinks that are streams of the journal's
        self.pumps: list[tuple[int, ...]] = []
        self.input = -1  # the pipe to the container's standard input, where we hold it
        self._ours: list[int] = []

    def close_child_ends(self) -> None:
        """After the fork: the child has them."""
        for fd in self.owned:
            posix.close(fd)
        self.owned.clear()

    def close(self) -> None:
        """When nothing came of it."""
        self.close_child_ends()
        for fd in (*self._ours, *self.journals):
            posix.close(fd)

    def pipe(self, target: int) -> int:
        """Give the child a pipe as its stream `target`; our end of it."""
        reader, writer = posix.pipe2(posix.O_CLOEXEC)
        theirs, ours = (reader, writer) if target == 0 else (writer, reader)
        self.child[target] = theirs
        self.owned.append(theirs)
        self._ours.append(ours)
        return ours

    def log(self, priority: int, identifier: str, unit: str) -> int:
        """A stream to the journal, for the supervisor to write to."""
        fd = journal.connect_stream(identifier, unit, priority)
        self.journals.append(fd)
        return fd


def for_service(spec: ContainerSpec, unit: str) -> Streams:
    """Nobody at the other end yet: output to the log, input from nowhere, held open with -i."""
    streams = Streams()

    def log(priority: int) -> int:
        journald = spec.logging.driver == "journald"
        return streams.log(priority, spec.name, unit) if journald else NOWHERE

    if spec.tty:
        streams.pumps.append((TERMINAL, log(INFO)))
        return streams
    if spec.interactive:
        streams.input = streams.pipe(0)
    for target, priority in ((1, INFO), (2, ERROR)):
        streams.pumps.append((streams.pipe(target), log(priority)))
    return streams


def for_caller(*, tty: bool, interactive: bool, log: tuple[str, str] | None) -> Streams:
    """The caller's own streams. `log` is (identifier, unit) where the output is kept as well."""
    streams = Streams()
    if tty:
        kept = (streams.log(INFO, *log),) if log else ()
        streams.pumps.append((TERMINAL, 1, *kept))
        if interactive:
            streams.pumps.append((0, TERMINAL))
        return streams
    if interactive:
        given = _as_it_is(0)
        if given is None:
            streams.input = streams.pipe(0)
            streams.pumps.append((0, streams.input))
        else:
            streams.child[0] = given
    for target, priority in ((1, INFO), (2, ERROR)):
        given = _as_it_is(target) if log is None else None
        if given is not None:
            streams.child[target] = given
            continue
        kept = (streams.log(priority, *log),) if log else ()
        streams.pumps.append((streams.pipe(target), target, *kept))
    return streams


def _as_it_is(fd: int) -> int | None:
    """What the container gets in place of the caller's stream without a copier in between, if anything.

    A pipe or a socket opens no way to anything else. A file would: whoever holds it can open it anew, for
    writing, and read what others have written to it.
    """
    status = posix.fstat(fd)
    if _stat.S_ISFIFO(status.st_mode) or _stat.S_ISSOCK(status.st_mode):
        return fd
    if _stat.S_ISCHR(status.st_mode) and status.st_rdev == posix.makedev(1, 3):
        return -1  # /dev/null: it has one of its own
    return None
