"""The keys that detach a terminal: how they are written, and how they are found in what is typed."""

from __future__ import annotations

import pytest

from sysbox.base.errors import SpecError
from sysbox.run import detach_keys
from sysbox.run.detach_keys import Finder


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", b""),
        (detach_keys.DEFAULT, b"\x10\x11"),
        ("ctrl-a", b"\x01"),
        ("ctrl-z,ctrl-@", b"\x1a\x00"),
        (r"ctrl-[,ctrl-\,ctrl-],ctrl-^,ctrl-_", b"\x1b\x1c\x1d\x1e\x1f"),
        ("a,ctrl-b,c", b"a\x02c"),
        ("-", b"-"),
    ],
)
def test_keys_that_can_be_chosen(text: str, keys: bytes) -> None:
    assert detach_keys.parse(text, "--detach-keys") == keys


@pytest.mark.parametrize("text", [",", "ctrl-", "ctrl-A", "ctrl-aa", "ab", "a,,b", "ü", "ctrl-!"])
def test_keys_that_cannot_be_chosen(text: str) -> None:
    with pytest.raises(SpecError, match=r"--detach-keys .* is not a key"):
        detach_keys.parse(text, "--detach-keys")


CASES = [
    # keys, what is typed, what is passed on, whether they were pressed
    (b"\x10\x11", b"plain", b"plain", False),
    (b"\x10\x11", b"a\x10\x11b", b"a", True),
    (b"\x10\x11", b"\x10x\x11", b"\x10x\x11", False),
    (b"\x10\x11", b"\x10\x10\x11", b"\x10", True),
    (b"\x10\x11", b"\x10", b"", False),
    (b"\x10\x11", b"\x10\x10", b"\x10", False),
    (b"\x01", b"ab\x01c", b"ab", True),
    (b"abc", b"abxabc", b"abx", True),
    (b"abc", b"ababc", b"ab", True),
    (b"", b"\x10\x11", b"\x10\x11", False),
]


@pytest.mark.parametrize(("keys", "typed", "passed", "pressed"), CASES)
def test_the_keys_are_found_at_once(
    keys: bytes, typed: bytes, passed: bytes, pressed: bool
) -> None:
    assert Finder(keys).feed(typed) == (passed, pressed)


@pytest.mark.parametrize(("keys", "typed", "passed", "pressed"), CASES)
def test_the_keys_are_found_byte_by_byte(
    keys: bytes, typed: bytes, passed: bytes, pressed: bool
) -> None:
    """A terminal hands out what is typed as it comes: a read may end between two keys."""
    finder, seen, found = Finder(keys), b"", False
    for byte in typed:
        more, found = finder.feed(bytes([byte]))
        seen += more
        if found:
            break
    assert (seen, found) == (passed, pressed)


def test_what_was_held_back_is_passed_on_with_the_next_key() -> None:
    finder = Finder(b"\x10\x11")
    assert finder.feed(b"\x10") == (b"", False)
    assert finder.feed(b"x") == (b"\x10x", False)
