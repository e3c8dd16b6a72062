"""The values that limits have of their own."""

from __future__ import annotations

import pytest

from sysbox.base.errors import SpecError
from sysbox.parse import limits as parse


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0x10001", 0x10001), ("0X100001", 0x100001), ("65537", 65537), ("1:1", 0x10001),
        ("10:1", 0x100001), ("ffff:fffe", 0xFFFFFFFE), ("a:", 0xA0000), (":5", 5), ("1", 1),
    ],
)  # fmt: skip
def test_class_id(text: str, number: int) -> None:
    assert parse.parse_class_id(text, "--net-cls") == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "0:0",
        ":",
        "-1",
        "0x",
        "0x100000000",
        "4294967296",
        "10000:1",
        "1:1:1",
        "1:g",
        "x",
        "٣",
    ],
)
def test_bad_class_id(text: str) -> None:
    with pytest.raises(SpecError, match="--net-cls"):
        parse.parse_class_id(text, "--net-cls")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2MB=64m", ("2MB", 64 << 20)),
        ("2m=64m", ("2MB", 64 << 20)),
        ("2048k=0", ("2MB", 0)),
        ("1GB=3g", ("1GB", 3 << 30)),
        ("1024M=3g", ("1GB", 3 << 30)),
        ("64KB=1m", ("64KB", 1 << 20)),
    ],
)
def test_huge_pages(text: str, expected: tuple[str, int]) -> None:
    assert parse.parse_huge_pages(text, "--hugetlb") == expected
    assert parse.page_size_name(parse.page_size(expected[0])) == expected[0]


@pytest.mark.parametrize(
    "text", ["", "2MB", "=4m", "2MB=", "2MB=lots", "3MB=6m", "1=1", "x=1m", "2MB=-1"]
)
def test_bad_huge_pages(text: str) -> None:
    with pytest.raises(SpecError, match="--hugetlb"):
        parse.parse_huge_pages(text, "--hugetlb")


def test_device_number() -> None:
    assert parse.parse_device_number("/dev/a:b:300", "--x", 10, 1000) == ("/dev/a:b", 300)
    for text in ("/dev/sda", "sda:300", "/dev/sda:", "/dev/sda:9", "/dev/sda:1001", "/dev/sda:1.5"):
        with pytest.raises(SpecError, match="--x"):
            parse.parse_device_number(text, "--x", 10, 1000)


@pytest.mark.parametrize(
    ("text", "tidied"),
    [
        ("c 1:3 rwm", "c 1:3 rwm"),
        ("  b   8:*  r ", "b 8:* r"),
        ("a *:* rwm", "a *:* rwm"),
        ("a", "a *:* rwm"),
        ("c *:* m", "c *:* m"),
        ("char-pts rw", "char-pts rw"),
    ],
)
def test_device_rule(text: str, tidied: str) -> None:
    assert parse.parse_device_rule(text, "--device-cgroup-rule") == tidied


@pytest.mark.parametrize(
    "text",
    [
        "", "c", "c 1:3", "1:3 rwm", "d 1:3 rwm", "c 1 rwm", "c 1:x r", "c -1:3 r", "c 1:3 rwx",
        "c 1:3 rr", "c 1:3 rwm x", "a 1:3 rwm", "char- r", "block-sd", "/dev/sda r", "c 1:99999999 r",
        "c 1:٣ r", "char-p\x7fts r",
    ],
)  # fmt: skip
def test_bad_device_rule(text: str) -> None:
    with pytest.raises(SpecError, match="--device-cgroup-rule"):
        parse.parse_device_rule(text, "--device-cgroup-rule")
