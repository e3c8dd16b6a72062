"""Plan /run/host/notify, the socket for sd_notify(3). Pure."""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.fs.rootfs import NOTHING, Filesystem
from sysbox.fs.sockets import NOTIFY, Socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.fs.rootfs import Operation
    from sysbox.spec import ContainerSpec


def plan_notify(spec: ContainerSpec) -> tuple[Operation, ...]:
    """The socket by which the payload says itself that it is ready, and the tmpfs that it is in: no other
    container has that, as another may have a volume at /run. Raises SpecError.
    """
    socket = Socket(target=NOTIFY)
    for mount in spec.mounts:
        if mount.target in (socket.above, NOTIFY):
            raise SpecError(
                f"mount {mount.target}: with Notify=yes the socket {NOTIFY} is there",
                hint="leave out the mount, or Notify=",
            )
    options = (("mode", "755"), ("size", "64k"), ("nr_inodes", "16"))
    above = Filesystem(fstype="tmpfs", target=socket.above, options=options, attributes=NOTHING)
    return above, socket
