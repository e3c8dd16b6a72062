"""Declarations: any file at all becomes a unit, or a unit that says in one line why it cannot."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from sysbox.units import syntax
from sysbox.units.quadlet import convert, sources, units
from sysbox.units.quadlet.keys import SECTIONS

GOOD = (
    "[Unit]\nAfter=b.volume\n[Container]\nImage=x\nExec=a 'b c' \\\n  d\nVolume=b.volume:/b\n"
    "[Install]\nWantedBy=x\n"
)
KEYS = sorted(
    {one.name for section in SECTIONS.values() for one in section} | {"After", "Type", ""}
)
VALUES = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["yes", "a=b", '"', "\\", "b.volume:/x", "./x", "%n", "x.container", "\\x00", "-/dev/x"]),
)  # fmt: skip
LINES = st.one_of(
    st.builds(lambda key, value: f"{key}={value}", st.sampled_from(KEYS), VALUES),
    st.sampled_from([f"[{name}]" for name in (*SECTIONS, "Unit", "Service", "Install", "X-a", "")]),
    st.text(max_size=20),
)


def become(text: str, kind: str) -> units.Service:
    """The service of a file with that text, beside a volume `b`."""
    volume = _source("/q/b.volume", "[Volume]\n")
    one = _source(f"/q/a.{kind}", text)
    return convert.service_of(one, units.Declared((one, volume)), "/usr/bin/sysbox")


def _source(path: str, text: str) -> sources.Source:
    return sources.parsed(path, [(path, text.encode("utf-8", "surrogateescape"))])


def check(service: units.Service) -> None:
    assert "\n" not in service.error
    text = units.text(service, "/usr/bin/sysbox", install=True)
    found = {one.key for one in syntax.entries(text) if one.section == "Service"}
    assert {"ExecStart", "Type"} <= found


@example(["[Container]", "Image=x"], "container")
@given(st.lists(LINES, max_size=12), st.sampled_from(sources.KINDS))
def test_any_lines(lines: list[str], kind: str) -> None:
    check(become("\n".join(lines), kind))


@given(st.integers(0, len(GOOD)), st.integers(0, 30), st.text(max_size=10))
def test_a_good_file_with_a_change(at: int, length: int, new: str) -> None:
    check(become(GOOD[:at] + new + GOOD[at + length :], "container"))


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    check(become(data.decode("utf-8", "surrogateescape"), "container"))
