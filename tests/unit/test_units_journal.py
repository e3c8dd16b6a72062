"""What goes to journald, byte for byte, and what comes back from journalctl."""

from __future__ import annotations

import json

import pytest

from sysbox.errors import FormatError, SpecError
from sysbox.units import journal

ID = "0123456789abcdef" * 4


def test_stream_header() -> None:
    header = journal.stream_header("web", "docker-1.scope", 6)
    assert header == b"web\ndocker-1.scope\n6\n0\n0\n0\n0\n"


def test_a_name_cannot_forge_the_header() -> None:
    header = journal.stream_header("a\nssh.service\n0\n", "docker-1.scope", 3)
    assert header.split(b"\n")[1:] == b"docker-1.scope\n3\n0\n0\n0\n0\n".split(b"\n")


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
    argv = journal.journal_arguments("docker-1.scope", since=1_500_000, lines=3, follow=True)
    assert "--since=@1.500000" in argv
    assert "--lines=3" in argv
    assert "--follow" in argv
    assert argv[-2:] == ["_SYSTEMD_UNIT=docker-1.scope", "_TRANSPORT=stdout"]
    assert "--lines=all" in journal.journal_arguments("docker-1.scope")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"MESSAGE": "text"}, b"text\n"),
        ({"MESSAGE": [98, 255, 10]}, b"b\xff\x0a\n"),
        ({"MESSAGE": None}, b"\n"),
        ({"MESSAGE": "half", "_LINE_BREAK": "eof"}, b"half"),
        ({"MESSAGE": "half", "_LINE_BREAK": "line-max"}, b"half"),
        ({"MESSAGE": "a", "_LINE_BREAK": "nul"}, b"a\0"),
    ],
)
def test_entry(entry: dict[str, object], message: bytes) -> None:
    line = json.dumps({"__REALTIME_TIMESTAMP": "12", "PRIORITY": "3", **entry}).encode()
    found = journal.parse_entry(line)
    assert found == journal.LogLine(timestamp=12, priority=3, message=message)


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b"{}", b'{"__REALTIME_TIMESTAMP":"x","MESSAGE":""}',
             b'{"__REALTIME_TIMESTAMP":"1","MESSAGE":[256]}']
)  # fmt: skip
def test_bad_entry(line: bytes) -> None:
    with pytest.raises(FormatError):
        journal.parse_entry(line)
