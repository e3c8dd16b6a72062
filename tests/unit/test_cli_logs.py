"""`sysbox logs -f`: the container's end, which is a signal, may come at any moment."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sysbox.cli.commands import logs
from sysbox.cli.table.options import Values
from sysbox.units.journalread import LogLine

LINES = [
    LogLine(timestamp=1, priority=6, message=b"first\n"),
    LogLine(timestamp=2, priority=6, message=b"last\n"),
]


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, logs._ended)
    yield
    signal.signal(signal.SIGUSR1, before)


def test_it_ends_while_its_last_line_is_printed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def read_logs(unit: str, *, since: int | None = None, **_: Any) -> Iterator[LogLine]:
        yield from (line for line in LINES if since is None or line.timestamp >= since)

    def write_all(fd: int, data: bytes) -> None:
        if b"last" in data:
            os.kill(os.getpid(), signal.SIGUSR1)
        os.write(fd, data)

    logging = SimpleNamespace(driver="journald")
    record = SimpleNamespace(id="a" * 64, spec=SimpleNamespace(labels={}, logging=logging))
    monkeypatch.setattr(logs.store, "find", lambda _: record)
    monkeypatch.setattr(logs, "_watch", lambda _: True)
    monkeypatch.setattr(logs.journalread, "read_logs", read_logs)
    monkeypatch.setattr(logs, "write_all", write_all)
    asked = SimpleNamespace(
        container="x",
        since=None,
        until=None,
        tail=None,
        timestamps=False,
        details=False,
        follow=True,
    )
    assert logs.main(cast("Values", asked)) == 0
    assert capfd.readouterr().out == "first\nlast\n"
