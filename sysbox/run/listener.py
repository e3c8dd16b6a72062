"""Pass the listener of a container's seccomp filter to the agent at the profile's `listenerPath`.

The agent answers the system calls whose action is SCMP_ACT_NOTIFY, for as long as the container runs. What it
is sent is the OCI runtime specification's (config-linux, "Seccomp", "The Container Process State").
"""

from __future__ import annotations

import _socket
import posix
import sys

from sysbox.base import codec
from sysbox.base.errors import SpecError, StartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.container.store import Record
    from sysbox.security.seccomp import Filter

_VERSION = "1.0.2"  # of the specification: the first that has listenerPath
_PATIENCE = 10.0  # seconds for an agent to accept a connection


def connect(record: Record, filtered: Filter, first: int = 0) -> Callable[[int, int], None]:
    """Connect to the agent; what is to be called with the descriptor and the pid of who loaded the filter.

    `first` is the container's first process, 0 if that is the one that is made. Raises SpecError.
    """
    path = filtered.listener
    socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    socket.settimeout(_PATIENCE)
    try:
        socket.connect(path)
    except OSError as error:
        raise SpecError(
            f"seccomp profile: listenerPath {path}: {_reason(error)}",
            hint="an agent that answers the calls of SCMP_ACT_NOTIFY must listen there",
        ) from None

    def pass_on(fd: int, pid: int) -> None:
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fd.to_bytes(4, sys.byteorder))
        message = state(record, filtered.metadata, pid, first)
        try:
            sent = socket.sendmsg([message], [rights], _socket.MSG_NOSIGNAL)
            while sent < len(message):
                sent += socket.send(message[sent:], _socket.MSG_NOSIGNAL)
        except OSError as error:
            raise StartError(
                f"seccomp profile: listenerPath {path}: {_reason(error)}", phase="process"
            ) from None
        finally:
            socket.close()

    return pass_on


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


def _reason(error: OSError) -> str:
    return posix.strerror(error.errno) if error.errno else "it does not answer"
