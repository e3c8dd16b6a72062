"""What older versions wrote is read: real files of theirs, below tests/records/VERSION.

Each container has a directory there, with what lay in /var/lib/sysbox (record.json, exit.json), /run/sysbox
(state.json, health.json) and with systemd (unit.service, transient.service).
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from sysbox.base import codec
from sysbox.base.errors import FormatError
from sysbox.base.files import write_file
from sysbox.container import health, records, store
from sysbox.container.records import Final, Record, Runtime
from sysbox.image.store import Store
from sysbox.linux import capability
from sysbox.linux.userns import IdMap
from sysbox.netns import leases
from sysbox.security import capabilities
from sysbox.spec import ContainerSpec
from sysbox.units import names

OLD = Path(__file__).parents[1] / "records" / "7aea3c2"
MADE = sorted(path.parent for path in OLD.glob("*/record.json"))
EVERYTHING = (1 << 41) - 1


def read(directory: Path) -> Record:
    return records.from_file((directory / "record.json").read_bytes(), directory.name)


def by_name(name: str) -> Record:
    return read(OLD / name)


def data_of(path: Path) -> object:
    return codec.loads(path.read_bytes(), str(path))


@pytest.mark.parametrize("directory", MADE, ids=lambda path: path.name)
def test_a_container_of_it(directory: Path) -> None:
    record = read(directory)
    assert record.name == directory.name
    for file, kind in (
        ("exit.json", Final),
        ("state.json", Runtime),
        ("health.json", health.State),
    ):
        if (directory / file).exists():
            kind.from_data(data_of(directory / file), file)
    # and once more, when it is written as it is today
    assert records.from_file(records.to_file(record), "") == record


def test_there_is_one_of_each_kind() -> None:
    for file in ("exit.json", "state.json", "health.json", "unit.service", "transient.service"):
        assert list(OLD.glob(f"*/{file}")), file
    policies = {read(one).spec.restart.name for one in MADE}
    assert policies == {"no", "always", "on-failure", "unless-stopped"}
    assert {read(one).spec.logging.driver for one in MADE} == {"journald", "json-file"}
    ends = [Final.from_data(data_of(one), "") for one in OLD.glob("*/exit.json")]
    assert {end.how for end in ends} >= {"exited", "oom", "failed"}


def test_the_network_of_a_run_that_it_began() -> None:
    """It wrote one address; a run of today has its end of each network."""
    found = [Runtime.from_data(data_of(one), "") for one in OLD.glob("*/state.json")]
    attached = [one for run in found for one in run.attachments()]
    assert {one.address for one in attached} == {run.address for run in found if run.address}
    assert attached
    assert all(one.network == "bridge" and one.mac for one in attached)
    assert all((run.attachments() == ()) == (run.address == "") for run in found)


def test_a_default_means_what_it_meant() -> None:
    """NET_RAW was one; what was asked or dropped goes before that."""

    def held(name: str) -> set[str]:
        return set(capability.names(capabilities.resolve(by_name(name).spec.security, EVERYTHING)))

    assert held("plain") == {*capabilities.DEFAULT, "NET_RAW"}
    assert held("vol") == ({*capabilities.DEFAULT, "SYS_PTRACE"} - {"NET_RAW"})
    nothing = by_name("plain").spec.security.replace(cap_drop=("ALL",))
    assert capabilities.resolve(nothing, EVERYTHING) == 0
    # nobody has asked for it: `inspect` does not say so
    assert by_name("plain").spec.security.cap_add == ()


def test_it_has_the_hosts_user_namespace() -> None:
    """There was no other, and today's default is no part of a record that was made before."""
    for directory in MADE:
        record = read(directory)
        assert record.spec.namespaces.user == record.userns == "host"
        assert (record.uids, record.gids, record.userns_reason) == ((), (), "")
    # nor of one that was written before this key was there
    data = json.loads(records.to_file(by_name("plain")))
    del data["spec"]["namespaces"]
    for number in (1, 2):
        older = {**{key: data[key] for key in data if key != "userns"}, "format": number}
        assert records.from_file(json.dumps(older).encode(), "").userns == "host"
    assert (
        records.from_file(json.dumps({**data, "format": 3}).encode(), "").spec.namespaces.user == ""
    )


