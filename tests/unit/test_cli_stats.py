"""`stats` and containers that change while it looks."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path

import pytest

from sysbox.cli.commands import stats
from sysbox.container import locks, names, records, store
from sysbox.linux import process
from sysbox.spec import ContainerSpec


def test_a_container_that_is_renamed_has_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a moment it has two names, or the listing of names had neither."""
    for module in (store, records, locks, names):
        for name in ("CONTAINERS", "RUN_CONTAINERS", "NAMES"):
            monkeypatch.setattr(module, name, f"{tmp_path}/{name}", raising=False)
    made = store.Record(
        id="ab" * 32, name="x", created_ns=1, spec=ContainerSpec(image="i", name="x"),
        image_id=f"sha256:{'ab' * 32}", image_name="i", argv=("/x",),
    )  # fmt: skip
    record, lock = store.claim(made, lambda _: None)
    me = os.getpid()
    run = store.Runtime(
        pid=me, start_time=process.start_time(me), supervisor=me, supervisor_start=1,
        scope=f"docker-{record.id}.scope", started_ns=1,
    )  # fmt: skip
    store.write_runtime(record, run)
    pid = os.fork()
    if pid == 0:
        try:
            for number in itertools.count():
                record = store.rename(record, f"name-{number}")
        finally:
            os._exit(1)
    try:
        assert {len(stats._running()) for _ in range(3000)} == {1}
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        lock.release()
