"""`sysbox logs`: both streams apart, the last lines, and when -f ends. On records of a test's own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sysbox.cli.commands import logs
from sysbox.cli.parse import hot
from sysbox.cli.table.verbs import VERBS
from sysbox.container import locks, records, store
from sysbox.container.records import Record, Runtime
from sysbox.linux import process
from sysbox.spec import ContainerSpec, Logging
from sysbox.units import journalread

ID = "ab" * 32
ENTRY = "__REALTIME_TIMESTAMP=1000000\nPRIORITY=6\nMESSAGE={}\n\n"


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Record:
    """Of a container with a json log, which has written one line to each stream."""
    for module in (store, records, locks):
        for name in ("CONTAINERS", "RUN_CONTAINERS", "NAMES"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, f"{tmp_path}/{name}")
    spec = ContainerSpec(image="i", logging=Logging(driver="json-file"))
    made = Record(
        id=ID, name="x", created_ns=1, spec=spec, image_id=f"sha256:{ID}", image_name="i", argv=("/x",)
    )  # fmt: skip
    Path(made.directory).mkdir(parents=True)
    store.save(made)
    write(made, "out")
    write(made, "err", "stderr")
    return made


@pytest.fixture
def child() -> Iterator[int]:
    """A process that waits to be killed."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    yield pid
    with suppress(ProcessLookupError, ChildProcessError):
        end(pid)


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def write(record: Record, text: str, stream: str = "stdout") -> None:
    """As src/jsonlog.c does."""
    with open(record.log_path, "a", encoding="ascii") as log:
        log.write(f'{{"log":"{text}\\n","stream":"{stream}","time":"2020-01-01T00:00:00.5Z"}}\n')


def printed(*words: str) -> tuple[int, int]:
    """(pid, what it prints to standard output) of a process that is `sysbox logs WORDS... ID`."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            os.dup2(writer, 1)
            os.close(writer)
            status = logs.main(hot.parse(VERBS["logs"], [*words, ID]))
        finally:
            os._exit(status)
    os.close(writer)
    return pid, reader


def whole(*words: str) -> str:
    pid, reader = printed(*words)
    with os.fdopen(reader) as output:
        text = output.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return text


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "out\nlast\n"),
        (("--tail", "1"), "last\n"),
        (("--tail", "0"), ""),
        (("-t", "--tail", "1"), "2020-01-01T00:00:00.500000000Z last\n"),
        (("--until", "1577836799"), ""),
        (("-f",), "out\nlast\n"),  # it does not run: nothing more will come
    ],
)
def test_what_was_written_to_standard_output(
    record: Record, words: tuple[str, ...], text: str
) -> None:
    write(record, "last")
    assert whole(*words) == text


def test_a_json_log_is_followed_until_the_container_ends(record: Record, child: int) -> None:
    run = Runtime(
        pid=child, start_time=process.start_time(child), supervisor=0, supervisor_start=0,
        scope=f"docker-{ID}.scope",
    )  # fmt: skip
    store.write_runtime(record, run)
    pid, reader = printed("-f")
    assert os.read(reader, 99) == b"out\n"
    write(record, "more")
    assert os.read(reader, 99) == b"more\n"
    write(record, "last")
    end(child)
    with os.fdopen(reader, "rb") as output:
        assert output.read() == b"last\n"
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_the_journal_is_followed_until_the_container_ends(
    tmp_path: Path, child: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell in journalctl's place prints two entries, and then waits for ever as `journalctl -f` does."""
    monkeypatch.setattr(journalread, "_JOURNALCTL", "/bin/sh")
    script = f"printf '{ENTRY.format('one')}'; read -r line <{tmp_path}/go; "
    script += f"printf '{ENTRY.format('two')}'; exec sleep 1000"
    os.mkfifo(tmp_path / "go")
    ends = [os.pidfd_open(child)]
    found = journalread.entries(["sh", "-c", script], lambda fd: logs._wait_readable(fd, ends))
    assert journalread.parse_entry(next(found)).message == b"one\n"
    end(child)
    (tmp_path / "go").write_text("\n")
    rest = [journalread.parse_entry(entry).message for entry in found]
    assert rest in ([b"two\n"], [])  # read again from the journal, see logs.main
    assert ends == []


def test_what_is_there_to_read_goes_before_the_end(child: int) -> None:
    reader, writer = os.pipe()
    ends = [os.pidfd_open(child)]
    os.write(writer, b"last")
    end(child)
    assert logs._wait_readable(reader, ends)
    os.read(reader, 99)
    assert not logs._wait_readable(reader, ends)
    assert ends == []
    os.write(writer, b"and what came late")
    assert logs._wait_readable(reader, ends)
    for fd in (reader, writer):
        os.close(fd)
