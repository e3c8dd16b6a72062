"""`sysbox logs -f`: when it ends."""

from __future__ import annotations

import os
import signal

from sysbox.cli.commands import logs


def test_it_goes_on_until_nothing_is_left_and_the_container_has_ended() -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    ends = [os.pidfd_open(child)]
    os.write(writer, b"first")
    assert logs._wait_readable(reader, ends)
    os.read(reader, 100)
    os.write(writer, b"last")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert logs._wait_readable(reader, ends)
    os.read(reader, 100)
    assert not logs._wait_readable(reader, ends)
    assert ends == []
    os.write(writer, b"and what came late")
    assert logs._wait_readable(reader, ends)
    for fd in (reader, writer):
        os.close(fd)
