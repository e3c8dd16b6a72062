"""Tables, durations and JSON as docker prints them; the lines of `ps`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sysbox.base import program
from sysbox.base.errors import UsageError
from sysbox.cli import output
from sysbox.cli.commands import ps, ps_filters
from sysbox.container import store
from sysbox.docker import human, inspect
from sysbox.docker.json import pretty, to_json
from sysbox.docker.known_images import KnownImages
from sysbox.spec import ContainerSpec, Port

ROWS = [
    {"ID": "1", "Names": "web", "Label": lambda key: key * 2},
    {"ID": "22", "Names": "b", "Label": str},
]
COLUMNS = (("CONTAINER ID", "ID"), ("NAMES", "Names"))
HEADERS = {"ID": "CONTAINER ID", "Names": "NAMES"}


def record(**more: object) -> store.Record:
    fields: dict[str, object] = {
        "id": "ab" * 32,
        "name": "web",
        "created_ns": 1_700_000_000_123_456_789,
        "spec": ContainerSpec(image="debian", labels={"b": "2", "a": "1"}),
        "image_id": "sha256:" + "cd" * 32,
        "image_name": "debian:latest",
        "argv": ("sleep", "infinity-and-more-than-that"),
    }
    return store.Record(**(fields | more))  # type: ignore[arg-type]


def test_table() -> None:
    assert output.table([["A", "B"], ["long enough cell", "x"]]) == (
        "A                  B\nlong enough cell   x\n"
    )
    assert output.table([["A", "B"], ["x", "y"]]).startswith("A         B\n")


@pytest.mark.parametrize(
    ("format", "text"),
    [
        (None, "CONTAINER ID   NAMES\n1              web\n22             b\n"),
        ("json", '{"ID":"1","Names":"web"}\n{"ID":"22","Names":"b"}\n'),
        ("{{.ID}}-{{.Names}}", "1-web\n22-b\n"),
        (
            r"table {{.ID}}\t{{.Names}}",
            "CONTAINER ID   NAMES\n1              web\n22             b\n",
        ),
        ('{{.Label "x"}}', "xx\nx\n"),
    ],
)
def test_print_list(format: str | None, text: str, capfd: pytest.CaptureFixture[str]) -> None:
    output.print_list(ROWS, COLUMNS, headers=HEADERS, format=format)
    assert capfd.readouterr().out == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (180, "3 minutes"),
        (3600, "About an hour"),
        (7200, "2 hours"),
        (172800, "2 days"),
        (1209600, "2 weeks"),
        (86400 * 90, "3 months"),
        (86400 * 800, "2 years"),
    ],
)
def test_human_duration(seconds: float, text: str) -> None:
    assert human.human_duration(seconds) == text


@pytest.mark.parametrize(("size", "text"), [(0, "0B"), (1500, "1.5kB"), (123_456_789, "123MB")])
def test_human_size(size: int, text: str) -> None:
    assert human.human_size(size) == text


@pytest.mark.parametrize(
    "value", [{}, [], {"a": [1, {"b": None}], "c": {}}, 'é\n"', 1.5, True, [[]]]
)
def test_pretty_is_json(value: object) -> None:
    text = pretty(value)
    assert json.loads(text) == value
    assert text == json.dumps(value, indent=4, ensure_ascii=False)


def test_a_byte_that_is_no_text_does_not_break_json() -> None:
    assert json.loads(to_json("a\udcff")) == "a\ufffd"


def test_ps_row() -> None:
    status = store.Status(state="exited", exit_code=3, started_at=1.0, finished_at=100.0)
    row = ps.row(record(), status, 100.0 + 7200, KnownImages(), full=False)
    assert row["ID"] == "abababababab"
    assert row["Command"] == '"sleep infinity-and-…"'
    assert row["Status"] == "Exited (3) 2 hours ago"
    assert row["Labels"] == "a=1,b=2"
    assert row["Label"]("a") == "1"
    full = ps.row(record(), status, 200.0, KnownImages(), full=True)
    assert full["ID"] == "ab" * 32
    assert full["Command"] == '"sleep infinity-and-more-than-that"'


def test_a_command_in_ps_can_be_read_back() -> None:
    status = store.Status(state="running", started_at=1.0)
    odd = record().replace(argv=("sh", "-c", 'echo "a b"; c\\d\n\x1b'))
    row = ps.row(odd, status, 200.0, KnownImages(), full=True)
    assert row["Command"] == r'''"sh -c 'echo \"a b\"; c\\d\n\x1b'"'''
    short = ps.row(odd, status, 200.0, KnownImages(), full=False)
    assert short["Command"] == r'''"sh -c 'echo \"a b\"; …"'''


def test_ports() -> None:
    ports = (
        Port(container_port=80, host_port=8080),
        Port(container_port=53, host_port=53, host_ip="127.0.0.1", protocol="udp"),
    )
    assert ps.ports_text(ports) == "0.0.0.0:8080->80/tcp, 127.0.0.1:53->53/udp"
    shown = "99/tcp, 0.0.0.0:8080->80/tcp, 127.0.0.1:53->53/udp"
    assert ps.ports_text(ports, ("80/tcp", "99/tcp")) == shown


@pytest.mark.parametrize(
    ("filters", "matches"),
    [
        (["id=abab"], True),
        (["id=cd"], False),
        (["name=we"], True),
        (["name=^web$"], True),
        (["name=^eb"], False),
        (["name=^/web$"], True),
        (["name=/web"], True),
        (["id=^abab"], True),
        (["network=bridge"], True),
        (["network=none"], False),
        (["is-task=false"], True),
        (["is-task=true"], False),
        (["health=none"], True),
        (["label=a"], True),
        (["label=a=1", "label=b=2"], True),
        (["label=a=1", "label=b=3"], False),
        (["status=exited", "status=running"], True),
        (["status=running"], False),
        (["exited=3"], True),
        (["exited=0"], False),
        (["ancestor=debian"], True),
        (["ancestor=cdcdcdcd"], True),
        (["ancestor=alpine"], False),
    ],
)
def test_filters(filters: list[str], matches: bool) -> None:
    status = store.Status(state="exited", exit_code=3)
    parsed = ps_filters.parse(filters)
    assert ps_filters.matches(record(), status, parsed, KnownImages()) is matches


@pytest.mark.parametrize(
    "text",
    [
        "id",
        "bogus=1",
        "status=runing",
        "name=(",
        "is-task=x",
        "health=x",
        "publish=80-",
        "expose=80/x",
    ],
)
def test_filters_refused(text: str) -> None:
    status = store.Status(state="created")
    with pytest.raises(UsageError):
        ps_filters.matches(record(), status, ps_filters.parse([text]), KnownImages())


def test_timestamp() -> None:
    assert inspect.timestamp(0) == "0001-01-01T00:00:00Z"
    assert inspect.timestamp(1_700_000_000.5) == "2023-11-14T22:13:20.500000000Z"


def test_version_is_mesons() -> None:
    root = Path(__file__).resolve().parents[2]
    assert f"version: '{program.VERSION}'" in (root / "meson.build").read_text(encoding="utf-8")


def test_long_values_are_cut_in_errors(capfd: pytest.CaptureFixture[str]) -> None:
    """What is wrong comes last, and stays."""
    output.report(UsageError(f"--memory {'9' * 100_000}: not a size", hint="512m"))
    error = capfd.readouterr().err
    assert error.startswith("sysbox: --memory 99999")
    assert error.endswith("9: not a size\nsysbox: 512m\n")
    assert len(error) < 400
    output.report(UsageError(f"{'a b ' * 100_000}: not a name"))
    error = capfd.readouterr().err
    assert error.endswith(": not a name\n")
    assert len(error) < 5000
    path = "/" + "/".join(["x" * 49] * 5)
    output.warn(UsageError(f"{path}: damaged", hint="remove it"))
    assert capfd.readouterr().err == f"sysbox: {path}: damaged; remove it\n"
