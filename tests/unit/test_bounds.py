"""What is written can be read: the writer and the reader have one bound; what is read is checked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from sysbox.base import codec, files
from sysbox.base.errors import FormatError, SpecError, StartError
from sysbox.container import records, store
from sysbox.container.records import Final, Record, Runtime
from sysbox.run import handshake, json_log
from sysbox.spec import ContainerSpec, Port

ID = "ab" * 32
WHOLE: dict[str, Any] = {
    "format": records.FORMAT,
    "id": ID,
    "name": "x",
    "created_ns": 1,
    "spec": {"image": "i"},
    "image_id": f"sha256:{ID}",
    "image_name": "i",
    "argv": ["/x"],
}


def draft(**changes: Any) -> Record:
    spec = ContainerSpec(image="i").replace(**changes)
    return Record(
        id=ID, name="x", created_ns=1, spec=spec, image_id=f"sha256:{ID}", image_name="i", argv=("/x",)
    )  # fmt: skip


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("CONTAINERS", "RUN_CONTAINERS", "NAMES"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(store, name, f"{tmp_path}/{name}")
    monkeypatch.setattr(records, "CONTAINERS", f"{tmp_path}/CONTAINERS")
    monkeypatch.setattr(records, "RUN_CONTAINERS", f"{tmp_path}/RUN_CONTAINERS")
    return tmp_path


@pytest.mark.parametrize(
    "changes",
    [
        {"command": ("é" * 200_000,)},  # six bytes each in the file
        {"ports": tuple(Port(container_port=one, host_port=one) for one in range(1, 65536))},
    ],
)
def test_a_record_that_could_not_be_read_is_not_written(
    places: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(SpecError, match="the settings of the container take"):
        store.claim(draft(**changes), lambda _: None)
    assert [list(one.iterdir()) for one in places.iterdir()] == [[], [], []]


def test_a_name_is_not_taken_by_a_record_that_becomes_too_large(places: Path) -> None:
    record = draft()
    room = files.LIMIT - len(records.to_file(record)) - len(',"workdir":""')
    record = record.replace(spec=record.spec.replace(workdir="w" * room))
    Path(record.directory).mkdir()
    store.save(record)
    assert store.load(ID) == record
    with pytest.raises(SpecError):
        store.rename(record, "longer")
    assert list((places / "NAMES").iterdir()) == []


def test_the_state_has_room_for_the_ports_of_a_record(places: Path) -> None:
    record = draft(ports=tuple(Port(container_port=one) for one in range(1, 40000)))
    assert len(records.to_file(record)) < files.LIMIT
    ports = tuple(
        Port(container_port=one, host_port=one, host_ip="255.255.255.255", protocol="sctp")
        for one in range(1, 40000)
    )
    run = Runtime(
        pid=1, start_time=1, supervisor=1, supervisor_start=1, scope=f"docker-{ID}.scope", ports=ports
    )  # fmt: skip
    store.write_runtime(record, run)
    found = store.runtime(ID)
    assert found is not None
    assert found.ports == ports


def test_every_writer_has_the_bound_of_its_reader(tmp_path: Path) -> None:
    path = f"{tmp_path}/file"
    files.write_file(path, b"x" * files.LIMIT)
    assert len(files.read_file(path) or b"") == files.LIMIT
    with pytest.raises(FormatError, match="larger than"):
        files.write_file(path, b"x" * (files.LIMIT + 1))
    with pytest.raises(FormatError, match="larger than"):
        files.write_file(path, b"12345", limit=4, durable=True)
    assert os.listdir(tmp_path) == ["file"]
    assert len(files.read_file(path) or b"") == files.LIMIT


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"argv": []}, "argv"),
        ({"argv": [""]}, "argv"),
        ({"name": ""}, "name"),
        ({"name": "../../etc"}, "name"),
        ({"image_id": "sha256:../../x"}, "image_id"),
        ({"anonymous_volumes": {"/x": "../../etc"}}, "anonymous_volumes"),
        ({"created_ns": -1}, "created_ns"),
        ({"created_ns": 1 << 63}, "created_ns"),
        ({"spec": {"image": "i", "ports": [{"container_port": 0}]}}, r"spec.ports\[0\]"),
        ({"spec": {"image": "i", "ports": [{"container_port": 1, "protocol": "x y"}]}}, "protocol"),
        ({"spec": {"image": "i", "mounts": [{"kind": "nfs", "target": "/x"}]}}, "kind"),
        ({"spec": {"image": "i", "mounts": [{"kind": "bind", "target": ""}]}}, "target"),
        (
            {"spec": {"image": "i", "mounts": [{"kind": "volume", "target": "/x", "source": "../x"}]}},
            "source",
        ),
        ({"spec": {"image": "i", "restart": {"name": "perhaps"}}}, "restart.name"),
        ({"spec": {"image": "i", "restart": {"name": "no", "retries": -1}}}, "restart.retries"),
        ({"spec": {"image": "i", "logging": {"driver": "x"}}}, "logging.driver"),
        ({"spec": {"image": "i", "logging": {"max_files": 0}}}, "max_files"),
        ({"spec": {"image": "i", "namespaces": {"pid": "x"}}}, "namespaces.pid"),
        ({"spec": {"image": "i", "oom_score_adj": 1001}}, "oom_score_adj"),
        ({"spec": {"image": "i", "stop_timeout": -2}}, "stop_timeout"),
        ({"spec": {"image": "i", "slice": "a/b.slice"}}, "slice"),
        ({"spec": {"image": "i", "shm_size": -1}}, "shm_size"),
    ],
)  # fmt: skip
def test_a_record_is_checked_when_it_is_read(
    places: Path, changes: dict[str, Any], says: str
) -> None:
    directory = places / "CONTAINERS" / ID
    directory.mkdir()
    (directory / "record.json").write_bytes(codec.dumps(WHOLE))
    assert store.load(ID).argv == ("/x",)
    (directory / "record.json").write_bytes(codec.dumps(WHOLE | changes))
    with pytest.raises(FormatError, match=says):
        store.load(ID)


@pytest.mark.parametrize(
    ("kind", "whole", "changes"),
    [
        (Runtime, Runtime(pid=1, start_time=1, supervisor=1, supervisor_start=1, scope="s"), changes)
        for changes in ({"pid": -1}, {"pid": 1 << 31}, {"supervisor": -1}, {"started_ns": 1 << 63})
    ]
    + [
        (Final, Final(exit_code=1, started_ns=1, finished_ns=1), changes)
        for changes in ({"exit_code": -1}, {"started_ns": -1}, {"finished_ns": 1 << 63})
    ],
)  # fmt: skip
def test_so_are_its_run_and_its_end(kind: Any, whole: Any, changes: dict[str, Any]) -> None:
    assert kind.from_data(whole.to_data()) == whole
    with pytest.raises(ValueError, match=next(iter(changes))):
        kind.from_data(whole.to_data() | changes)


def test_a_log_is_a_regular_file(tmp_path: Path) -> None:
    """A FIFO in its place would be waited for without end."""
    os.mkfifo(tmp_path / "log")
    with pytest.raises(FormatError, match="not a regular file"):
        list(json_log.read_logs(f"{tmp_path}/log", files=1))
    os.mkfifo(tmp_path / "index")
    assert files.read_file(f"{tmp_path}/index", 10) == b""


def test_a_long_last_word_arrives() -> None:
    """It is a datagram, and what is longer than the reader's buffer would come cut: no JSON."""
    parent, child = handshake.Channel.pair()
    child.fail("process", "€" * 70_000, "\U0001f600" * 70_000, 127)
    with pytest.raises(StartError) as caught:
        parent.receive(handshake.PROCEED)
    assert caught.value.status == 127
    assert caught.value.message.startswith("€€€")
