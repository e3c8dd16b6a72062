"""A stop of a service while it starts its container: the start ends at once, and what was made is undone.

The scope is Before= its service, so systemd begins no start job of the scope until the stop job of the
service is done: a start that went on would wait for its scope until the service's TimeoutStopSec=.
"""

from __future__ import annotations

import _signal

from sysbox.base.errors import Interrupted

_STOP = (_signal.SIGTERM,)


def heed() -> None:
    """Have SIGTERM raise KeyboardInterrupt from now on, as ctrl-c does; one that is pending does so at once.

    Only the first one: nothing interrupts what undoes the start.
    """
    _signal.signal(_signal.SIGTERM, _interrupt)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _STOP)


def hold() -> None:
    """Have SIGTERM wait for the next `heed`, or for the monitor, which inherits a pending one."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _STOP)


def forget() -> None:
    """Have SIGTERM end this process from now on; one that is pending does so at once."""
    _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _STOP)


def _interrupt(*_: object) -> None:
    _signal.signal(_signal.SIGTERM, lambda *_: None)
    raise Interrupted(_signal.SIGTERM)
