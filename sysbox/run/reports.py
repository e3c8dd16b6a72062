"""What a client hears that has asked for the start of a detached container: its command runs, or why not.

A job of systemd's tells only a word, so the client listens at a socket (run/background.py), to which the
process that starts the container sends one answer. If that was killed first, what runs after its end answers.
"""

from __future__ import annotations

import posix

from sysbox.base import codec
from sysbox.base.errors import Conflict, Gone, SysboxError
from sysbox.base.paths import RUN
from sysbox.host import exists
from sysbox.linux import unix
from sysbox.units.names import service_unit

DIRECTORY = f"{RUN}/reports"  # <id>: the socket of the client that waits


def path_of(container_id: str) -> str:
    """The client's socket."""
    return f"{DIRECTORY}/{container_id}"


def send(container_id: str, error: SysboxError | None) -> None:
    """Tell the client that the command runs, or why not. Often no client waits."""
    data = b""
    if error is not None:
        values = {"message": error.message, "hint": error.hint, "status": error.status}
        if isinstance(error, Gone):
            values["gone"] = error.container
        data = codec.dumps(values)
    try:
        unix.send(path_of(container_id), data, wait=False)
    except OSError:
        pass  # ignoring: no client waits, or it asks systemd


def send_after_end(container_id: str) -> None:
    """Answer for a process that has ended before it did; a client takes the first answer.

    Called by ExecStopPost=, which gets from systemd how the process ended (systemd.exec(5), $SERVICE_RESULT).
    """
    if exists(path_of(container_id)):
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
    if status == "TERM":
        return ""
    if code in ("killed", "dumped"):
        return f"was killed by SIG{status}"
    return f"ended with status {status}" if code == "exited" else "ended"
