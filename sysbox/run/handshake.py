"""The handshake between a parked child and its parent, over a SOCK_SEQPACKET pair.

The messages, in their only order; the numbers stand in comments on both sides:

  #0 BORN       builder -> parent if the child has a user namespace of its own: its pid, since the builder
                                  has made it (run/builder.py)
  #1 UNSHARED   child -> parent   its namespaces exist: links can be put into them
  #2 SCOPED     parent -> child   it is in its scope, its links exist (the data has their addresses)
  #3 CONSOLE    child -> parent   the master of its terminal, if it has one
  #4 PROCEED    parent -> child   its limits are written and its run is recorded: its command may run
     LISTENING  child -> parent   if others are to answer its system calls: the descriptor for that, which the
                                  parent takes
     TAKEN      parent -> child   it has been taken
     BORN       child -> parent   if a pid namespace is joined: the pid of the process that was born there and
                                  continues in place of the child
     WAITING    child -> parent   instead of #5 if the container is only created: the child needs nothing more
                                  of the parent, which may exit, and waits for a connection to its socket
     STARTING   child -> starter  over that connection, on which #5 or FAILED follows
  #5 (end)      the socket, which is close-on-exec, closes at a successful execve(2)
     FAILED     child -> parent   instead of any of these: phase, message, hint, exit status

The parent's end closes when the parent dies; a child that finds it closed exits.
"""

from __future__ import annotations

import _socket
import fcntl
import posix
import select

from sysbox.base import codec
from sysbox.base.errors import (
    FAILED,
    NOT_EXECUTABLE,
    NOT_FOUND,
    FormatError,
    KernelError,
    StartError,
    SysboxError,
)
from sysbox.linux import _sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

UNSHARED = b"U"
SCOPED = b"N"
CONSOLE = b"C"
PROCEED = b"P"
FAILURE = b"F"
BORN = b"B"
WAITING = b"W"
STARTING = b"S"
LISTENING = b"L"
TAKEN = b"T"

_LIMIT = 1 << 16  # bytes of a message
_TEXT_MAX = 2048  # characters, of which JSON makes up to twelve bytes each
_FD = _socket.CMSG_SPACE(4)


class Channel:
    """One end of the connection."""

    def __init__(self, socket: _socket.socket) -> None:
        self._socket = socket

    @staticmethod
    def pair() -> tuple[Channel, Channel]:
        """(parent's end, child's end)."""
        kind = _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC
        one, other = _socket.socketpair(_socket.AF_UNIX, kind)
        return Channel(one), Channel(other)

    @staticmethod
    def accept(listening: int) -> Channel:
        """Wait for a connection to the listening socket, an fd; our end of it. Raises OSError."""
        gate = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, listening)
        try:
            fd, _ = gate._accept()  # type: ignore[attr-defined]
        finally:
            gate.close()
        return Channel(_socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd))

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def move_above(self, lowest: int) -> None:
        """Have the connection by another descriptor, `lowest` or higher. Raises OSError."""
        kind = _socket.SOCK_SEQPACKET
        fd = fcntl.fcntl(self._socket.fileno(), fcntl.F_DUPFD_CLOEXEC, lowest)
        self._socket.close()
        self._socket = _socket.socket(_socket.AF_UNIX, kind, 0, fd)

    def send(self, kind: bytes, data: dict[str, Any] | None = None, fd: int = -1) -> None:
        """Send one message, with an fd if given. That the peer is gone shows when its answer is awaited."""
        message = kind + (codec.dumps(data) if data else b"")
        rights = (
            [] if fd < 0 else [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fd.to_bytes(4, "little"))]
        )
        try:
            self._socket.sendmsg([message], rights, _socket.MSG_NOSIGNAL)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def receive(self, expected: bytes) -> tuple[dict[str, Any], int]:
        """Wait for a message; its data and its fd (-1 for none).

        `expected` b"" waits until the peer closes its end. Raises StartError with what the child reported, or
        when the peer has ended without a report.
        """
        try:
            message, rights, _, _ = self._receive()
        except ConnectionResetError:
            # the peer closed its end before it read our last message; the kernel tells that once, ahead of
            # what the peer had sent (unix_dgram_recvmsg() of the kernel's source)
            message, rights, _, _ = self._receive()
        fd = int.from_bytes(rights[0][2][:4], "little") if rights else -1
        kind, data = message[:1], message[1:]
        if kind == expected:
            return (_object(data) if data else {}), fd
        if fd >= 0:
            posix.close(fd)
        if kind == FAILURE:
            raise _failure(data)
        raise StartError(
            "the container's first process ended before its command ran", phase="handshake"
        )

    def _receive(self) -> tuple[bytes, list[tuple[int, int, bytes]], int, object]:
        return self._socket.recvmsg(_LIMIT, _FD, _socket.MSG_CMSG_CLOEXEC)

    def reported_failure(self) -> StartError | None:
        """The failure that the child has sent, if one is there to be read; does not wait for it."""
        for _ in range(2):  # the second time after ECONNRESET, as in `receive`
            try:
                while message := self._socket.recv(_LIMIT, _socket.MSG_DONTWAIT):
                    if message[:1] == FAILURE:
                        return _failure(message[1:])
            except OSError:
                pass  # nothing is there to be read, or the connection is closed
        return None

    def check_peer(self) -> None:
        """Raises StartError when the other end is gone."""
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLHUP)
        if poll.poll(0):
            raise StartError("the process that started the container died", phase="handshake")

    def report(self, phase: str, doing: str, error: BaseException) -> None:
        """Send the child's last message: what has ended it, in which phase, doing what."""
        if isinstance(error, OSError) and not isinstance(error, SysboxError):
            error = KernelError.of(f"{doing} ({phase})", "", error)
        if not isinstance(error, SysboxError):
            bug = f"{type(error).__name__}: {error}"
            error = SysboxError(bug, hint="this is a bug in sysbox")
        self.fail(getattr(error, "phase", phase), error.message, error.hint, error.status)

    def fail(self, phase: str, message: str, hint: str, status: int) -> None:
        """Send the child's last message, cut to what fits."""
        # the peer would receive a longer message truncated, and could not parse it
        message, hint = message[:_TEXT_MAX], hint[:_TEXT_MAX]
        data = {"phase": phase, "message": message, "hint": hint, "status": status}
        self.send_once(FAILURE, data)

    def await_answer(self) -> None:
        """Wait for any message, or the peer's end, as `send_once` sends: by read(2), tried once."""
        try:
            _sys.await_byte(self._socket.fileno())
        except OSError:
            pass

    def send_once(self, kind: bytes, data: dict[str, Any]) -> None:
        """Send one message under a container's filter: by write(2), which a profile that allows anything
        allows, tried once. A refused message is lost: the peer sees that this process ends.
        """
        try:
            _sys.write(self._socket.fileno(), kind + codec.dumps(data))
        except OSError:
            pass


def _object(data: bytes) -> dict[str, Any]:
    """The data of a message. Raises StartError: a container with CAP_SYS_PTRACE may have forged it."""
    try:
        found = codec.loads(data, "handshake")
    except FormatError:
        found = None
    if not isinstance(found, dict):
        raise StartError(
            "the container's first process sent a malformed message", phase="handshake"
        )
    return found


def _failure(data: bytes) -> StartError:
    found = _object(data)
    status = found.get("status")
    return StartError(
        str(found.get("message", "")),
        phase=str(found.get("phase", "")),
        # a command that has not run has failed, whatever status the child claims
        status=status if status in (NOT_EXECUTABLE, NOT_FOUND) else FAILED,
        hint=str(found.get("hint", "")),
    )
