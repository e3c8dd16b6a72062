"""Who records the end of a run: on records of a test's own, of processes that are there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from forked import needs_root

from sysbox.container import locks, records, store
from sysbox.container.records import Final, Record, Runtime
from sysbox.linux import process
from sysbox.run import exit as ending
from sysbox.spec import ContainerSpec

ID = "ab" * 32


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Record:
    needs_root()
    for module in (store, records):
        for name in ("CONTAINERS", "RUN_CONTAINERS"):
            monkeypatch.setattr(module, name, f"{tmp_path}/{name}")
    monkeypatch.setattr(locks, "CONTAINERS", f"{tmp_path}/CONTAINERS")
    made = Record(
        id=ID, name="x", created_ns=1, spec=ContainerSpec(image="i"), image_id=f"sha256:{ID}",
        image_name="i", argv=("/x",),
    )  # fmt: skip
    Path(made.directory).mkdir(parents=True)
    locks.Lock(ID).release()
    store.save(made)
    return made


def begin(record: Record, supervisor: int) -> Runtime:
    """A run whose first process is gone."""
    run = Runtime(
        pid=1 << 22, start_time=1, supervisor=supervisor,
        supervisor_start=process.start_time(supervisor), scope=f"docker-{ID}.scope", started_ns=5,
    )  # fmt: skip
    store.write_runtime(record, run)
    written = store.runtime(ID)  # with the pid namespace that the writer is in
    assert written
    return written


def test_a_supervisor_that_is_there_is_waited_for(record: Record) -> None:
    """It knows the exit status; anybody else would record that nobody saw it."""
    run = begin(record, os.getpid())
    assert ending.settle(ID) is None
    assert store.runtime(ID) == run
    assert store.final(ID) is None


def test_without_a_run_there_is_no_end(record: Record) -> None:
    assert ending.settle(ID) is None
    assert ending.settle("cd" * 32) is None
    assert ending.await_end(record) is True


def test_the_run_is_forgotten_only_when_its_end_is_written(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in between, it is recorded again by the next; the other way round the exit status is lost."""
    begin(record, os.getpid())
    seen: list[tuple[bool, bool]] = []

    def killed(_: Record) -> None:
        seen.append((store.final(ID) is not None, store.runtime(ID) is not None))
        raise KeyboardInterrupt

    monkeypatch.setattr(ending, "unwind", lambda *_, **__: None)  # there is no systemd to ask
    monkeypatch.setattr(ending.tuned, "harvest", lambda one: one)
    monkeypatch.setattr(store, "remove_run", killed)
    ended = records.Ended(code=7, finished_ns=9)
    with pytest.raises(KeyboardInterrupt):
        ending.settle(ID, ended)
    assert seen == [(True, True)]


def test_a_record_of_another_container(record: Record) -> None:
    other = record.replace(id="cd" * 32)
    Path(record.directory, "record.json").write_bytes(records.to_file(other))
    with pytest.raises(Exception, match="names another container: cdcdcdcdcdcd"):
        store.load(ID)


@pytest.mark.parametrize(
    "changes",
    [{"scope": f"docker-{'cd' * 32}.scope"}, {"cgroup": "/system.slice"},
     {"cgroup": f"/system.slice/docker-{'cd' * 32}.scope"}],
)  # fmt: skip
def test_a_state_that_names_another_s_cgroup(record: Record, changes: dict[str, str]) -> None:
    """What it names is killed and removed."""
    run = begin(record, os.getpid())
    good = run.replace(cgroup=f"/system.slice/docker-{ID}.scope")
    store.write_runtime(record, good)
    assert store.runtime(ID) == good
    store.write_runtime(record, run.replace(**changes))
    with pytest.raises(Exception, match="names another unit"):
        store.runtime(ID)


def test_the_end_of_a_run_survives_a_power_cut_unless_the_container_goes_with_it(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    put = store._put
    monkeypatch.setattr(
        store, "_put", lambda *given, **how: (asked.append(how["durable"]), put(*given, **how))
    )
    for remove in (False, True):
        one = record.replace(spec=record.spec.replace(remove=remove))
        store.write_final(one, Final(exit_code=1, started_ns=1, finished_ns=2))
    assert asked == [True, False]
