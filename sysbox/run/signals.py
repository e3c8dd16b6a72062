"""The signals that ask a container to end, and which of its supervisor's signals reach it as others."""

from __future__ import annotations

import _signal

from sysbox.base.errors import KernelError, NotFound, SysboxError
from sysbox.container import systemd_mode
from sysbox.image.resolved import resolved_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.container.store import Record, Runtime


def send(runtime: Runtime, signal: int) -> None:
    """Send a signal to its first process; one that has ended is success."""
    try:
        runtime.send(signal)
    except KernelError:
        pass  # ignoring: it is gone


def stop_signal(record: Record) -> int:
    """The signal that asks it to end: the user's, the image's, systemd's if that is what runs, SIGTERM."""
    from sysbox.parse.time import parse_signal  # removing a container does not need it

    default = systemd_mode.stop_signal(record.spec, record.argv)
    try:
        asked = resolved_of(record).stop_signal
    except NotFound:
        asked = record.spec.stop_signal
    return parse_signal(asked or default, "stop signal")


def passed_on(record: Record) -> Callable[[int], int]:
    """A function from a signal that a command gets to the one that it sends to the container.

    systemd re-executes itself on SIGTERM: it is sent its stop signal, and is being stopped.
    """
    if not systemd_mode.applies(record.spec, record.argv):
        return lambda number: number
    asked = stop_signal(record)

    def replaced(number: int) -> int:
        if number != _signal.SIGTERM:
            return number
        from sysbox.run import exit_record

        try:
            exit_record.mark_stopped(record)
        except SysboxError:
            pass  # ignoring: the signal matters more
        return asked

    return replaced
