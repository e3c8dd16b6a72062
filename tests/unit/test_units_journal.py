"""What goes to journald, byte for byte, and what comes back from journalctl."""

from __future__ import annotations

import pytest

from sysbox import events
from sysbox.errors import FormatError, SpecError
from sysbox.units import journal, journalread

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
    [{}, {b"__REALTIME_TIMESTAMP": b"x"}, {b"__REALTIME_TIMESTAMP": b"1", b"PRIORITY": b"high"}],
)
def test_bad_entry(entry: dict[bytes, bytes]) -> None:
    with pytest.raises(FormatError):
        journalread.parse_entry(entry)


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


FORGED = [
    {b"_UID": b"1000"},
    {},
    {b"_UID": b"0", b"_SYSTEMD_CGROUP": f"/system.slice/docker-{ID}.scope/init.scope".encode()},
]


@pytest.mark.parametrize("entry", FORGED)
def test_who_is_not_believed(entry: dict[bytes, bytes]) -> None:
    assert not journalread.is_trusted(entry)


def test_who_is_believed() -> None:
    assert journalread.is_trusted(
        {b"_UID": b"0", b"_SYSTEMD_CGROUP": b"/user.slice/docker-x.scope"}
    )


EVENT = {
    b"_UID": b"0",
    b"MESSAGE_ID": events.MESSAGE_IDS["container", "die"].encode(),
    b"SYSBOX_TYPE": b"container",
    b"SYSBOX_ACTION": b"die",
    b"SYSBOX_ID": ID.encode(),
    b"SYSBOX_TIME_NSEC": b"1000000001",
    b"SYSBOX_ATTRIBUTES": b'{"exitCode":"3"}',
}


def test_event() -> None:
    found = events.parse(EVENT)
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
        ("SYSBOX_TIME_NSEC", b"1" * 5000),
        ("SYSBOX_ACTION", b"\xff"),
        ("SYSBOX_ACTION", b"start"),
        ("MESSAGE_ID", b""),
        ("_UID", b"1"),
    ],
)
def test_what_is_no_event(field: str, value: bytes) -> None:
    assert events.parse({**EVENT, field.encode(): value}) is None
