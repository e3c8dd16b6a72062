"""What tests/fuzz has found, kept as it was: a bug where one line was due, or what nothing could read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sysbox.base import codec
from sysbox.base.errors import FormatError, SpecError
from sysbox.cli.parse import hot
from sysbox.cli.request.spec import build
from sysbox.cli.table.options import Option
from sysbox.cli.table.verbs import VERBS, options_of
from sysbox.host import probe
from sysbox.image import changes
from sysbox.image.model import ImageConfig
from sysbox.parse import limits, storage, time
from sysbox.parse.network import check_hostname
from sysbox.parse.security import parse_sysctl, parse_ulimit
from sysbox.spec import ContainerSpec
from sysbox.units import serviceplan
from sysbox.units.limits import allowlist

DIGITS = "9" * 5000  # int() takes 4,300


def moment(text: str, flag: str) -> float:
    return time.parse_moment(text, flag, 1e9)


def change(text: str, _: str) -> ImageConfig:
    return changes.apply(ImageConfig(), [text])


def prop(text: str, _: str) -> Any:
    return allowlist.parse_property(text, probe())


@pytest.mark.parametrize(
    ("parser", "text"),
    [
        (time.parse_signal, f"RTMIN+{DIGITS}"),
        (time.parse_signal, "00150"),  # was 15
        (time.parse_signal, "RTMIN+²"),
        (moment, "9" * 400),  # was infinite
        # more than 64 bits: the record that it went into could not be read
        (time.parse_duration, "999999999999999w"),
        (time.parse_seconds, "999999999999999w"),
        (time.parse_seconds, "4294967296"),
        (check_hostname, ""),
        (parse_ulimit, "nofile=9999999999999999999"),
        (parse_sysctl, "net.x=\0"),
        (storage.parse_mount, "dst=/a\0"),
        (storage.parse_mount, "type=bind,src=\0,dst=/a"),
        (storage.parse_tmpfs, "/a\0b"),
        (storage.parse_device, "/dev/a\0"),
        (limits.parse_device_number, f"/dev/a:{DIGITS}"),
        (change, r'CMD ["\ud800"]'),
        (prop, "IPAddressAllow=\udcff"),
    ],
)
def test_one_line(parser: Callable[..., Any], text: str) -> None:
    if parser is limits.parse_device_number:
        arguments: tuple[Any, ...] = (text, "--flag", 1, 1000)
    else:
        arguments = (text, "--flag")
    with pytest.raises(SpecError):
        parser(*arguments)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("1e999", "too large"),
        ('{"a":-1e999}', "too large"),
        (r'"\ud800"', "lone surrogate"),
        (r'{"\udfff":1}', "lone surrogate"),
        (r'[["\ud83d"]]', "lone surrogate"),
        ("[" * 129 + "]" * 129, "nested too deeply"),
        ('{"a":' * 500 + "1" + "}" * 500, "nested too deeply"),
    ],
)
def test_what_is_no_strict_json(document: str, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        codec.loads(document.encode(), "x")


@pytest.mark.parametrize(
    "value", ["\udcff", {"\udc80": ["a\udcfe"]}, "\U0001f600", [[]] * 500, "[" * 500]
)
def test_what_is_json_all_the_same(value: Any) -> None:
    """A byte that is no UTF-8 in an argument; a pair of surrogates; much that is not deep."""
    assert codec.loads(codec.dumps(value), "x") == value


def test_a_path_in_a_unit_file_is_one_line() -> None:
    assert serviceplan.program_word('/a\n"b%$\\') == '"/a\\n\\"b%%$$\\\\"'


EDGES = [
    f"{(1 << bits) + off}{unit}"
    for bits in (16, 31, 32, 53, 63, 64)
    for off in (-1, 0)
    for unit in ("", "s", "g", "w")
]
AROUND = {  # where a value has more than a number
    "--restart": "on-failure:%s",
    "--publish": "%s:80",
    "--ulimit": "nofile=%s",
    "--log-opt": "max-file=%s",
    "--mount": "type=tmpfs,dst=/a,tmpfs-size=%s",
    "--tmpfs": "/a:size=%s",
    "--device-read-bps": "/dev/null:%s",
    "--device-write-iops": "/dev/null:%s",
    "--blkio-weight-device": "/dev/null:%s",
}


@pytest.mark.parametrize(
    "option", [one for one in options_of(VERBS["run"]) if one.metavar], ids=lambda one: one.dest
)
def test_a_number_that_is_accepted_can_be_read_from_the_record(option: Option) -> None:
    name = option.names[-1]
    for edge in EDGES:
        values = hot.read(["run", f"{name}={AROUND.get(name, '%s') % edge}", "--", "image"])
        if values is None:
            continue
        try:
            spec = build(values)
        except (SpecError, FormatError):
            continue
        assert ContainerSpec.from_data(codec.loads(codec.dumps(spec.to_data()), edge)) == spec
