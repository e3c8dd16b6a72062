"""The protocol between the host and the agent in the guest: frames over one serial port."""

from __future__ import annotations

import os
import struct

PORT = "org.sysbox.agent"
HEADER = struct.Struct(">cI")

READY = b"Y"  # agent: waiting for a request
RUN = b"R"  # host: a request, in JSON (see Machine.request)
INPUT = b"I"  # host: input from the terminal
WINDOW = b"W"  # host: the terminal's new size, in JSON
OUTPUT = b"O"  # agent: of its standard output
ERRORS = b"E"  # agent: of its standard error
EXIT = b"X"  # agent: its exit status, in decimal; the last frame of a request


def send(fd: int, kind: bytes, data: bytes = b"") -> None:
    """Write one frame."""
    view = memoryview(HEADER.pack(kind, len(data)) + data)
    while view:
        view = view[os.write(fd, view) :]


def receive(fd: int) -> tuple[bytes, bytes]:
    """Read one frame. Raises EOFError when the other side has closed the port."""
    kind, length = HEADER.unpack(_exactly(fd, HEADER.size))
    return kind, _exactly(fd, length)


def _exactly(fd: int, length: int) -> bytes:
    data = b""
    while len(data) < length:
        chunk = os.read(fd, length - len(data))
        if not chunk:
            raise EOFError("the other side has closed the port")
        data += chunk
    return data


def copy(source: int, fd: int, kind: bytes) -> bool:
    """Send what can be read from `source`; False at its end (EIO for a terminal)."""
    try:
        data = os.read(source, 1 << 16)
    except OSError:
        return False
    if data:
        send(fd, kind, data)
    return bool(data)
