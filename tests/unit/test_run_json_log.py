"""Reading a log that is rotated just then: no line is lost, or comes twice."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sysbox.run import json_log

FILES = 4


class Log:
    """Writes and rotates as src/jsonlog.c does."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "log"
        self.path.touch()
        self.written = 0

    def write(self) -> None:
        self.written += 1
        with self.path.open("a", encoding="ascii") as file:
            file.write(
                f'{{"log":"{self.written}\\n","stream":"stdout","time":"2020-01-01T00:00:00Z"}}\n'
            )

    def rotate(self) -> None:
        for number in range(FILES - 1, 0, -1):
            source = f"{self.path}.{number - 1}" if number > 1 else self.path
            if os.path.exists(source):
                os.rename(source, f"{self.path}.{number}")
        self.path.touch()

    def turn(self) -> None:
        self.write()
        self.rotate()
        self.write()


@pytest.fixture
def log(tmp_path: Path) -> Log:
    made = Log(tmp_path)
    made.turn()
    return made


def first_after(
    monkeypatch: pytest.MonkeyPatch, name: str, calls: int, happens: Callable[[], None]
) -> None:
    """Something happens just before a function of the module is called for the so-manieth time."""
    original = getattr(json_log, name)
    left = [calls]

    def patched(*args: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            happens()
        return original(*args)

    monkeypatch.setattr(json_log, name, patched)


@pytest.mark.parametrize(
    ("name", "calls"),
    [("_open", 1), ("_open", 2), ("_open", 3), ("_open", 5), ("_rotated", 1), ("_position", 2)],
)
def test_rotated_meanwhile(
    log: Log, monkeypatch: pytest.MonkeyPatch, name: str, calls: int
) -> None:
    looks = iter((log.write, log.turn, log.turn, log.write))
    first_after(monkeypatch, name, calls, log.turn)
    monkeypatch.setattr(json_log, "_POLL", 0)

    def goes_on() -> bool:
        happens = next(looks, None)
        if happens:
            happens()
        return happens is not None

    found = json_log.read_logs(str(log.path), files=FILES, goes_on=goes_on)
    lines = [int(line.message) for line in found]
    assert lines == list(range(1, log.written + 1))


@pytest.mark.parametrize("lines", [0, 1, 2, 3, 1000, 5000, 5001, 10_000])
def test_the_last_lines(log: Log, monkeypatch: pytest.MonkeyPatch, lines: int) -> None:
    """From the end, over the border between files, of a block, and with half a line behind them."""
    while log.written < 5000:
        log.write()
        if log.written == 4998:
            log.rotate()
    with log.path.open("a", encoding="ascii") as file:
        file.write('{"log":')
    for chunk in (1 << 16, 97):
        monkeypatch.setattr(json_log, "_CHUNK", chunk)
        found = json_log.read_logs(str(log.path), files=FILES, lines=lines)
        numbers = [int(line.message) for line in found]
        assert numbers == list(range(max(log.written - lines, 0) + 1, log.written + 1))


def test_the_last_line_costs_one_block(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(5000):
        log.write()
    parsed: list[bytes] = []
    parse = json_log._parse
    monkeypatch.setattr(json_log, "_parse", lambda raw: parsed.append(raw) or parse(raw))
    assert len(list(json_log.read_logs(str(log.path), files=FILES, lines=1))) == 1
    assert len(parsed) == 1


@pytest.mark.parametrize("more", [1, 500])
def test_emptied_meanwhile(log: Log, monkeypatch: pytest.MonkeyPatch, more: int) -> None:
    """By an administrator: shorter than it was, or by the next look longer."""
    monkeypatch.setattr(json_log, "_POLL", 0)
    log.path.write_bytes(b"")

    def write(moment: int) -> None:
        log.written += 1
        with log.path.open("a", encoding="ascii") as file:
            file.write(
                f'{{"log":"{log.written}\\n","stream":"stdout","time":"{moment}-01-01T00:00:00Z"}}\n'
            )

    for _ in range(100):
        write(2020)
    first = log.written

    def empty() -> None:
        log.path.write_bytes(b"")
        for _ in range(more):
            write(2021)

    steps = iter((empty, lambda: write(2021)))

    def goes_on() -> bool:
        step = next(steps, None)
        if step:
            step()
        return step is not None

    found = json_log.read_logs(str(log.path), files=1, goes_on=goes_on)
    numbers = [int(line.message) for line in found]
    assert numbers[-more - 1 :] == list(range(first + 1, log.written + 1))
