"""The JSON codec: it reads and writes what `json` does, and refuses more."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from sysbox.base import codec
from sysbox.base.errors import FormatError

VALUES: list[Any] = [
    None, True, False, 0, -1, 2**63, 0.5, -1e300, "", "text", 'a"\\/\b\f\n\r\t\0\x1f', "ü €", "😀",
    [], [1, [2, [3]]], {}, {"b": 1, "a": {"c": [None]}}, {"ü": "ö"},
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES)
def test_it_writes_what_json_reads_and_the_other_way(value: Any) -> None:
    written = codec.dumps(value)
    assert written == json.dumps(value, separators=(",", ":"), sort_keys=True).encode() + b"\n"
    assert codec.loads(written, "x") == value
    assert codec.loads(json.dumps(value, indent=2, ensure_ascii=False).encode(), "x") == value
    assert codec.loads(json.dumps(value, ensure_ascii=False), "x") == value


def test_the_bytes_are_the_same_whatever_the_order_of_the_keys() -> None:
    assert codec.dumps({"b": 1, "a": 2}) == codec.dumps({"a": 2, "b": 1}) == b'{"a":2,"b":1}\n'


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (b"", "not valid JSON at character 0"),
        (b" \n", "not valid JSON at character 0"),
        (b"[1,]", "not valid JSON"),
        (b"nul", "not valid JSON at character 0"),
        (b"01", "trailing data at character 1"),
        (b"{} {}", "trailing data at character 2"),
        (b'{"a":1,"b":2,"a":1}', "the key 'a' appears twice"),
        (b'[{"a":{"b":1,"b":1}}]', "the key 'b' appears twice"),
        (b"[NaN]", "NaN is not JSON"),
        (b"-Infinity", "-Infinity is not JSON"),
        (b"1e999", "a number that is too large"),
        (b"-1e999", "a number that is too large"),
        (b"1" * 21, "an integer over 64 bits"),
        (b"-" + b"1" * 20, "an integer over 64 bits"),
        (rb'"\ud800"', "a lone surrogate"),
        (rb'{"\udfff":1}', "a lone surrogate"),
        (rb'[["\ud800"]]', "a lone surrogate"),
        (b"[" * 129 + b"]" * 129, "nested too deeply"),
        (b'{"a":' * 129 + b"1" + b"}" * 129, "nested too deeply"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_refused(document: bytes, said: str) -> None:
    with pytest.raises(FormatError) as raised:
        codec.loads(document, "the file")
    assert raised.value.message.startswith(f"the file: {said}")


@pytest.mark.parametrize("document", [b"{", b"{'a':1}", b'"a\nb"', rb'"\x"', rb'"\u12"', b'"'])
@pytest.mark.parametrize("imported", [True, False])
def test_what_the_scanner_itself_words(
    document: bytes, imported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks for JSONDecodeError in json.decoder, which a hot verb has not imported."""
    if not imported:
        monkeypatch.delitem(sys.modules, "json.decoder")
    with pytest.raises(FormatError, match=r"^the file: "):
        codec.loads(document, "the file")


def test_what_is_not_utf_8_is_refused() -> None:
    with pytest.raises(FormatError, match=r"^the file: 'utf-8' codec can't decode"):
        codec.loads(b'"\xff"', "the file")


def test_what_is_just_within_the_bounds() -> None:
    assert codec.loads("1" * 20, "x") == int("1" * 20)
    deep = codec.loads(b"[" * 128 + b"]" * 128, "x")
    for _ in range(127):
        (deep,) = deep
    assert deep == []
    wide = b"[" + b",".join([b"[]"] * 1000) + b"]"
    assert codec.loads(wide, "x") == [[]] * 1000


def test_a_byte_that_is_not_utf_8_comes_back() -> None:
    """PEP 383: a file's name, or an argument."""
    name = b"a\xff\xfe".decode("utf-8", "surrogateescape")
    assert codec.loads(codec.dumps([name]), "x") == [name]
