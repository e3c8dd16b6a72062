"""Secrets: what flags may say, what is kept on the host, and what is refused."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from sysbox.base.errors import Conflict, FormatError, NotFound, SpecError, SysboxError
from sysbox.container import events, secrets, store
from sysbox.fs.private import plan_secrets
from sysbox.linux import process
from sysbox.linux.userns import IdMap
from sysbox.parse.secrets import parse_secret, parse_secrets
from sysbox.spec import ContainerSpec, CredentialUse, Mount, SecretUse
from sysbox.units import credstore

VALUE = b"correct horse\0\xff battery\n"


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the secrets of a host that cannot encrypt."""
    directory = tmp_path / "secrets"
    monkeypatch.setattr(secrets, "SECRETS", str(directory))
    monkeypatch.setitem(process.CLEAN_ENVIRONMENT, "PATH", str(tmp_path))
    monkeypatch.setattr(events, "emit", lambda *_: None)
    monkeypatch.setattr(store, "all_records", list)
    return directory


@pytest.mark.parametrize(
    ("text", "use"),
    [
        ("s", SecretUse(name="s", target="/run/secrets/s")),
        ("source=s,type=mount", SecretUse(name="s", target="/run/secrets/s")),
        (
            "s,target=a/b,uid=1,gid=2,mode=400",
            SecretUse(name="s", target="/run/secrets/a/b", uid=1, gid=2, mode=0o400),
        ),
        ("s,target=/etc//key", SecretUse(name="s", target="/etc/key")),
        ("s,type=env", SecretUse(name="s", kind="env", target="s")),
        ("s,type=env,target=TOKEN", SecretUse(name="s", kind="env", target="TOKEN")),
    ],
    ids=["name", "source", "file", "absolute", "variable", "named-variable"],
)
def test_what_a_flag_means(text: str, use: SecretUse) -> None:
    assert parse_secret(text, "--secret") == use


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a valid name"),
        ("../s", "not a valid name"),
        ("s,tpye=env", "unknown key tpye"),
        ("s,type=file", "unknown type file"),
        ("s,target", "target needs a value"),
        ("s,uid=1,uid=2", "uid is given twice"),
        ("s,type=env,mode=400", "mode is only for type=mount"),
        ("s,type=env,target=A=B", "not the name of a variable"),
        ("s,target=..", "not a file below /run/secrets"),
        ("s,target=../../etc/x", "not a file below /run/secrets"),
        ("s,target=/", "not the path of a file"),
        ("s,target=/run/secrets", "not the path of a file"),
        ("s,uid=root", "not a number of a user or group"),
        ("s,uid=4294967295", "not a number of a user or group"),
        ("s,mode=0888", "not the mode of a file"),
        ("s,mode=4755", "not the mode of a file"),
    ],
)
def test_what_a_flag_may_not_say(text: str, reason: str) -> None:
    with pytest.raises(SpecError) as error:
        parse_secret(text, "--secret")
    assert reason in error.value.message
    assert "--secret" in error.value.message


@pytest.mark.parametrize(
    ("texts", "mounts", "reason"),
    [
        (["a,target=x", "b,target=x"], [], "another secret for the file /run/secrets/x"),
        (["a,type=env", "b,type=env,target=a"], [], "another secret for the variable a"),
        (["a,target=x", "b,target=x/y"], [], "/run/secrets/x/y cannot be below it"),
        (["a"], ["/run/secrets"], "a tmpfs is mounted at /run/secrets"),
        (["a"], ["/run/secrets/b"], "a tmpfs is mounted at /run/secrets/b"),
        (["a,target=/etc/x"], ["/etc/x"], "a tmpfs is mounted at /etc/x"),
    ],
    ids=["files", "variables", "below-a-file", "directory", "below-the-directory", "same-path"],
)
def test_one_place_for_two(texts: list[str], mounts: list[str], reason: str) -> None:
    with pytest.raises(SpecError) as error:
        parse_secrets(texts, [Mount(kind="tmpfs", target=one) for one in mounts], "--secret")
    assert reason in error.value.message


