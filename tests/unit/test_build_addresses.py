"""Sources that are addresses: which can be fetched, and what is said of the others."""

from __future__ import annotations

import pytest

from sysbox.build import addresses, expansion, parser
from sysbox.build.errors import FileError
from sysbox.build.model import Variables

FETCHED = (
    "http://h/x", "https://h/x", "git://h/x", "ssh://h/x", "git@h:x", "https://h/x.git#main",
    "file:///x.git",
)  # fmt: skip
NOT_FETCHED = (
    "ftp://h/x",
    "s3://b/x",
    "file:///x",
    "HTTP://h/x",
    "docker-image://x",
    "oci+x.y://z",
)
FILES = ("a", "a/b", "./a:b", "://x", "a b://x", "1://x", "dir/http://x", "/a", "mailto:x")


@pytest.mark.parametrize("text", FETCHED)
def test_what_is_fetched(text: str) -> None:
    assert addresses.is_remote(text)
    addresses.check(text, "ADD")


@pytest.mark.parametrize("text", FILES)
def test_what_is_a_file(text: str) -> None:
    for keyword in ("ADD", "COPY"):
        addresses.check(text, keyword)
    assert not addresses.is_remote(text)


@pytest.mark.parametrize("text", NOT_FETCHED)
def test_what_nothing_fetches(text: str) -> None:
    """The error names the schemes that work, and the word's own column."""
    with pytest.raises(FileError) as caught:
        parser.parse(f"FROM a\nADD file {text} /x\n".encode(), "C")
    assert caught.value.message == f"C:2:10: ADD: '{text}' is an address that nothing here fetches"
    for scheme in ("http://", "https://", "git://", "ssh://", "git@", ".git"):
        assert scheme in caught.value.hint


@pytest.mark.parametrize("text", [*FETCHED[:2], *NOT_FETCHED[:2]])
def test_copy_fetches_nothing(text: str) -> None:
    with pytest.raises(FileError) as caught:
        parser.parse(f"FROM a\nCOPY {text} /x\n".encode(), "C")
    assert caught.value.message == f"C:2:6: COPY: '{text}' is an address: COPY takes files alone"
    assert caught.value.hint == "ADD fetches addresses"


def test_an_address_in_a_variable() -> None:
    file = parser.parse(b"FROM a\nADD $WHERE /x\n", "C")
    one = file.stages[0].instructions[0]
    for text in FETCHED:
        expansion.expand(one, Variables(arguments={"WHERE": text}))
    with pytest.raises(FileError, match="C:2:1: ADD: 'ftp://h/x' is an address that nothing here"):
        expansion.expand(one, Variables(arguments={"WHERE": "ftp://h/x"}))
