"""Pass the listener of a container's seccomp filter to the agent at the profile's `listenerPath`.

The agent answers the system calls whose action is SCMP_ACT_NOTIFY, for as long as the container runs. What it
is sent is the OCI runtime specification's (config-linux, "Seccomp", "The Container Process State").
"""

from __future__ import annotations

import _socket
import _struct
import posix
import sys
import time

from sysbox.base import codec
from sysbox.base.errors import SpecError, StartError
from sysbox.base.visible import printable
from sysbox.base.wait import ready, until
from sysbox.linux import unix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.container.store import Record
    from sysbox.security.seccomp import Filter

_VERSION = "1.0.2"  # of the specification: the first that has listenerPath
_PATIENCE = 10.0  # seconds for an agent to accept a connection, and to read what it is sent
_STEP = 0.05  # seconds until a connection is tried again
_SILENCE = 5.0  # seconds for the command to run, until it is said who holds it up
_UCRED = _struct.Struct("=iII")  # unix(7): pid, uid, gid


class Agent:
    """A connection to who answers a container's calls: `Parked.on_listener`."""

    def __init__(self, record: Record, filtered: Filter, first: int = 0) -> None:
        """Connect. `first` is the container's first process, 0 if that is the one that is made.

        Raises SpecError where nobody listens, or somebody who is not trusted with the container.
        """
        self._record = record
        self._first = first
        self._metadata = filtered.metadata
        self._path = filtered.listener
        self._since = 0.0  # when it was given the listener
        self._said = False
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        began = time.monotonic()
        try:
            if not until(self._connected, _PATIENCE, _STEP):
                raise SpecError(self._failed("it does not answer"))
            self._check_peer()
        except OSError as error:
            raise SpecError(
                self._failed(posix.strerror(error.errno or 0)),
                hint="an agent that answers the calls of SCMP_ACT_NOTIFY must listen there",
            ) from None
        self._left = _PATIENCE - (time.monotonic() - began)

    def __call__(self, fd: int, pid: int) -> Callable[[], None]:
        """Send it the descriptor, and the pid of who loaded the filter; what is to be called each second
        until the command runs. Raises StartError.
        """
        message = state(self._record, self._metadata, pid, self._first)
        pidfd = -1
        try:
            pidfd = posix.pidfd_open(pid)  # our child, which is not reaped yet
            self._send(message, fd, pidfd)
        except OSError as error:
            reason = (
                posix.strerror(error.errno) if error.errno else "it does not read what it is sent"
            )
            raise StartError(self._failed(reason), phase="process") from None
        finally:
            self._socket.close()
            if pidfd >= 0:
                posix.close(pidfd)
        self._since = time.monotonic()
        return self._waited

    def _waited(self) -> None:
        """Say once who holds up the command, if it has yet to run after some seconds.

        On standard error, and to systemd where a service starts the container.
        """
        if self._said or time.monotonic() - self._since < _SILENCE:
            return
        self._said = True
        text = f"waiting for the agent at {printable(self._path)}"
        try:
            posix.write(2, f"sysbox: {text}\n".encode("utf-8", "surrogateescape"))
            if address := unix.notify_address():
                unix.notify(address, f"STATUS={text}")
        except OSError:
            pass  # ignoring: nobody is there to be told

    def _connected(self) -> bool:
        try:
            self._socket.connect(self._path)
        except BlockingIOError:
            return False  # as many as it has room for wait for it already
        return True

    def _check_peer(self) -> None:
        """Who answers a container's calls can make it do anything: it is root, or who calls.

        The kernel tells who began to listen (unix(7), SO_PEERCRED).
        """
        _, uid, _ = _UCRED.unpack(
            self._socket.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _UCRED.size)
        )
        if uid not in (0, posix.geteuid()):
            self._socket.close()
            raise SpecError(
                self._failed(f"the user {uid} listens there, not root"),
                hint="who listens there answers for the container: use a directory that only root can change",
            )

    def _send(self, message: bytes, fd: int, pidfd: int) -> None:
        """Send all, unless the process is killed meanwhile: that shows where its command is awaited.

        Raises TimeoutError once all its time is over, whatever it has read; other OSError.
        """
        deadline = time.monotonic() + self._left
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fd.to_bytes(4, sys.byteorder))]
        while message:
            try:
                sent = self._socket.sendmsg([message], rights, _socket.MSG_NOSIGNAL)
            except BlockingIOError:
                left = max(deadline - time.monotonic(), 0)
                found = ready((pidfd,), (self._socket.fileno(),), left)
                if pidfd in found:
                    return
                if not found or not left:
                    raise TimeoutError from None
                continue
            message, rights = message[sent:], []

    def _failed(self, reason: str) -> str:
        return f"seccomp profile: listenerPath {self._path}: {reason}"


def state(record: Record, metadata: str, pid: int, first: int) -> bytes:
    """The container process state, as JSON."""
    return codec.dumps(
        {
            "ociVersion": _VERSION,
            "fds": ["seccompFd"],
            "pid": pid,
            "metadata": metadata,
            "state": {
                "ociVersion": _VERSION,
                "id": record.id,
                "status": "running" if first else "creating",
                "pid": first or pid,
                "bundle": record.directory,
                "annotations": dict(record.spec.annotations),
            },
        }
    )
