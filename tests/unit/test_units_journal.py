"""What goes to journald, byte for byte, and what comes back from journalctl."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from sysbox.base.errors import FormatError, SpecError
from sysbox.container import events
from sysbox.spec import Logging
from sysbox.units import journal, journalread, signature

ID = "0123456789abcdef" * 4


def test_fields_file() -> None:
    data = journal.encode_fields({"A": "b", "IMAGE_NAME": "ü"})
    assert data == b"\x03\0\0\0\0\0\0\0A=b" + b"\x0d\0\0\0\0\0\0\0IMAGE_NAME=\xc3\xbc"


@pytest.mark.parametrize("name", ["", "lower", "_PID", "1A", "A=B", "A" * 65])
def test_a_field_that_journald_would_refuse(name: str) -> None:
    with pytest.raises(SpecError):
        journal.encode_fields({name: "x"})


def test_container_fields() -> None:
    fields = journal.container_fields(ID, "web", "debian:12")
    assert fields["CONTAINER_NAME"] == "web"
    assert fields["CONTAINER_ID_FULL"] == ID
    assert fields["CONTAINER_ID"] == fields["CONTAINER_TAG"] == ID[:12]


def test_arguments() -> None:
    argv = journalread.journal_arguments("docker-1.scope", since=1_500_000, lines=3, follow=True)
    assert "--since=@1.500000" in argv
    assert "--lines=3" in argv
    assert "--follow" in argv
    assert argv[-2:] == ["_SYSTEMD_UNIT=docker-1.scope", "_TRANSPORT=stdout"]
    assert "--lines=all" in journalread.journal_arguments("docker-1.scope")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"MESSAGE": b"text"}, b"text\n"),
        ({"MESSAGE": b"b\xff\x0a"}, b"b\xff\x0a\n"),
        ({}, b"\n"),
        ({"MESSAGE": b"half", "CONTAINER_PARTIAL_MESSAGE": b"true"}, b"half"),
        # by a stream, as version 0.1 once had it
        ({"MESSAGE": b"half", "_LINE_BREAK": b"eof"}, b"half"),
        ({"MESSAGE": b"half", "_LINE_BREAK": b"line-max"}, b"half"),
        ({"MESSAGE": b"a", "_LINE_BREAK": b"nul"}, b"a\0"),
    ],
)
def test_entry(entry: dict[str, bytes], message: bytes) -> None:
    fields = {"__REALTIME_TIMESTAMP": b"12", "PRIORITY": b"3", **entry}
    found = journalread.parse_entry({name.encode(): value for name, value in fields.items()})
    assert found == journalread.LogLine(timestamp=12, priority=3, message=message)


@pytest.mark.parametrize(
    "entry",
    [{}, {b"__REALTIME_TIMESTAMP": b"x"}, {b"__REALTIME_TIMESTAMP": b"-1"}, {b"PRIORITY": b"6"}],
)
def test_bad_entry(entry: dict[bytes, bytes]) -> None:
    with pytest.raises(FormatError):
        journalread.parse_entry(entry)


@pytest.mark.parametrize("priority", [b"high", b"", b"-1", b"0_3", b"8", b"9" * 5000, b"\xff"])
def test_a_priority_that_is_none(priority: bytes) -> None:
    """A container that has the journal's socket chooses it: its log is read all the same."""
    found = journalread.parse_entry({b"__REALTIME_TIMESTAMP": b"1", b"PRIORITY": priority})
    assert found.priority == journalread.STDOUT_PRIORITY


EXPORTED = (
    b"__CURSOR=s=1;i=2\nA=b=c\nB\n" + (4).to_bytes(8, "little") + b"\n\nx=\n\nA=1\nA=2\nEMPTY=\n\n"
)


@pytest.mark.parametrize("size", range(1, len(EXPORTED) + 1))
def test_the_export_format_in_pieces_of_any_size(size: int) -> None:
    parser = journalread.Parser()
    found = [
        entry
        for at in range(0, len(EXPORTED), size)
        for entry in parser.feed(EXPORTED[at : at + size])
    ]
    assert found == [
        {b"__CURSOR": b"s=1;i=2", b"A": b"b=c", b"B": b"\n\nx="},
        {b"A": b"1", b"EMPTY": b""},
    ]


def test_a_field_that_is_too_long() -> None:
    with pytest.raises(FormatError):
        list(journalread.Parser().feed(b"MESSAGE\n" + b"\xff" * 8))


EVENT = {
    b"_UID": b"0",
    b"__REALTIME_TIMESTAMP": b"1000005",
    b"MESSAGE_ID": events.MESSAGE_IDS["container", "die"].encode(),
    b"SYSBOX_TYPE": b"container",
    b"SYSBOX_ACTION": b"die",
    b"SYSBOX_ID": ID.encode(),
    b"SYSBOX_NAME": b"web",
    b"SYSBOX_TIME_NSEC": b"1000000001",
    b"SYSBOX_ATTRIBUTES": b'{"exitCode":"3"}',
}
HOST = {b"_SYSTEMD_CGROUP": b"/user.slice/docker-x.scope"}
SCOPE = {b"_SYSTEMD_CGROUP": f"/system.slice/docker-{ID}.scope/init.scope".encode()}


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's key is, which is not made yet."""
    path = tmp_path / "state/events.key"
    monkeypatch.setattr(signature, "EVENT_KEY", str(path))
    monkeypatch.setattr(signature, "STATE", str(path.parent))
    return path