def test_what_is_not_in_the_way() -> None:
    mounts = [Mount(kind="tmpfs", target="/run"), Mount(kind="tmpfs", target="/etc")]
    assert len(parse_secrets(["a", "a,target=b", "a,target=/etc/a"], mounts, "--secret")) == 3
    at_secrets = [Mount(kind="tmpfs", target="/run/secrets")]
    assert len(parse_secrets(["a,type=env", "a,target=/key"], at_secrets, "--secret")) == 2


def test_the_owner_must_exist_inside() -> None:
    spec = ContainerSpec(image="x", secrets=(parse_secret("s,uid=70000", "--secret"),))
    ids = (IdMap(inside=0, outside=100000, count=65536),)
    assert plan_secrets(spec, (), ())
    with pytest.raises(SpecError, match="the owner of secret s: 70000"):
        plan_secrets(spec, ids, ids)


def test_kept_for_root_alone_and_given_back(kept: Path) -> None:
    made, reason = secrets.create("s", VALUE, {"a": "b"})
    assert reason == "this host has no systemd-creds"
    assert made.kept == secrets.PLAIN
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    assert stat.S_IMODE((kept / "s.json").stat().st_mode) == 0o600
    assert secrets.value_of("s") == VALUE
    assert secrets.find(made.id[:6]) == made
    secrets.remove(made.id)
    assert secrets.defined() == []


def test_a_name_is_taken_once(kept: Path) -> None:
    first, _ = secrets.create("s", b"one")
    with pytest.raises(Conflict, match="the name 's' is in use by another secret"):
        secrets.create("s", b"two")
    second, _ = secrets.create("s", b"two", replace=True)
    assert second.id != first.id
    assert second.created_ns == first.created_ns < second.updated_ns
    assert secrets.value_of("s") == b"two"


