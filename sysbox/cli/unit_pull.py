"""The pull of a service that is about to start its container.

systemd is told how far it is, and that the start takes longer. A registry that is not reached is asked again
once the network is there. Where systemd restarts a service whose pull has failed, the restarts get slower.
"""

from __future__ import annotations

import time

from sysbox import scope
from sysbox.base.errors import SysboxError, Unreachable
from sysbox.cli import pulling
from sysbox.cli.layer_progress import LayerProgress
from sysbox.units.bus import Bus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.base.errors import ImageNotFound
    from sysbox.cli.table.options import Values
    from sysbox.spec import ContainerSpec

_ONLINE = "network-online.target"
_STEP = 0.25  # seconds between two looks at it
_LONGEST = 300.0  # seconds for it; systemd's own services that wait for the network give up after two minutes
_FIRST_PAUSE = 2.0  # seconds, at the first restart by systemd; doubled at each further one
_LONGEST_PAUSE = 60.0


class UnitPull:
    """The pulls for one start of a service."""

    def __init__(self, unit: str, values: Values) -> None:
        """`values` are the flags of its container. Raises SpecError."""
        self._unit = unit
        self._asked = pulling.asked(values)
        self._progress = LayerProgress(quiet=True)

    def refresh(self, spec: ContainerSpec) -> ContainerSpec:
        """`pulling.refresh`, which pulls for `--pull always` and the like. Raises SysboxError."""
        return self._try(lambda: pulling.refresh(spec, quiet=True, asked=self._asked))

    def missing(self, spec: ContainerSpec, error: ImageNotFound) -> ContainerSpec:
        """`pulling.missing`, for an image that is not here. Raises SysboxError."""
        return self._try(lambda: pulling.missing(spec, error, quiet=True, asked=self._asked))

    def _try(self, pull: Callable[[], ContainerSpec]) -> ContainerSpec:
        try:
            try:
                return pull()
            except SysboxError as error:
                reached = not isinstance(error.__cause__ or error, Unreachable)
                if reached or not self._wait_online():
                    raise
            return pull()
        except SysboxError as error:
            self._slow_down(error)
            raise

    def _wait_online(self) -> bool:
        """Start network-online.target, and wait for it; False where it is active, which would not help.

        Only now: most starts need no pull, and a boot need not wait for the network for them.
        """
        with Bus.connect() as bus:
            if scope.active_state(bus, _ONLINE) == "active":
                return False
            scope.request_start(bus, _ONLINE)
            deadline = time.monotonic() + _LONGEST
            while time.monotonic() < deadline:
                state, job = scope.progress(bus, _ONLINE)
                if state == "active" or not job:
                    break
                self._progress.notify("Waiting for the network")
                time.sleep(_STEP)
        return True

    def _slow_down(self, error: SysboxError) -> None:
        """Wait before the failure is systemd's to know, where systemd alone has started the service.

        Its start limit does not end a loop of pulls that take some seconds each.
        """
        with Bus.connect() as bus:
            service = scope.INTERFACES[".service"]
            restarts = scope.properties(bus, self._unit, service, ("NRestarts",))["NRestarts"]
        if restarts:
            pause = min(_FIRST_PAUSE * 2.0 ** min(restarts - 1, 16), _LONGEST_PAUSE)
            self._progress.extend(pause)
            self._progress.notify(f"{error.message}; failing in {pause:g} s")
            time.sleep(pause)  # a stop of the service ends it