def signed(**changes: bytes) -> dict[bytes, bytes]:
    event = {**EVENT, **{name.encode(): value for name, value in changes.items()}}
    return {**event, b"SYSBOX_SIGNATURE": signature.sign(event, signature.ensure_key())}


def test_the_key_is_made_once(key: Path) -> None:
    assert signature.read_key() is None
    first = signature.ensure_key()
    assert signature.ensure_key() == signature.read_key() == first
    assert (len(first), key.stat().st_mode & 0o777) == (32, 0o600)
    key.write_bytes(b"half")  # what a crash may leave
    assert signature.read_key() is None
    assert signature.ensure_key() not in (b"half", first)
    assert os.listdir(key.parent) == ["events.key"]


def test_who_is_believed(key: Path) -> None:
    # one that had ended when journald looked: it says nothing of its cgroup
    assert journalread.is_trusted(signed())
    assert journalread.is_trusted({**signed(), **HOST})
    assert events.parse(signed()) is not None


@pytest.mark.parametrize("field", signature.FIELDS)
def test_each_field_is_signed(key: Path, field: str) -> None:
    event = signed()
    # another value; none; and one that the field beside it ends with
    for value in (b"x" + event[field.encode()], b""):
        assert not journalread.is_trusted({**event, field.encode(): value})
    moved = {**event, b"SYSBOX_ID": event[b"SYSBOX_ID"][:-1], b"SYSBOX_NAME": b"fweb"}
    assert not journalread.is_trusted(moved)


@pytest.mark.parametrize(
    "change",
    [
        {b"_UID": b"1000"},
        {b"_UID": b""},
        SCOPE,
        {b"SYSBOX_SIGNATURE": b""},
        {b"SYSBOX_SIGNATURE": b"0" * 64},
        # sent again, or with a clock that is wrong
        {b"__REALTIME_TIMESTAMP": b"62000000"},
        {b"__REALTIME_TIMESTAMP": b""},
    ],
)
def test_who_is_not_believed(key: Path, change: dict[bytes, bytes]) -> None:
    assert not journalread.is_trusted({**signed(), **change})


def test_by_another_key(key: Path) -> None:
    event = signed()
    key.unlink()
    assert not journalread.is_trusted(event)
    signature.ensure_key()
    assert not journalread.is_trusted(event)


def test_what_is_older_than_the_key(key: Path) -> None:
    """Version 0.1 once signed nothing: that counts where journald knew who it was."""
    for _ in ("no key yet", "the key is made"):
        assert journalread.is_trusted({**EVENT, **HOST})
        assert not journalread.is_trusted(EVENT)
        assert not journalread.is_trusted({**EVENT, **SCOPE})
        signature.ensure_key()
    later = str(key.stat().st_mtime_ns // 1000 + 1).encode()
    assert not journalread.is_trusted({**EVENT, **HOST, b"__REALTIME_TIMESTAMP": later})


def test_event() -> None:
    found = events.read(EVENT)
    assert found
    assert (found["Actor"]["Attributes"], found["time"]) == ({"exitCode": "3"}, 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("SYSBOX_ATTRIBUTES", b""),
        ("SYSBOX_ATTRIBUTES", b"[]"),
        ("SYSBOX_ATTRIBUTES", b"null"),
        ("SYSBOX_ATTRIBUTES", b'{"exitCode":3}'),
        ("SYSBOX_ATTRIBUTES", b'{"a":"' + b"[" * 100_000),
        ("SYSBOX_ATTRIBUTES", b"[" * 100_000),
        ("SYSBOX_TIME_NSEC", b"soon"),
        ("SYSBOX_TIME_NSEC", b""),
        ("SYSBOX_TIME_NSEC", b"1" * 5000),
        ("SYSBOX_TIME_NSEC", b"9" * 4000),
        ("SYSBOX_TIME_NSEC", b"9" * 30),
        ("SYSBOX_TIME_NSEC", b"9" * 20),
        ("SYSBOX_TIME_NSEC", b"-99999999999999999999999"),
        ("SYSBOX_TIME_NSEC", b"-1"),
        ("SYSBOX_TIME_NSEC", b"1_0"),
        ("SYSBOX_TIME_NSEC", b" 1"),
        ("SYSBOX_TIME_NSEC", "\u0661".encode()),
        ("SYSBOX_ACTION", b"\xff"),
        ("SYSBOX_ACTION", b"start"),
        ("MESSAGE_ID", b""),
    ],
)
def test_what_is_no_event(field: str, value: bytes) -> None:
    assert events.read({**EVENT, field.encode(): value}) is None


def test_what_a_killed_writer_has_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """gc removes it, and nothing of systemd's beside it."""
    monkeypatch.setattr(journal, "_UNITS", str(tmp_path))
    journal.write_fields("docker-other.scope", {"A": "b"}, Logging())
    (tmp_path / "invocation:cron.99999999").touch()
    before = {one.name for one in tmp_path.iterdir()}
    child = os.fork()
    if child == 0:
        monkeypatch.setattr("posix.rename", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        journal.write_fields("docker-one.scope", {"A": "b"}, Logging())
    # not reaped yet, so its pid is no other's
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    left = {one.name for one in tmp_path.iterdir()} - before
    assert left == {f"log-extra-fields:docker-one.scope.{child}"}
    os.waitpid(child, 0)
    assert journal.drafts() == [str(tmp_path / left.pop())]
