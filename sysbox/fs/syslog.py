"""Plan /dev/log, the socket for syslog(3). Pure."""

from __future__ import annotations

from sysbox.base.frozen import Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.spec import ContainerSpec

_PATH = "/dev/log"


class Syslog(Frozen):
    """Bind the supervisor's socket to /dev/log: it passes on what is sent there (src/syslog.c).

    It is in the container's own /dev, and no mount: an image with a syslog daemon of its own removes it and
    makes another, as on any system.
    """

    def describe(self) -> str:
        return f"socket {_PATH}, to the journal"


def plan_syslog(spec: ContainerSpec, *, booted: bool) -> tuple[Syslog, ...]:
    """The socket, where the container's log is the journal; a systemd inside (`booted`) makes its own."""
    kept = spec.logging.driver == "journald" and spec.logging.syslog
    # what the user has put there takes its place
    taken = {*(one.target for one in spec.mounts), *(one.target for one in spec.devices)}
    return (Syslog(),) if kept and not booted and _PATH not in taken else ()
