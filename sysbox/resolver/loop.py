"""One thread that waits for many sockets, and for points in time."""

from __future__ import annotations

import heapq
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READ, WRITE = select.EPOLLIN, select.EPOLLOUT


class Timer:
    """Something to do later, unless it is cancelled."""

    __slots__ = ("what", "when")

    def __init__(self, when: float, what: Callable[[], None]) -> None:
        self.when = when
        self.what: Callable[[], None] | None = what

    def cancel(self) -> None:
        self.what = None

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when


class Loop:
    """Calls the handler of each descriptor that is ready."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._timers: list[Timer] = []
        self.active = time.monotonic()  # when a handler was called last

    def watch(self, fd: int, events: int, handler: Callable[[], None]) -> None:
        """Call `handler` whenever the descriptor is ready, or has failed."""
        if fd in self._handlers:
            self._poll.modify(fd, events)
        else:
            self._poll.register(fd, events)
        self._handlers[fd] = handler

    def forget(self, fd: int) -> None:
        """Watch a descriptor no longer; called before it is closed."""
        if self._handlers.pop(fd, None):
            self._poll.unregister(fd)

    def later(self, seconds: float, what: Callable[[], None]) -> Timer:
        """Call `what` once, in so many seconds."""
        timer = Timer(time.monotonic() + seconds, what)
        heapq.heappush(self._timers, timer)
        return timer

    def run(self, idle: float, is_busy: Callable[[], bool]) -> None:
        """Return after `idle` seconds in which no descriptor was ready and nothing was going on."""
        self.active = time.monotonic()
        while True:
            due = self.active + idle
            if self._timers:
                due = min(due, self._timers[0].when)
            for fd, _ in self._poll.poll(max(due - time.monotonic(), 0.0)):
                handler = self._handlers.get(fd)
                if handler:  # an earlier handler may have closed it
                    self.active = time.monotonic()
                    handler()
            now = time.monotonic()
            while self._timers and self._timers[0].when <= now:
                what = heapq.heappop(self._timers).what
                if what:
                    what()
            if now - self.active >= idle:
                if not is_busy():
                    return
                self.active = now
