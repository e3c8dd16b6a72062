"""Wait for file descriptors, or poll until a condition holds."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    Answer = TypeVar("Answer")


def ready(
    reading: Iterable[int] = (), writing: Iterable[int] = (), seconds: float | None = None
) -> set[int]:
    """The file descriptors that can be read or written, or have no other end any more; waits for the first.

    Empty after `seconds`; None waits for ever. By poll(2): select(2) refuses descriptors from 1024 on, and a
    caller may leave us as many open files as it likes.
    """
    import select

    poll = select.poll()
    for fd in reading:
        poll.register(fd, select.POLLIN)
    for fd in writing:
        poll.register(fd, select.POLLOUT)
    return {fd for fd, _ in poll.poll(None if seconds is None else seconds * 1000)}


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
