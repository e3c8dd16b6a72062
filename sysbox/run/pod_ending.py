"""The exit policy of a declared pod: its service stops once its last container has ended for good.

Whether a container is started again systemd decides after the end of its service, of which the end of the
container is a part: so a unit of its own waits for that.
"""

from __future__ import annotations

import time

from sysbox import scope
from sysbox.base import program
from sysbox.base.errors import NotFound, SystemdError
from sysbox.container import pods
from sysbox.units.bus import SYSTEMD, Bus
from sysbox.units.limits.properties import Property

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.pods import Pod

_EXISTS = f"{SYSTEMD}.UnitExists"
_STEP = 0.02  # seconds
_MEMORY = 64 << 20  # bytes


def begin(pod: Pod) -> None:
    """Have `finish` called, without waiting for it. Raises SystemdError."""
    command = [program.launcher, "_pod_end", pod.id]
    settings: tuple[tuple[str, str, object], ...] = (
        ("Description", "s", f"Exit policy of sysbox pod {pod.name}"),
        ("Type", "s", "oneshot"),
        ("ExecStart", "a(sasb)", [(program.launcher, command, False)]),
        ("CollectMode", "s", "inactive-or-failed"),
        ("Slice", "s", "sysbox.slice"),
        ("MemoryMax", "t", _MEMORY),
    )
    properties = tuple(
        Property(name=name, signature=kind, value=value) for name, kind, value in settings
    )
    with Bus.connect() as bus:
        try:
            scope.start_service(bus, f"sysbox-pod-end-{pod.id}.service", properties).wait_queued()
        except SystemdError as error:
            if error.dbus_name != _EXISTS:
                raise  # else another one is at it, and has yet to look at this container


def finish(pod_id: str) -> None:
    """Stop the service of a pod, unless one of its containers runs or will. Raises SystemdError."""
    try:
        unit = pods.load(pods.name_of(pod_id)).unit
    except NotFound:
        return
    with Bus.connect() as bus:
        while unit:
            found = scope.properties(bus, unit, scope.UNIT, ("ActiveState", "BoundBy"))
            if found["ActiveState"] != "active":
                return
            states = [scope.progress(bus, one) for one in found["BoundBy"]]
            ended = [job for active, job in states if active in scope.ENDED]
            ending = [job for active, job in states if active == "deactivating"]
            if any(ended) or len(ended) + len(ending) < len(states):
                return  # one runs, or is about to: its end comes here again
            if not ending:
                scope.request_stop(bus, unit)
                return
            time.sleep(_STEP)
