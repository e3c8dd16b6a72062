"""Poll until a condition holds."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    Answer = TypeVar("Answer")


def until(ask: Callable[[], Answer], timeout: float, step: float) -> Answer:
    """Call `ask` every `step` seconds until its answer is true or `timeout` seconds have passed.

    Returns the last answer. `ask` is called at least once, and once more at the timeout.
    """
    deadline = time.monotonic() + timeout
    while True:
        late = time.monotonic() >= deadline
        if (answer := ask()) or late:
            return answer
        time.sleep(step)
