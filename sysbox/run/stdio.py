"""A container's standard streams: what its first process gets, and what its supervisor copies where.

The container never holds the caller's terminal (CVE-2016-10124: it could push input into it): it gets a
pipe or a terminal of its own. A caller's pipe is handed over as it is. Output that is kept goes
through two pipes and its supervisor to the journal, not into a socket: that cannot be opened anew, and many
images write their logs to /dev/stdout. The supervisor sends as the container, so that the journal files
every line under the container's scope (src/journal.c).

Our end of a pipe never blocks. It is an open file description of its own (pipe(2)), so the container's end is
as it was; but whoever is in the container can open that one anew and read what poll(2) has told us of.
"""

from __future__ import annotations

import _stat
import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.spec import ContainerSpec
    from sysbox.units import journal

# an end of a pump: the container's terminal, which is known only later
TERMINAL = -1


class Streams:
    """The ends for the child, and the copying left for the supervisor.

    `pumps` are (from, to...); an end may be TERMINAL. Those from the container are its standard output and
    its standard error, in this order, or its terminal alone.
    """

    def __init__(self) -> None:
        self.child = [-1, -1, -1]
        self.owned: list[int] = []
        self.log: journal.Sink | None = None  # where its output is kept in the journal
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
        for fd in self._ours:
            posix.close(fd)
        if self.log:
            posix.close(self.log.fd)

    def pipe(self, target: int) -> int:
        """Give the child a pipe as its stream `target`; our end of it."""
        reader, writer = posix.pipe2(posix.O_CLOEXEC)
        theirs, ours = (reader, writer) if target == 0 else (writer, reader)
        posix.set_blocking(ours, False)
        self.child[target] = theirs
        self.owned.append(theirs)
        self._ours.append(ours)
        return ours


def for_service(spec: ContainerSpec, log: journal.Sink | None) -> Streams:
    """Nobody at the other end yet: output to the log, input from nowhere, held open with -i."""
    streams = Streams()
    streams.log = log
    if spec.tty:
        streams.pumps.append((TERMINAL,))
        return streams
    if spec.interactive:
        streams.input = streams.pipe(0)
    for target in (1, 2):
        streams.pumps.append((streams.pipe(target),))
    return streams


def for_caller(*, tty: bool, interactive: bool, log: journal.Sink | None) -> Streams:
    """The caller's own streams; `log` where the output is kept as well."""
    streams = Streams()
    streams.log = log
    if tty:
        streams.pumps.append((TERMINAL, 1))
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
    for target in (1, 2):
        given = _as_it_is(target) if log is None else None
        if given is not None:
            streams.child[target] = given
            continue
        streams.pumps.append((streams.pipe(target), target))
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
