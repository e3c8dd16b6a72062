"""The back-off: how long a restart waits, by how quickly the runs before it ended."""

from __future__ import annotations

import _signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.records import Final

# Ends a wait at once. One that comes too late changes nothing: no process ends by it, and no system call
HASTEN = _signal.SIGCONT
_QUICK = 10  # seconds; a longer run resets the back-off, as in docker
_FIRST = 0.1  # seconds; RestartSec= waits as long by itself
_LONGEST = 60.0  # seconds


def back_off(final: Final | None) -> float:
    """Seconds to wait before a start, beyond RestartSec=: in all 0.1, doubled by each quick end in a row."""
    if final is None or final.quick_ends < 2:
        return 0.0
    doubled = _FIRST * (1 << min(final.quick_ends - 1, 16))
    return min(doubled, _LONGEST) - _FIRST


def wait_or_stopped(
    seconds: float, signals: frozenset[int] = frozenset((_signal.SIGTERM,))
) -> bool:
    """Wait; True if one of `signals`, which the caller has blocked, arrived meanwhile.

    If the caller has blocked HASTEN too, that ends the wait.
    """
    info = _signal.sigtimedwait({*signals, HASTEN}, seconds) if seconds > 0 else None
    return info is not None and info.si_signo != HASTEN


def quick_ends(previous: Final | None, ran_ns: int) -> int:
    """How many runs in a row have ended quickly, counting one that lasted `ran_ns`."""
    if ran_ns >= _QUICK * 1_000_000_000:
        return 0
    return 1 + (previous.quick_ends if previous else 0)
