"""Patterns of paths have the rules of Go's path.Match: its documentation, and the cases of its own tests."""

from __future__ import annotations

import pytest

from sysbox.base import patterns


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("abc", "abc", True), ("*", "abc", True), ("*c", "abc", True), ("a*", "a", True),
        ("a*", "abc", True), ("a*", "ab/c", False), ("a*/b", "abc/b", True), ("a*/b", "a/c/b", False),
        ("a*b*c*d*e*/f", "axbxcxdxe/f", True), ("a*b*c*d*e*/f", "axbxcxdxexxx/f", True),
        ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", False), ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", False),
        ("a*b?c*x", "abxbbxdbxebxczzx", True), ("a*b?c*x", "abxbbxdbxebxczzy", False),
        ("ab[c]", "abc", True), ("ab[b-d]", "abc", True), ("ab[e-g]", "abc", False),
        ("ab[^c]", "abc", False), ("ab[^b-d]", "abc", False), ("ab[^e-g]", "abc", True),
        ("a\\*b", "a*b", True), ("a\\*b", "ab", False), ("a?b", "a☺b", True), ("a[^a]b", "a☺b", True),
        ("a???b", "a☺b", False), ("[a-ζ]*", "α", True), ("*[a-ζ]", "A", False), ("a?b", "a/b", False),
        ("a*b", "a/b", False), ("[\\]a]", "]", True), ("[\\-]", "-", True), ("[x\\-]", "x", True),
        ("[x\\-]", "z", False), ("[\\-x]", "a", False), ("*x", "xxx", True), ("", "", True),
        ("/proc/*", "/proc/keys", True), ("/proc/*", "/proc", False), ("/sys", "/sys/firmware", False),
        ("/sys/*/*", "/sys/devices/virtual/powercap", False),
    ],
)  # fmt: skip
def test_matches(pattern: str, path: str, fits: bool) -> None:
    assert patterns.matches(pattern, path) is fits
    patterns.check(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "[]a]",
        "[-]",
        "[x-]",
        "[-x]",
        "[a-b-c]",
        "[",
        "[^",
        "[^bc",
        "a[",
        "a\\",
        "x[a-]",
        "[]",
        "[^/]",
    ],
)
def test_malformed(pattern: str) -> None:
    for call in (lambda: patterns.check(pattern), lambda: patterns.matches(pattern, "a")):
        with pytest.raises(ValueError, match=r"\[|middle"):
            call()


def test_many_stars_take_no_time() -> None:
    assert not patterns.matches("*a" * 1000 + "b", "a" * 3000)
