"""A container's standard streams: what its first process gets, and what its supervisor copies.

The container never holds the caller's terminal (CVE-2016-10124: it could push input into it): it gets a
pipe or a terminal of its own. A caller's pipe is passed on as it is. Output that is kept goes through two
pipes and the supervisor to the journal. A socket would not do: a container cannot open it again, and many
images write their logs to /dev/stdout. The supervisor sends in the name of the container's process, so that
the journal files every line under the container's scope (src/journal.c).

Our end of a pipe never blocks. It is an open file description of its own (pipe(2)), so the container's end
is unchanged; but a process in the container can open that end again and read what poll(2) has announced.
"""

from __future__ import annotations

import _socket
import _stat
import posix

from sysbox.fs.sockets import NOTIFY
from sysbox.linux import lsm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sysbox.spec import ContainerSpec
    from sysbox.units import journal

# in place of a descriptor in `pumps`: the container's terminal, which is known only later
TERMINAL = -1


class Streams:
    """The child's ends, and what the supervisor has to copy.

    `pumps` are (from, to...); an end may be TERMINAL. Those from the container are its standard output and
    its standard error, in this order, or its terminal alone.
    """

    def __init__(self) -> None:
        self.child = [-1, -1, -1]
        self.owned: list[int] = []
        self.log: journal.Sink | None = None  # where its output is kept in the journal
        self.pumps: list[tuple[int, ...]] = []
        self.input = -1  # our end of the pipe to the container's standard input, or -1
        # the sockets that the child binds, by path
        self.sockets: dict[str, int] = {}
        self._ours: list[int] = []

    def close_child_ends(self) -> None:
        """After the fork: the child has them."""
        for fd in self.owned:
            posix.close(fd)
        self.owned.clear()

    def close(self) -> None:
        """Close everything: the start has failed."""
        self.close_child_ends()
        for fd in self._ours:
            posix.close(fd)
        if self.log:
            posix.close(self.log.fd)
        for fd in self.sockets.values():
            posix.close(fd)

    def open_sockets(self, paths: Iterable[str], label: str = "") -> dict[str, int]:
        """Make the sockets that the child binds to these paths, and return them. Raises OSError, KernelError.

        `label` is the SELinux label of the container's processes: no other container may send to them.

        They are made here, so that their queues are as long as the host's setting says, which each network
        namespace has for itself (net.unix.max_dgram_qlen).
        """
        flags = _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC
        for path in paths:
            with lsm.Sockets(label):
                made = _socket.socket(_socket.AF_UNIX, flags)
            if path == NOTIFY:
                # who has sent a message decides whether it is heard
                made.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
            self.sockets[path] = made.detach()
        return self.sockets

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
    """The streams of a service: output goes to the log; input is empty, or with -i a pipe that stays open."""
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
    """The caller's own streams; with `log` the output is kept as well."""
    streams = Streams()
    streams.log = log
    if tty:
        streams.pumps.append((TERMINAL, 1))
        if interactive:
            streams.pumps.append((0, TERMINAL))
        return streams
    if interactive:
        given = _passed_directly(0)
        if given is None:
            streams.input = streams.pipe(0)
            streams.pumps.append((0, streams.input))
        else:
            streams.child[0] = given
    for target in (1, 2):
        given = _passed_directly(target) if log is None else None
        if given is not None:
            streams.child[target] = given
            continue
        streams.pumps.append((streams.pipe(target), target))
    return streams


def _passed_directly(fd: int) -> int | None:
    """The descriptor that the container gets for the caller's stream `fd`; None if the stream is copied.

    A pipe or a socket leads to nothing else. A file does: the container could open it again for writing, and
    read what others have written to it.
    """
    status = posix.fstat(fd)
    if _stat.S_ISFIFO(status.st_mode) or _stat.S_ISSOCK(status.st_mode):
        return fd
    if _stat.S_ISCHR(status.st_mode) and status.st_rdev == posix.makedev(1, 3):
        return -1  # /dev/null: the container has one of its own
    return None
