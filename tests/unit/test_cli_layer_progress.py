"""The lines of a pull: they fit the terminal; one that cannot move its cursor gets a line for each step."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import termios
from pathlib import Path

import pytest

from sysbox.cli import layer_progress
from sysbox.cli.layer_progress import LayerProgress
from sysbox.image.documents import Descriptor

LAYER = Descriptor(media_type="layer", digest=f"sha256:{'a' * 64}", size=4_000_000)


def shown(columns: int) -> str:
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 10, columns, 0, 0))
    times = iter(range(100))
    progress = LayerProgress(quiet=False, fd=slave, clock=lambda: float(next(times)))
    progress.blobs([LAYER])
    progress.state(0, "fetching")
    progress.tell(0, 1_000_000)
    os.write(slave, b"end\n")
    text = ""
    while not text.endswith("end\r\n"):
        text += os.read(master, 4096).decode()
    os.close(master)
    os.close(slave)
    return text.replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (80, "aaaaaaaaaaaa  [######                  ]     1MB of 4MB     1MB/s\n"),
        (50, "aaaaaaaaaaaa     1MB of 4MB     1MB/s\n"),
        (20, "aaaaaaaaaaaa  25%\n"),
        (10, "aaaaaaaaa\n"),
    ],
)
def test_a_line_fits(monkeypatch: pytest.MonkeyPatch, columns: int, says: str) -> None:
    monkeypatch.setenv("TERM", "xterm")
    text = shown(columns)
    assert f"\x1b[K{says}" in text, text
    assert all(len(line.split("\x1b[K")[-1]) < columns for line in text.split("\n")[:-1])


def test_a_terminal_without_a_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert shown(80) == "aaaaaaaaaaaa: fetching, 4MB\nend\n"


def test_a_service_that_waits_asks_for_more_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also while nothing moves; not longer, and nothing of it is left for the next program."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setattr(layer_progress, "_BEAT", 0.01)
        progress = LayerProgress(quiet=True)
        before = signal.getsignal(signal.SIGALRM)
        with layer_progress.Extended(progress):
            said = [heard.recv(4096) for _ in range(3)]
        assert said == [b"EXTEND_TIMEOUT_USEC=60000000\n"] * 3
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
        assert signal.getsignal(signal.SIGALRM) is before
    monkeypatch.delenv("NOTIFY_SOCKET")
    with layer_progress.Extended(LayerProgress(quiet=True)):
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
