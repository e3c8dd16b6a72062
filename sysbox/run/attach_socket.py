"""Where a container in the background can be attached to: the socket that its monitor serves.

Its supervisor opens it, run/attach.py connects to it.
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
_STALE = 90.0  # seconds; a back-off is shorter


def listen(record: Record) -> int:
    """The socket that the monitor is to serve. Raises KernelError."""
    make_private(record.run_directory)
    path = path_of(record)
    unlink(path)
    socket = unix.bound(path, _socket.SOCK_SEQPACKET)
    socket.listen(_BACKLOG)
    return socket.detach()


def path_of(record: Record) -> str:
    """Its place below /run."""
    return f"{record.run_directory}/attach"


def expect(record: Record, size: bytes = b"") -> None:
    """The next supervisor lets it wait for us before it reads its output.

    `size` is that of our terminal, a struct winsize (TIOCSWINSZ(2const)).
    """
    write_file(_marker(record), size)


def is_expected(record: Record) -> bytes | None:
    """The size of the terminal that is about to be attached, b"" for none; None where nobody attaches.

    Asked once. One that asked long ago did not live to attach.
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


def _marker(record: Record) -> str:
    return f"{record.directory}/attach-first"
