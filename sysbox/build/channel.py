"""What the coordinator of a build and the workers of its stages tell each other: small JSON messages.

    worker → coordinator    begin N · so far FILES SIZE · done N SECONDS CACHED · need STAGE · error · end
    coordinator → worker    ready STAGE

What a step prints goes through a pipe beside it.
"""

from __future__ import annotations

import socket

from sysbox.base import codec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MOST = 1 << 17  # bytes


class Channel:
    """One end."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """(the coordinator's end, the worker's)."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), cls(theirs)

    def say(self, kind: str, **data: Any) -> None:
        """Send a message. Raises OSError."""
        self._socket.send(codec.dumps({"kind": kind, **data}))

    def hear(self) -> dict[str, Any]:
        """The next message; {} once the other end is closed."""
        try:
            text = self._socket.recv(_MOST)
        except ConnectionResetError:
            text = b""
        found: dict[str, Any] = codec.loads(text, "a message of a build") if text else {}
        return found

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()
