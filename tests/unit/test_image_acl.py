"""Access control lists as text, of GNU tar and of bsdtar."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysbox.base.errors import FormatError
from sysbox.image.acl import from_text

VALUE = bytes.fromhex(
    "02000000" "01000600ffffffff" "020007002a000000" "04000400ffffffff" "10000700ffffffff"
    "20000400ffffffff"
)  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        b"user::rw-\nuser:42:rwx\ngroup::r--\nmask::rwx\nother::r--\n",
        b"user::rw-,user:lisa:rwx:42,group::r--,mask::rwx,other::r--",
        b"other::r--,mask::rwx,group::r--,u:42:rwx\t#effective:r--,u::rw-",
    ],
)
def test_the_same_list(text: bytes) -> None:
    assert from_text(text) == VALUE


def test_names_of_this_machine() -> None:
    found = from_text(
        b"user::rw-\nuser:daemon:r--\ngroup::r--\ngroup:root:r--\nmask::r--\nother::---"
    )
    assert bytes.fromhex("0200040001000000") in found
    assert bytes.fromhex("0800040000000000") in found


def test_a_list_that_is_a_mode() -> None:
    assert from_text(b"user::rwx\ngroup::r-x\nother::r-x\n") == b""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "without one"),
        (b"user::rwx", "without one"),
        (b"user::rwx,user::rwx,user::r--,group::r--,other::r--", "without one"),
        (b"user::rwx,group::r--,other::r--,user:1:rwx,user:1:r--,mask::r--", "without one"),
        (b"user::rwx,group::r--,other::r--,user:no-such-user:rwx,mask::r--", "does not know"),
        (b"user::rwx,group::r--,other::r--,user:4294967295:rwx", "malformed"),
        (b"user::rwz,group::r--,other::r--", "malformed"),
        (b"other:5:rwx,user::rwx,group::r--", "malformed"),
        (b"everyone@:rwx:allow", "malformed"),
        (b"user:rwx", "malformed"),
        (
            b"user::rwx,group::r--,other::r--,"
            + b",".join(b"user:%d:r--" % n for n in range(2000)),
            "1000",
        ),
    ],
)
def test_malformed(text: bytes, why: str) -> None:
    with pytest.raises(FormatError, match=why):
        from_text(text)


@given(st.binary(max_size=200))
def test_anything(data: bytes) -> None:
    try:
        value = from_text(data)
    except FormatError:
        return
    assert value == b"" or len(value) % 8 == 4
