"""The supervisor in the foreground: what its pumps do when a reader leaves, and what it does only later."""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING, cast

import pytest
from forked import in_child

from sysbox.run import supervisor
from sysbox.run.stdio import Streams

if TYPE_CHECKING:
    from sysbox.run.supervisor import _Log


class Log:
    """Keeps what is written to the journal."""

    def __init__(self) -> None:
        self.kept = b""

    def write(self, _stream: int, data: bytes) -> None:
        self.kept += data


def test_the_log_goes_on_when_the_reader_has_left() -> None:
    """As in `sysbox run ... | head -1`."""
    log = Log()
    source, container = os.pipe()
    reader, sink = os.pipe()
    # as standard output: what is above 2 leads into the container
    saved = os.dup(1)
    os.dup2(sink, 1)
    try:
        pump = supervisor._Pump(source, 1, closes=-1, log=cast("_Log", log), keys=b"")
        os.write(container, b"one\n")
        pump.on_event(source, select.POLLIN)
        assert os.read(reader, 9) == b"one\n"
        os.close(reader)
        for text in (b"two\n", b"three\n"):
            os.write(container, text)
            pump.on_event(source, select.POLLIN)
        os.write(container, b"four\n")
        os.close(container)
        pump.drain()
    finally:
        os.dup2(saved, 1)
        os.close(saved)
    assert log.kept == b"one\ntwo\nthree\nfour\n"
    for fd in (source, sink):
        os.close(fd)


@pytest.mark.parametrize(("lasts", "called"), [(0.0, 0), (0.3, 1)])
def test_what_is_done_later_is_not_done_for_what_ends_soon(lasts: float, called: int) -> None:
    def check() -> None:
        pid = os.fork()
        if pid == 0:
            time.sleep(lasts)
            os._exit(3)
        calls: list[float] = []
        one = supervisor.Foreground(pid, os.pidfd_open(pid), Streams(), -1)
        begin = time.monotonic()
        one.later.append((0.1, lambda: calls.append(time.monotonic() - begin)))
        assert one.wait(None).code == 3
        assert len(calls) == called
        assert all(0.1 <= after < 0.3 for after in calls)

    in_child(check)
