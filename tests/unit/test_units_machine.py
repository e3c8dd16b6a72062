"""Names as machined takes them."""

from __future__ import annotations

import pytest

from sysbox.units.machine import machine_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("web", "web"),
        ("brave_otter", "brave-otter"),
        ("a.b", "a.b"),
        ("a..b", "a.b"),
        ("web-", "web"),
        ("web_.x", "web.x"),
        ("x" * 100, "x" * 64),
        ("x" * 63 + ".y", "x" * 63),
    ],
)
def test_a_hostname(name: str, expected: str) -> None:
    assert machine_name(name) == expected
