"""Unix sockets with a path in the file system: unix(7)."""

from __future__ import annotations

import _socket
import errno
import posix
import select
import sys

from sysbox.base.errors import KernelError


def bind(path: str, kind: int) -> _socket.socket:
    """A socket of a kind (SOCK_DGRAM, ...) bound to `path`. Raises KernelError."""
    socket = _socket.socket(_socket.AF_UNIX, kind | _socket.SOCK_CLOEXEC)
    try:
        socket.bind(path)
    except OSError as error:
        socket.close()
        raise KernelError.of("listen on", path, error) from None
    return socket


def bind_below(socket: int, directory: int, name: str) -> None:
    """Bind a socket to a name in a directory, for every user to connect to, and close the directory's
    descriptor.

    Meanwhile it is the working directory: unix(7) knows names in that one only. The old one is kept, in
    which the parts of a mapped container's root lie (`fs/staging.py`). Raises KernelError.
    """
    back = posix.open(".", posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    one = _socket.socket(fileno=socket)
    # to connect needs write permission (unix(7))
    umask = posix.umask(0o111)
    try:
        posix.fchdir(directory)
        one.bind(name)
    except OSError as error:
        raise KernelError.of("make the socket", name, error) from None
    finally:
        posix.umask(umask)
        one.detach()
        posix.fchdir(back)
        posix.close(back)
        posix.close(directory)


def unheard(path: str) -> int:
    """Why nobody hears a datagram sent to `path`: an errno, ECONNREFUSED where the process that has bound a
    socket to it has ended; 0 where one lives.
    """
    socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        socket.connect(path)
    except OSError as error:
        return error.errno or errno.EIO
    finally:
        socket.close()
    return 0


def send(address: str, data: bytes, *, wait: bool) -> None:
    """Send one datagram. Raises OSError: without `wait`, EAGAIN where the receiver's queue is full."""
    socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        socket.setblocking(wait)
        socket.sendto(data, address)
    finally:
        socket.close()


def notify_address() -> str:
    """$NOTIFY_SOCKET, which systemd sets for a service of Type=notify; "" without one."""
    return posix.environ.get(b"NOTIFY_SOCKET", b"").decode("utf-8", "surrogateescape")


def notify(address: str, message: str) -> None:
    """sd_notify(3): `address` is that of $NOTIFY_SOCKET. Raises OSError."""
    send(_place(address), message.encode("utf-8", "surrogateescape"), wait=True)


def notify_barrier(address: str, timeout: float) -> None:
    """sd_notify_barrier(3): wait until systemd has handled what was sent, at most `timeout` seconds.

    A message of a process that has ended belongs to no unit, and systemd ignores it. Raises OSError.
    """
    ours, theirs = posix.pipe()
    socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, theirs.to_bytes(4, sys.byteorder))
        socket.sendmsg([b"BARRIER=1"], [rights], 0, _place(address))
        posix.close(theirs)
        theirs = -1
        # systemd closes its copy of the pipe once it comes to this message
        poll = select.poll()
        poll.register(ours, 0)
        poll.poll(timeout * 1000)
    finally:
        socket.close()
        for fd in (ours, theirs):
            if fd >= 0:
                posix.close(fd)


def _place(address: str) -> str:
    return "\0" + address[1:] if address[0] == "@" else address