def test_of_many_at_once_one_has_the_name(kept: Path) -> None:
    won, lost = [], []

    def create(number: int) -> None:
        try:
            won.append(secrets.create("s", f"{number}".encode())[0])
        except Conflict:
            lost.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert (len(won), len(lost)) == (1, 7)
    assert secrets.load("s") == won[0]
    assert sorted(os.listdir(kept)) == [".lock", "s.json"]


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("a/b", b"x", "not a valid name"),
        ("s", b"", "the value is empty"),
        ("s", bytes(secrets.MOST + 1), "larger than 512 KiB"),
    ],
    ids=["name", "empty", "large"],
)
def test_what_is_not_kept(kept: Path, name: str, value: bytes, reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        secrets.create(name, value)
    assert not (kept / "s.json").exists()


def test_the_largest_one(kept: Path) -> None:
    secrets.create("s", os.urandom(secrets.MOST))
    assert len(secrets.value_of("s")) == secrets.MOST


def damaged_files(whole: bytes) -> dict[str, bytes]:
    """What a file can be after a disk or a person has damaged it."""
    data = json.loads(whole)
    return {
        "empty": b"",
        "torn": whole[: len(whole) // 2],
        "binary": bytes(range(256)),
        "newer": json.dumps({**data, "format": 99}).encode(),
        "unknown-key": json.dumps({**data, "more": 1}).encode(),
        "another-name": json.dumps({**data, "name": "other"}).encode(),
        "not-base64": json.dumps({**data, "data": "%"}).encode(),
    }


@pytest.mark.parametrize(
    "how", ["empty", "torn", "binary", "newer", "unknown-key", "another-name", "not-base64"]
)
def test_a_damaged_file_is_one_line_and_can_be_replaced(kept: Path, how: str) -> None:
    secrets.create("s", VALUE)
    file = kept / "s.json"
    file.write_bytes(damaged_files(file.read_bytes())[how])
    with pytest.raises(FormatError, match="secret s is damaged") as error:
        secrets.value_of("s")
    assert "\n" not in error.value.message
    assert "horse" not in error.value.message + error.value.hint
    secrets.create("s", VALUE, replace=True)
    assert secrets.value_of("s") == VALUE


def test_a_damaged_one_can_be_removed(kept: Path) -> None:
    secrets.create("s", VALUE)
    (kept / "s.json").write_bytes(b"{")
    damaged: list[FormatError] = []
    assert secrets.all_secrets(damaged) == []
    assert len(damaged) == 1
    secrets.remove("s")
    with pytest.raises(NotFound):
        secrets.load("s")


@pytest.mark.parametrize("word", ["../events", "s/../s", "", "sss", "ff"])
def test_what_is_not_there(kept: Path, word: str) -> None:
    secrets.create("s", VALUE)
    with pytest.raises(NotFound, match="no such secret"):
        secrets.find(word)


@pytest.mark.parametrize(
    ("value", "reason"),
    [(b"a\0b", "a NUL byte"), (bytes([65]) * (128 << 10), "larger than a variable can be")],
    ids=["nul", "large"],
)
def test_what_no_variable_can_have(kept: Path, value: bytes, reason: str) -> None:
    secrets.create("s", value)
    use = parse_secret("s,type=env,target=TOKEN", "--secret")
    with pytest.raises(SpecError, match=reason):
        secrets.variables((use,))


def test_a_variable_need_not_be_text(kept: Path) -> None:
    secrets.create("s", b"\xff\xfe")
    use = parse_secret("s,type=env,target=TOKEN", "--secret")
    assert os.fsencode(secrets.variables((use,))[0]) == b"TOKEN=\xff\xfe"


def test_a_program_that_fails_says_why(kept: Path, tmp_path: Path) -> None:
    """A host whose key was lost: what was encrypted before cannot be read, what comes is kept for root."""
    program = tmp_path / "systemd-creds"
    program.write_text("#!/bin/sh\necho noise >&2; echo The key is gone. >&2; exit 1\n")
    program.chmod(0o755)
    made, reason = secrets.create("s", VALUE)
    assert reason == "systemd-creds cannot encrypt: The key is gone."
    assert made.kept == secrets.PLAIN
    file = kept / "s.json"
    file.write_text(file.read_text().replace('"file"', '"systemd-creds"'))
    with pytest.raises(SysboxError, match=r"secret s: systemd-creds cannot decrypt it: The key"):
        secrets.value_of("s")


def test_a_record_has_names_alone_and_is_read_again() -> None:
    spec = ContainerSpec(
        image="x",
        secrets=parse_secrets(["s", "s,type=env,target=A"], (), "--secret"),
        credentials=(CredentialUse(name="a", source="/x"), CredentialUse(name="b.*")),
    )
    assert ContainerSpec.from_data(spec.to_data()) == spec
    for wrong in (
        {"secrets": [{"name": "../x", "target": "/x"}]},
        {"secrets": [{"name": "x", "target": "x"}]},
        {"secrets": [{"name": "x", "kind": "file", "target": "/x"}]},
        {"credentials": [{"name": "../x"}]},
        {"credentials": [{"name": "x", "source": "x"}]},
    ):
        with pytest.raises(ValueError, match="must be"):
            ContainerSpec.from_data({"image": "x", **wrong})


def test_a_file_as_a_credential_is_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_bytes(VALUE)
    (tmp_path / "link").symlink_to("file")
    for name in ("fifo", ".", "missing"):
        with pytest.raises(SpecError, match="credential a: "):
            credstore.check((CredentialUse(name="a", source=f"{tmp_path}/{name}"),))
    uses = tuple(CredentialUse(name=name, source=f"{tmp_path}/{name}") for name in ("file", "link"))
    credstore.check(uses)
    assert credstore.collect(uses) == {"file": VALUE, "link": VALUE}
