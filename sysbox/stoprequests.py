"""Hearing that systemd is asked to stop a scope whose supervisor is no service of systemd's.

A scope in the foreground has a KillSignal= that does nothing (see scopeplan.py), since systemd sends it to
every process. What the container's first process is to get, its supervisor sends when it hears of the job.
"""

from __future__ import annotations

import time

from sysbox import scope
from sysbox.errors import SystemdError
from sysbox.units.bus import Bus, is_lost

_PATIENCE = 2.0  # seconds
_STEP = 0.02
_STOPPING = ("deactivating", "inactive", "failed")


class StopRequests:
    """A connection to systemd that can be polled. Raises SystemdError where there is none."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._bus = Bus.connect()
        self._bus.watch("JobNew")
        self._asked = self._state() in _STOPPING

    def _state(self) -> str:
        return scope.state(self._bus, self._unit)[0]

    def fileno(self) -> int:
        """For poll(2); another one after each `asked`, maybe."""
        return self._bus.fileno()

    def asked(self) -> bool:
        """Whether a stop has been asked for; to be called when there is something to read.

        Raises SystemdError when systemd is gone.
        """
        try:
            jobs = self._bus.pending("JobNew")
        except SystemdError as error:
            if not is_lost(error):
                raise
            # PID 1 executes itself anew
            self._reconnect()
            jobs = []
        self._asked = self._asked or any(job[2] == self._unit for job in jobs)
        return self._asked

    def _reconnect(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                self._bus.reconnect()
                self._asked = self._asked or self._state() in _STOPPING
                return
            except SystemdError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_STEP)

    def close(self) -> None:
        self._bus.close()
