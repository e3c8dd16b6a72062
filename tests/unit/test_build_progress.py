"""What a build shows of its steps: plain lines, the live picture, and how much of it is kept."""

from __future__ import annotations

import os
import termios
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from sysbox.build import graph, parser
from sysbox.build.model import Request, Stage
from sysbox.build.workers import Report
from sysbox.cli.build_progress import Live, Plain

MANY = 40  # MiB without an end of line


def stage() -> Stage:
    file = parser.parse(b"FROM scratch AS one\nCOPY a /a\nRUN true\n", "C")
    return graph.make_plan(file, Request()).stages[0]


def shown(path: Path, act: Callable[[int], None]) -> bytes:
    """What `act` writes to the file that it gets."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        act(fd)
    finally:
        os.close(fd)
    return path.read_bytes()


def drawn(act: Callable[[int], None]) -> bytes:
    """What `act` writes to the terminal that it gets."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    found: list[bytes] = []

    def read() -> None:
        try:
            while data := os.read(ours, 1 << 16):
                found.append(data)
        except OSError:
            pass  # its other end is closed

    thread = threading.Thread(target=read)
    thread.start()
    try:
        act(theirs)
    finally:
        os.close(theirs)
        thread.join()
        os.close(ours)
    return b"".join(found)


def test_plain_lines_of_progress(tmp_path: Path) -> None:
    """One every five seconds, however often the worker says it."""
    one, now = stage(), [100.0]

    def act(fd: int) -> None:
        report = Plain(fd, lambda: now[0])
        report.stage_begins(one)
        report.step_begins(one, 1, one.instructions[0])
        for moment, files in ((100.0, 0), (100.5, 10), (104.9, 20), (105.0, 123456)):
            now[0] = moment
            report.so_far(one, "read", files, 3_200_000_000)

    lines = shown(tmp_path / "shown", act).decode().splitlines()
    assert lines == [
        "[one 1/2] COPY a /a",
        "[one] 3.2GB read so far",
        "[one] 123,456 files, 3.2GB read so far",
    ]


def test_the_live_picture() -> None:
    """Below its step, until that is done."""
    one, now = stage(), [100.0]
    report: list[Live] = []

    def act(fd: int) -> None:
        report.append(Live(fd, lambda: now[0]))
        report[0].step_begins(one, 1, one.instructions[0])
        now[0] = 101.0
        report[0].so_far(one, "copied", 5, 2000)

    assert b"  5 files, 2kB copied so far" in drawn(act)


@pytest.mark.parametrize("kind", [Plain, Live], ids=["plain", "live"])
def test_a_step_that_prints_no_end_of_line(tmp_path: Path, kind: type[Plain] | type[Live]) -> None:
    """It cannot fill the memory of the build."""
    one = stage()
    piece = b"x" * (1 << 16)

    def act(fd: int) -> None:
        report: Report = kind(fd)
        report.stage_begins(one)
        report.step_begins(one, 2, one.instructions[1])
        tracemalloc.start()
        for _ in range(MANY << 4):
            report.output(one, piece)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 << 20

    if kind is Live:
        drawn(act)
    else:
        assert len(shown(tmp_path / "shown", act)) > (MANY - 1) << 20
