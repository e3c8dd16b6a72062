"""Where a container in the background can be attached to: the socket that its monitor serves.

Its supervisor opens it, attaching.py connects to it.
"""

from __future__ import annotations

import _socket
import posix
import time

from sysbox.files import make_private, unlink, write_file
from sysbox.linux import unix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.records import Record

_BACKLOG = 8
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


def expect(record: Record) -> None:
    """Whoever starts it next is to let it wait for us before it reads its output."""
    write_file(_marker(record), b"")


def is_expected(record: Record) -> bool:
    """Whether somebody is about to attach; asked once. One that asked long ago did not live to come."""
    path = _marker(record)
    try:
        asked = posix.stat(path).st_mtime
        posix.unlink(path)
    except FileNotFoundError:
        return False
    return time.time() - asked < _STALE


def _marker(record: Record) -> str:
    return f"{record.directory}/attach-first"
