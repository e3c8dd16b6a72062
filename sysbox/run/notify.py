"""What a container tells systemd with sd_notify(3), in the foreground; the monitor does it by itself.

The caller is a service of Type=notify then, and this process is its main one. `ContainerSpec.ready` says when
it, or the service that declares the container, is started: "" and "conmon" once the command runs (of "conmon"
a run in the foreground tells so), "healthy" at the first good health check, "container" when the payload says
so, which has a socket for that.
"""

from __future__ import annotations

import posix

from sysbox.base.wait import ready
from sysbox.container import store
from sysbox.fs.sockets import NOTIFY
from sysbox.linux import unix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.records import Record
    from sysbox.plan import Plan
    from sysbox.run.start import Started
    from sysbox.run.stdio import Streams


def with_watchdog(plan: Plan) -> Plan:
    """The plan of a container that feeds the watchdog of its service, if this process is asked to.

    WATCHDOG_PID is that of the process which is to read WATCHDOG_USEC (sd_watchdog_enabled(3)).
    """
    microseconds = posix.environ.get(b"WATCHDOG_USEC", b"")
    meant = posix.environ.get(b"WATCHDOG_PID", b"%d" % posix.getpid())
    if not microseconds.isdigit() or meant != b"%d" % posix.getpid():
        return plan
    process = plan.process
    return plan.replace(
        process=process.replace(
            env=(*process.env, f"WATCHDOG_USEC={microseconds.decode()}"),
            pid_variables=(*process.pid_variables, "WATCHDOG_PID"),
        )
    )


def begin(record: Record, started: Started, wired: Streams) -> Passing | None:
    """Tell that the command runs, or begin to pass on what the container tells. Raises OSError."""
    to = unix.notify_address()
    if not to:
        return None
    if record.spec.ready == "container":
        return Passing(record, started, wired.sockets[NOTIFY], to)
    unix.notify(to, "READY=1")
    return None


class Passing:
    """Passes on what comes to the socket of one container (src/notify.c)."""

    def __init__(self, record: Record, started: Started, socket: int, to: str) -> None:
        from sysbox.linux import _notify

        self._notify = _notify
        self._pidfd = started.pidfd
        self._socket = socket
        runtime = store.runtime(record.id)
        _notify.begin(socket, started.pid, runtime.cgroup if runtime else "", to)

    def fileno(self) -> int:
        return self._socket

    def pass_on(self) -> None:
        """What has come by now; waits while systemd has no room, or so much has come that more would cost
        systemd too much, or until the container's end.
        """
        full, milliseconds = self._notify.ready()
        if full >= 0 or milliseconds:
            ready([self._pidfd], [full] if full >= 0 else [], milliseconds / 1000 or None)

    def close(self) -> None:
        """What is left."""
        self._notify.close()
