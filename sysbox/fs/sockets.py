"""Plan the sockets of the supervisor that are files in the container: /dev/log, /run/host/notify. Pure."""

from __future__ import annotations

from sysbox.base.frozen import Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.spec import ContainerSpec

LOG = "/dev/log"
NOTIFY = "/run/host/notify"  # where systemd's container interface has it


class Socket(Frozen):
    """Bind a socket of the supervisor to a path, for each user to connect to: /dev/log for syslog(3), which
    goes to the journal (src/syslog.c), /run/host/notify for sd_notify(3) (src/notify.c).

    It is in a file system of the container's own, and no mount: an image with a syslog daemon of its own
    removes it and makes another, as on any system.
    """

    target: str

    @property
    def above(self) -> str:
        """The directory that it is in."""
        return self.target.rpartition("/")[0]

    @property
    def name(self) -> str:
        return self.target.rpartition("/")[2]

    def describe(self) -> str:
        return f"socket {self.target}, to {'the journal' if self.target == LOG else 'systemd'}"


def plan_syslog(spec: ContainerSpec, *, booted: bool) -> tuple[Socket, ...]:
    """The socket, where the container's log is the journal; a systemd inside (`booted`) makes its own."""
    kept = spec.logging.driver == "journald" and spec.logging.syslog
    # what the user has put there takes its place
    taken = {*(one.target for one in spec.mounts), *(one.target for one in spec.devices)}
    return (Socket(target=LOG),) if kept and not booted and LOG not in taken else ()
