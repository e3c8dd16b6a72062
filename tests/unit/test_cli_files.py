"""What the verbs about files and tidying up read from their command lines."""

from __future__ import annotations

import pytest

from sysbox.base.errors import SpecError, UsageError
from sysbox.cli.commands import cp
from sysbox.cli.parse import hot
from sysbox.cli.table.verbs import VERBS
from sysbox.container.records import Record
from sysbox.content import layer
from sysbox.image.model import Image, ImageConfig
from sysbox.lifecycle import prune
from sysbox.spec import ContainerSpec, Health, Mount, Port

KEYS = ("until", "label", "label!")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("web:/etc/hosts", ("web", "/etc/hosts")),
        ("web:etc", ("web", "etc")),
        ("web:/a:b", ("web", "/a:b")),
        ("/abs/pa:th", ("", "/abs/pa:th")),
        ("./rel:ative", ("", "./rel:ative")),
        ("../up:x", ("", "../up:x")),
        ("dir/a:b", ("", "dir/a:b")),
        (":x", ("", ":x")),
        ("plain", ("", "plain")),
        ("-", ("", "-")),
    ],
)
def test_what_is_in_a_container(text: str, expected: tuple[str, str]) -> None:
    assert cp.split(text) == expected


@pytest.mark.parametrize(
    ("words", "pause", "no_pause"),
    [
        (["box"], True, False),
        (["-p", "box"], True, False),
        (["--pause", "box", "name"], True, False),
        (["--pause=false", "box"], False, False),
        (["--no-pause", "box"], True, True),
    ],
)
def test_a_commit_stands_still_unless_told(words: list[str], pause: bool, no_pause: bool) -> None:
    values = hot.parse(VERBS["commit"], words)
    assert (values.pause, values.no_pause) == (pause, no_pause)
    assert values.container == "box"


LABELS = {"a": "1", "b": ""}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([], True),
        (["label=a"], True),
        (["label=a=1"], True),
        (["label=a=2"], False),
        (["label=c"], False),
        (["label=a", "label=c"], False),
        (["label!=a"], False),
        (["label!=a=2"], True),
        (["label!=c", "label=b"], True),
        (["until=1000"], False),
        (["until=1001"], True),
        (["until=1001", "until=5"], False),
        (["until=1970-01-01T00:16:41Z"], True),
        (["until=10m"], True),
    ],
)
def test_filters(filters: list[str], expected: bool) -> None:
    assert prune.wanted(filters, KEYS).matches(1000.0, LABELS) is expected


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("name=x", UsageError),
        ("until", UsageError),
        ("label=", UsageError),
        ("until=soon", SpecError),
    ],
)
def test_filters_that_are_none(text: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="filter"):
        prune.wanted([text], KEYS)
    with pytest.raises(UsageError, match="unknown key until"):
        prune.wanted(["until=1h"], KEYS[1:])


def test_what_a_commit_takes_over() -> None:
    base = ImageConfig(
        cmd=("base",),
        entrypoint=("entry",),
        env=("PATH=/bin", "KEPT=1"),
        labels={"x": "1", "y": "1"},
        volumes=("/old",),
        exposed_ports=("80/tcp",),
        stop_signal="INT",
        user="base",
    )
    image = Image(id="sha256:" + "0" * 64, manifest="", config=base)

    def committed(**asked: object) -> ImageConfig:
        spec = ContainerSpec(image="x", **asked)  # type: ignore[arg-type]
        record = Record(
            id="1" * 64,
            name="n",
            created_ns=0,
            spec=spec,
            image_id=image.id,
            image_name="x",
            argv=(),
        )
        return layer.config_of(record, image)

    assert committed() == base
    assert committed(command=("mine",)).cmd == ("mine",)
    own = committed(entrypoint=("own",))
    assert (own.entrypoint, own.cmd) == (("own",), ()), "as in the container"
    asked = committed(
        env=("PATH=/x", "NEW=2"),
        labels={"y": "2"},
        mounts=(Mount(kind="volume", target="/new"), Mount(kind="volume", target="/n", source="n")),
        ports=(Port(container_port=53, protocol="udp"),),
        user="me",
        workdir="/w",
        stop_signal="HUP",
        health=Health(command=("true",), retries=2, on_failure="kill"),
    )
    assert asked.health == Health(command=("true",), retries=2)
    assert asked.env == ("KEPT=1", "PATH=/x", "NEW=2")
    assert asked.labels == {"x": "1", "y": "2"}
    assert asked.volumes == ("/new", "/old")
    assert asked.exposed_ports == ("53/udp", "80/tcp")
    assert (asked.user, asked.workdir, asked.stop_signal) == ("me", "/w", "HUP")
