"""RUN --mount=type=ssh: a socket of the step's own that leads to the caller's ssh agent.

An agent answers only its own user and the superuser, and root in a container is neither; so a process of the
build's stands between. It ends with the step.
"""

from __future__ import annotations

import _signal
import posix
import select
import socket

from sysbox.base.errors import KernelError
from sysbox.fs import policy_contexts
from sysbox.linux import _sys, lsm
from sysbox.linux.process import PR_SET_PDEATHSIG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_CHUNK = 1 << 16
_MOST = 64  # connections at once


class Relay:
    """Listens at one path, and passes each connection on to the agent at another. Raises KernelError."""

    def __init__(self, path: str, agent: str) -> None:
        # under SELinux a container may connect to what has its own type, of a level that is below its own
        label = policy_contexts.read().process if lsm.has_selinux() else ""
        with lsm.Sockets(label):
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.bind(path)
            listening.listen(_MOST)
            parent = posix.getpid()
            self._pid = posix.fork()
            if not self._pid:
                _serve(listening, agent, parent)
        except OSError as error:
            raise KernelError.of("listen at", path, error) from None
        finally:
            listening.close()

    def stop(self) -> None:
        """End it."""
        posix.kill(self._pid, _signal.SIGKILL)
        posix.waitpid(self._pid, 0)


def _serve(listening: socket.socket, agent: str, parent: int) -> NoReturn:
    try:
        _sys.prctl(PR_SET_PDEATHSIG, _signal.SIGKILL)
        if posix.getppid() == parent:
            _loop(listening, agent)
    finally:
        posix._exit(0)


def _loop(listening: socket.socket, agent: str) -> None:
    """Each end of a connection -> the other one."""
    others: dict[socket.socket, socket.socket] = {}
    while True:
        waiting = [*others, *([listening] if len(others) < 2 * _MOST else [])]
        for one in select.select(waiting, [], [])[0]:
            if one is listening:
                client = listening.accept()[0]
                server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                try:
                    server.connect(agent)
                except OSError:
                    client.close()
                    server.close()
                    continue
                others[client], others[server] = server, client
            elif one in others and not _passed(one, others[one]):
                other = others.pop(one)
                del others[other]
                one.close()
                other.close()


def _passed(source: socket.socket, sink: socket.socket) -> bool:
    """Pass on what can be read; whether the connection goes on."""
    try:
        data = source.recv(_CHUNK)
        sink.sendall(data)
    except OSError:
        return False
    return bool(data)
