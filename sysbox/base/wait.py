"""The one loop that asks again until something is so."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    Answer = TypeVar("Answer")


def until(ask: Callable[[], Answer], timeout: float, step: float) -> Answer:
    """Call `ask` every `step` seconds until its answer is true or `timeout` seconds are over; the last one.

    It is called once at least, and once more when the time is over.
    """
    deadline = time.monotonic() + timeout
    while True:
        late = time.monotonic() >= deadline
        if (answer := ask()) or late:
            return answer
        time.sleep(step)
