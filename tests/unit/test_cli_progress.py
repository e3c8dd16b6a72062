"""What a terminal is told of something long, and that nothing else is told."""

from __future__ import annotations

import os

from sysbox.cli.progress import Progress


def told(moments: list[float], *, terminal: bool) -> str:
    """What is written when a mebibyte is done at each of these times."""
    reader, writer = os.openpty() if terminal else os.pipe()
    clock = iter([0.0, *moments])
    with Progress("cp", writer, lambda: next(clock)) as progress:
        for _ in moments:
            progress(1_000_000)
    os.write(writer, b"end\n")
    text = ""
    while not text.endswith("\n"):  # a terminal hands on what is written a little later, in pieces
        text += os.read(reader, 4096).decode()
    os.close(reader)
    os.close(writer)
    return text.replace("\r\n", "\n")


def test_nothing_in_the_first_second() -> None:
    assert told([0.5, 0.9], terminal=True) == "end\n"


def test_a_line_that_goes() -> None:
    clear = "\r\x1b[K"
    assert told([0.9, 1.1, 1.2, 1.4], terminal=True) == f"{clear}cp: 2MB{clear}cp: 4MB{clear}end\n"


def test_only_terminals() -> None:
    assert told([0.9, 1.1, 5.0], terminal=False) == "end\n"
