"""The socket by which commands attach to a detached container.

The supervisor opens it, the monitor serves it, run/attach.py connects to it.
"""

from __future__ import annotations

import _socket
import posix
import time

from sysbox.base.files import make_private, read_file, unlink, write_file
from sysbox.linux import unix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.records import Record

_BACKLOG = 8
_WINSIZE = 8  # bytes of a struct winsize
_STALE = 90.0  # seconds after which a marker is ignored; the longest back-off is shorter


def listen(record: Record) -> int:
    """Make the socket that the monitor will serve; its descriptor. Raises KernelError."""
    make_private(record.run_directory)
    path = path_of(record)
    unlink(path)
    socket = unix.bind(path, _socket.SOCK_SEQPACKET)
    socket.listen(_BACKLOG)
    return socket.detach()


def path_of(record: Record) -> str:
    """The path of the socket, below /run."""
    return f"{record.run_directory}/attach"


def expect(record: Record, size: bytes = b"") -> None:
    """Ask the next start to hold the container's output until this process has attached.

    `size` is that of our terminal, a struct winsize (TIOCSWINSZ(2const)).
    """
    write_file(_marker(record), size)


def is_expected(record: Record) -> bytes | None:
    """The terminal size of the client that is about to attach, b"" without a terminal; None without a client.

    The marker is removed: it counts for one start. The client of an old one died before it attached.
    """
    path = _marker(record)
    try:
        asked = posix.stat(path).st_mtime
        size = read_file(path, _WINSIZE)
        posix.unlink(path)
    except FileNotFoundError:
        return None
    if size is None or time.time() - asked >= _STALE:
        return None
    return size if len(size) == _WINSIZE else b""


def stand_in(record: Record) -> _socket.socket:
    """Connect in place of the client that is expected and does not come: the monitor would wait some seconds.

    It does not as long as the socket is open, which the caller closes.
    """
    is_expected(record)
    socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    socket.setblocking(False)
    try:
        socket.connect(path_of(record))
    except OSError:
        pass  # ignoring: nobody listens yet, or any more
    return socket


def _marker(record: Record) -> str:
    return f"{record.directory}/attach-first"
