"""sd_notify(3) and its barrier: a message is handled before its sender goes on."""

from __future__ import annotations

import array
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from sysbox.linux import unix


def test_the_barrier_waits_until_the_descriptor_is_closed(tmp_path: Path) -> None:
    handled: list[float] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))

        def handle() -> None:
            assert manager.recv(100) == b"READY=1"
            data, rights, _, _ = manager.recvmsg(100, socket.CMSG_SPACE(4))
            assert data == b"BARRIER=1"
            (fd,) = array.array("i", rights[0][2])
            time.sleep(0.1)
            handled.append(time.monotonic())
            os.close(fd)

        thread = threading.Thread(target=handle)
        thread.start()
        before = len(os.listdir("/proc/self/fd"))
        unix.notify(str(tmp_path / "notify"), "READY=1")
        unix.notify_barrier(str(tmp_path / "notify"), 30)
        after = time.monotonic()
        thread.join()
    assert handled
    assert handled[0] <= after
    assert len(os.listdir("/proc/self/fd")) <= before


def test_the_barrier_has_an_end(tmp_path: Path) -> None:
    """With a manager that does not answer; and there must be one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        unix.notify_barrier(str(tmp_path / "notify"), 0.05)
    with pytest.raises(OSError, match="refused"):
        unix.notify_barrier(str(tmp_path / "notify"), 5)
