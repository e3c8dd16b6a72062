"""What a client hears that has asked for the start of a detached container: its command runs, or why not.

A job of systemd's tells only a word, so each client listens at a socket of its own (run/background.py). The
process that starts the container sends one answer to all of them. If it was killed first, what runs after its
end answers.
"""

from __future__ import annotations

import _signal
import posix

from sysbox.base import codec
from sysbox.base.errors import Conflict, Gone, SysboxError
from sysbox.base.paths import RUN
from sysbox.linux import unix
from sysbox.units.names import service_unit

_STOPPED = str(128 + _signal.SIGTERM)
DIRECTORY = f"{RUN}/reports"  # <id>.<pid>: the socket of a client that waits


def path_of(container_id: str) -> str:
    """This process's socket: one that several want to start at once answers all of them."""
    return f"{DIRECTORY}/{container_id}.{posix.getpid()}"


def sockets() -> list[tuple[str, str]]:
    """(container id, path) of all sockets, some of which nobody may listen at any more."""
    try:
        names = posix.listdir(DIRECTORY)
    except FileNotFoundError:
        return []
    return [(name.partition(".")[0], f"{DIRECTORY}/{name}") for name in names]


def send(container_id: str, error: SysboxError | None) -> None:
    """Tell the clients that the command runs, or why not. Often no client waits."""
    data = b""
    if error is not None:
        values = {"message": error.message, "hint": error.hint, "status": error.status}
        if isinstance(error, Gone):
            values["gone"] = error.container
        data = codec.dumps(values)
    for path in _of(container_id):
        try:
            unix.send(path, data, wait=False)
        except OSError:
            pass  # ignoring: it does not wait any more, or asks systemd


def _of(container_id: str) -> list[str]:
    return [path for whose, path in sockets() if whose == container_id]


def send_after_end(container_id: str) -> None:
    """Answer for a process that has ended before it did; a client takes the first answer.

    Called by ExecStopPost=, which gets from systemd how the process ended (systemd.exec(5), $SERVICE_RESULT).
    """
    if _of(container_id):
        ending = _ending()
        hint = f"`journalctl -u {service_unit(container_id)}` may tell more"
        message = f"the process that starts the container {ending} before it could say more"
        send(container_id, SysboxError(message, hint=hint) if ending else stopped())


def stopped() -> Conflict:
    """The error for a start that a stop of its service has ended."""
    hint = "by a request, or by systemd after its TimeoutStartSec="
    return Conflict("its service was stopped while it started", hint=hint)


def _ending() -> str:
    """How the process of the service has ended, by systemd's variables: a clause, "" for a stop."""
    result, code, status = (
        posix.environ.get(name, b"").decode("utf-8", "replace")
        for name in (b"SERVICE_RESULT", b"EXIT_CODE", b"EXIT_STATUS")
    )
    if result == "oom-kill":
        return "was killed for lack of memory"
    if result == "timeout":
        return "was ended by its TimeoutStartSec="
    # it gives up with 0 where it waits for the back-off; there is no code where it did not begin, since the
    # stop has ended an ExecStartPre= of an administrator's
    if status in ("TERM", _STOPPED, "0") or (result in ("success", "signal") and not code):
        return ""
    if code in ("killed", "dumped"):
        return f"was killed by SIG{status}"
    return f"ended with status {status}" if code == "exited" else "ended"
