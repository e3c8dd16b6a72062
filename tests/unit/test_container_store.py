"""The records of containers: what needs no container."""

from __future__ import annotations

import itertools
import os
import posix
import signal
from pathlib import Path

import pytest

from sysbox.base import codec
from sysbox.container import identity, locks, names, records, store
from sysbox.container.identity import is_id
from sysbox.container.status import read_status
from sysbox.linux import process
from sysbox.spec import ContainerSpec


def test_an_id_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """inet_aton(3) reads a hostname of digits alone as an address, and it never resolves."""
    drawn = iter([bytes.fromhex("12" * 32), bytes.fromhex("ab" * 32)])
    monkeypatch.setattr(posix, "urandom", lambda _: next(drawn))
    assert identity.new_id() == "ab" * 32
    assert is_id("ab" * 32)
    assert not is_id("AB" * 32)


RECORD = store.Record(
    id="ab" * 32, name="x", created_ns=1, spec=ContainerSpec(image="i", name="x"),
    image_id=f"sha256:{'ab' * 32}", image_name="i", argv=("/x",),
)  # fmt: skip


@pytest.fixture
def directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where containers, their runs and their names are."""
    for module in (store, records, locks, names):
        for name in ("CONTAINERS", "RUN_CONTAINERS", "NAMES"):
            monkeypatch.setattr(module, name, f"{tmp_path}/{name}", raising=False)
    return tmp_path


def test_a_container_has_its_name_when_it_is_complete(directories: Path) -> None:
    """Killed before, it is one that gc removes: a name never leads to half a container."""
    seen: list[tuple[list[str], bool]] = []

    def fill(record: store.Record) -> None:
        named = list(names.taken_names())
        seen.append((named, Path(record.directory, "record.json").exists()))

    record, lock = store.claim(RECORD, fill)
    lock.release()
    assert seen == [([], True)]
    assert names.taken_names() == {"x": record.id}


def test_nothing_is_left_of_what_is_discarded(directories: Path) -> None:
    """Not the directory of a run that nobody ended, either."""
    record, lock = store.claim(RECORD, lambda _: None)
    store.write_runtime(
        record, store.Runtime(pid=0, start_time=0, supervisor=0, supervisor_start=0, scope="")
    )
    with lock:
        store.discard(record.id)
    assert [*directories.glob("*CONTAINERS/*")] == []


def test_the_end_of_an_earlier_run_is_not_that_of_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = "ab" * 32
    record = store.Record(
        id=container, name="x", created_ns=1, spec=ContainerSpec(image="i"),
        image_id=f"sha256:{container}", image_name="i", argv=("/x",),
    )  # fmt: skip
    for name in ("CONTAINERS", "RUN_CONTAINERS"):
        monkeypatch.setattr(store, name, f"{tmp_path}/{name}")
        (tmp_path / name / container).mkdir(parents=True)
    run = store.Runtime(
        pid=1 << 30, start_time=1, supervisor=1 << 30, supervisor_start=1,
        scope=f"docker-{container}.scope", started_ns=30,
    )  # fmt: skip
    (tmp_path / "RUN_CONTAINERS" / container / "state.json").write_bytes(codec.dumps(run.to_data()))
    ends = tmp_path / "CONTAINERS" / container / "exit.json"
    for end, expected in (
        (None, ("dead", 0)),
        (store.Final(exit_code=5, started_ns=10, finished_ns=20), ("dead", 0)),
        (store.Final(exit_code=6, started_ns=30, finished_ns=40), ("exited", 6)),
    ):
        if end:
            ends.write_bytes(codec.dumps(end.to_data()))
        found = read_status(record)
        assert (found.state, found.exit_code) == expected


def test_an_end_that_is_not_recorded_yet_tells_of_lack_of_memory(
    directories: Path,
) -> None:
    """The monitor has written it and ends next: `inspect` said "exited", and that memory had sufficed."""
    directory = Path(RECORD.run_directory)
    directory.mkdir(parents=True)
    me = os.getpid()
    run = store.Runtime(
        pid=1 << 30, start_time=1, supervisor=me, supervisor_start=process.start_time(me),
        scope=f"docker-{RECORD.id}.scope", started_ns=30,
    )  # fmt: skip
    (directory / "state.json").write_bytes(codec.dumps(run.to_data()))
    for oom in (False, True):
        end = {"code": 137, "signal": 9, "oom": oom, "timeout": False, "finished": 40}
        (directory / "exit").write_bytes(codec.dumps(end))
        found = read_status(RECORD)
        assert (found.state, found.exit_code, found.oom_killed) == ("exited", 137, oom)


def test_a_container_that_is_renamed_is_there_all_the_time(directories: Path) -> None:
    """Its name had been read before it was freed: `ps` hid it, and `image prune` took its image away."""
    record, lock = store.claim(RECORD, lambda _: None)
    pid = os.fork()
    if pid == 0:
        try:
            for number in itertools.count():
                record = store.rename(record, f"name-{number}")
        finally:
            os._exit(1)
    try:
        for _ in range(20_000):
            (found,) = store.all_records()
            assert store.is_named(found)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        lock.release()