def test_the_maps_in_a_record() -> None:
    one = {"inside": 0, "outside": 524288, "count": 65536}
    data = json.loads(records.to_file(by_name("plain")))
    good = {**data, "userns": "auto", "uids": [one], "gids": [one]}
    record = records.from_file(json.dumps(good).encode(), "")
    assert record.uids == record.gids == (IdMap(inside=0, outside=524288, count=65536),)
    assert records.from_file(records.to_file(record), "") == record
    for wrong in (
        {"gids": []},
        {"userns": "host"},
        {"userns": ""},
        {"uids": [], "gids": []},
        {"uids": [{**one, "count": 0}]},
        {"uids": [{**one, "inside": -1}]},
        {"gids": [{**one, "outside": 4294967295}]},
        {"gids": [{**one, "more": 1}]},
    ):
        with pytest.raises((FormatError, ValueError), match=r"uids|gids"):
            records.from_file(json.dumps({**good, **wrong}).encode(), "")


def test_what_was_changed_is_kept() -> None:
    assert by_name("vol").spec.limits.memory == 128 << 20
    assert "memory" in by_name("vol").updated
    assert by_name("vol").anonymous_volumes


def test_what_systemd_runs_for_it_is_there_still() -> None:
    """A service that was started, or is wanted at boot, runs the program that is installed by then."""
    from sysbox.cli import internal

    for file in (*OLD.glob("*/unit.service"), *OLD.glob("*/transient.service")):
        record = read(file.parent)
        words = file.read_text(encoding="utf-8").replace('"', "").split()
        verbs = [words[at - 1] for at, word in enumerate(words) if word == record.id]
        assert verbs == ["_supervise", "_cleanup"]
        assert set(verbs) <= set(internal._COMMANDS)
        assert names.service_unit(record.id)


def test_its_clocks() -> None:
    """They were the host's, which the record did not say; written again, it does."""
    record = by_name("plain")
    assert record.spec.namespaces.time == "host"
    assert records.from_file(records.to_file(record), "it") == record
    data = json.loads(records.to_file(record.replace(spec=ContainerSpec(image="x"))))
    assert records.from_file(json.dumps(data).encode(), "it").spec.namespaces.time == "auto"
    data["format"] = 2
    assert records.from_file(json.dumps(data).encode(), "it").spec.namespaces.time == "host"


def test_it_has_no_apparmor_profile() -> None:
    """There was none, and today's default could deny what the container does."""
    assert {read(one).spec.security.apparmor for one in MADE} == {"unconfined"}
    data = json.loads(records.to_file(by_name("plain").replace(spec=ContainerSpec(image="x"))))
    for number, profile in ((3, "unconfined"), (4, "")):
        file = json.dumps({**data, "format": number}).encode()
        assert records.from_file(file, "it").spec.security.apparmor == profile


def test_its_leases() -> None:
    last, held = leases.parse((OLD / "leases").read_text(encoding="ascii"))
    assert last in held.values()
    running = {json.loads(one.read_text())["address"] for one in OLD.glob("*/state.json")}
    assert running == set(held.values())


def test_its_images(tmp_path: Path) -> None:
    with tarfile.open(OLD / "images.tar") as archive:
        archive.extractall(tmp_path)
    image = Store(str(tmp_path / "images")).resolve("tiny:1")
    assert image.config.env is not None
    (layer,) = image.layers
    assert layer


def test_a_record_of_a_newer_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is left alone, by a message that says why."""
    record = by_name("plain")
    monkeypatch.setattr(store, "CONTAINERS", str(tmp_path))
    (tmp_path / record.id).mkdir()
    newer = {**json.loads(records.to_file(record)), "format": records.FORMAT + 1}
    write_file(f"{tmp_path}/{record.id}/record.json", json.dumps(newer).encode())
    with pytest.raises(FormatError, match="newer sysbox"):
        store.load(record.id)
    for wrong in (0, True, "2", None):
        with pytest.raises(FormatError, match="format"):
            records.from_file(json.dumps({**newer, "format": wrong}).encode(), "it")
