"""Unit names and systemd's escaping."""

from __future__ import annotations

import pytest

from sysbox.base.errors import SpecError
from sysbox.units import names

ID = "0123456789abcdef" * 4


def test_units_of_a_container() -> None:
    assert names.scope_unit(ID) == f"docker-{ID}.scope"
    assert names.service_unit(ID) == f"sysbox-{ID}.service"
    assert names.scope_unit("*") == "docker-*.scope"
    assert names.container_of(f"docker-{ID}.scope") == ID
    assert names.container_of(f"sysbox-{ID}.service") == ID
    for other in (
        "docker-abc.scope",
        f"docker-{ID}.service",
        f"docker-{ID[1:]}g.scope",
        "ssh.service",
    ):
        assert names.container_of(other) == ""


@pytest.mark.parametrize("bad", ["", ID[1:], ID + "0", ID.upper(), "../" + ID[3:], ID[:63] + "\n"])
def test_only_an_id_makes_a_unit(bad: str) -> None:
    with pytest.raises(SpecError):
        names.scope_unit(bad)
    with pytest.raises(SpecError):
        names.service_unit(bad)


def test_object_path() -> None:
    path = names.object_path("docker-0a.scope")
    assert path == "/org/freedesktop/systemd1/unit/docker_2d0a_2escope"
    assert names.object_path("0a.scope") == "/org/freedesktop/systemd1/unit/_30a_2escope"
    for unit in (f"docker-{ID}.scope", "a_b@ü-\\x2d.service", "0a.scope"):
        assert names.unit_of(names.object_path(unit)) == unit


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("system.slice", "system.slice"),
        ("web", "web.slice"),
        ("a-b-c.slice", "a.slice/a-b.slice/a-b-c.slice"),
        ("-.slice", ""),
    ],
)
def test_slice_path(name: str, path: str) -> None:
    assert names.slice_path(name) == path


@pytest.mark.parametrize(
    ("name", "path"),
    [("system.slice", "/system.slice/x"), ("a-b", "/a.slice/a-b.slice/x"), ("-.slice", "/x")],
)
def test_in_slice(name: str, path: str) -> None:
    assert names.in_slice(name, "x") == path


@pytest.mark.parametrize(
    ("name", "ancestor", "expected"),
    [
        ("web.slice", "web", True),
        ("web-prod.slice", "web.slice", True),
        ("web-prod-eu.slice", "web", True),
        ("web.slice", "web-prod", False),
        ("webmail.slice", "web", False),
        ("web.slice", "-.slice", True),
    ],
)
def test_is_below(name: str, ancestor: str, *, expected: bool) -> None:
    assert names.is_below(name, ancestor) is expected


@pytest.mark.parametrize(
    "bad",
    [
        "",
        ".slice",
        "-a.slice",
        "a-.slice",
        "a--b",
        "a/b",
        "../x",
        "a b",
        "a\nb",
        "a@b",
        "x" * 300,
        "a.service",
    ],
)
def test_bad_slices(bad: str) -> None:
    with pytest.raises(SpecError) as caught:
        names.check_slice(bad)
    assert "--slice" in caught.value.message
