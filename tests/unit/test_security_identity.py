"""Who `-u` means: strict numbers, and the image's own files."""

from __future__ import annotations

import time

import pytest

from sysbox.base.errors import SpecError
from sysbox.security.identity import MAX_FILE, Identity, has_names, parse_id, resolve_user

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
# comment:x:0:0::/:
broken line
short:x:1
user:x:1000:100:A User:/home/user:/bin/sh
4242:x:0:0:a numeric name:/root:/bin/sh
evil:x:4294967296:0::/:/bin/sh
minus:x:-1:0::/:/bin/sh
hex:x:0x0:0::/:/bin/sh
1000abc:x:77:77::/abc:/bin/sh
odd\xff:x:78:78::/odd:/bin/sh
relative:x:79:79::home:/bin/sh
"""
GROUP = b"""root:x:0:
users:x:100:
wheel:x:10:user,other
audio:x:29:other,user
video:x:44:users,useruser
bad:x:-5:user
huge:x:99999999999:user
500:x:0:
"""


def who(user: str, *add: str) -> Identity:
    return resolve_user(user, add, PASSWD, GROUP)


def test_nobody_asked_for_is_root() -> None:
    assert who("") == Identity(uid=0, gid=0, groups=(0,), home="/root", name="root")
    assert resolve_user("", (), b"", b"") == Identity(uid=0, gid=0, groups=(0,), home="/")


def test_a_name_has_its_groups_and_no_others() -> None:
    assert who("user") == Identity(
        uid=1000, gid=100, groups=(10, 29, 100), home="/home/user", name="user"
    )
    assert who("1000") == who("user")


def test_a_group_that_was_given_replaces_them() -> None:
    assert who("user:wheel").groups == (10,)
    assert who("user:77") == Identity(
        uid=1000, gid=77, groups=(77,), home="/home/user", name="user"
    )
    assert who(":users").gid == 100


def test_a_uid_without_an_entry() -> None:
    assert who("31337") == Identity(uid=31337, gid=0, groups=(0,), home="/")
    assert who("31337:31338") == Identity(uid=31337, gid=31338, groups=(31338,), home="/")
    assert who("4294967294:4294967294").uid == 4294967294


def test_group_add() -> None:
    assert who("user", "video", "4000").groups == (10, 29, 44, 100, 4000)
    assert who("user:wheel", "audio").groups == (10, 29)


def test_digits_are_never_a_name() -> None:
    assert who("4242").uid == 4242  # CVE-2016-3697: the entry of that name is root's
    assert who("1:500").gid == 500


def test_other_names() -> None:
    assert who("1000abc").uid == 77
    assert who("odd\udcff").uid == 78
    assert who("relative").home == "/"


@pytest.mark.parametrize(
    "user",
    [
        "4294967295", "4294967296", "18446744073709551616", "00000000000", "99999999999", "-1", "+1",
        "-0", "0x0", "0b0", "1e3", "1_000", " 0", "0 ", "0\n", "\0", "1000 abc", "1000abd", "nosuch",
        "evil", "minus", "hex", "short", "# comment", "root:root:root", "::", "root:-1",
        "root:4294967295", "root:nosuch", "root:0x0", "\N{ARABIC-INDIC DIGIT ZERO}", "root\n", "²",
    ],
)  # fmt: skip
def test_what_is_nobody(user: str) -> None:
    with pytest.raises(SpecError):
        who(user)


def test_beside_a_colon_either_may_be_left_out() -> None:
    assert who("user:") == who("user")
    assert who(":") == who("")
    assert (who(":0").uid, who(":0").gid) == (0, 0)


@pytest.mark.parametrize("group", ["-1", "4294967295", "", "nosuch", "0x1", "bad", "huge", "a:b"])
def test_what_is_no_group(group: str) -> None:
    with pytest.raises(SpecError):
        who("user", group)


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("007", 7), ("4294967294", 4294967294)])
def test_plain_decimal(text: str, number: int) -> None:
    assert parse_id(text) == number


@pytest.mark.parametrize(
    ("user", "groups", "named"),
    [
        ("", (), False), ("0", (), False), ("5:7", ("8",), False), (":", (), False),
        ("root", (), True), ("5:wheel", (), True), ("5", ("wheel",), True), ("-1", (), True),
    ],
)  # fmt: skip
def test_a_name_among_them(user: str, groups: tuple[str, ...], named: bool) -> None:
    assert has_names(user, groups) is named


def test_the_largest_file_takes_no_minute() -> None:
    line = b"user%d:x:%d:100::/:/bin/sh\n"
    passwd = b"".join(line % (n, n) for n in range(130000))[:MAX_FILE]
    group = (b"g:x:5:" + b"a," * (MAX_FILE // 2))[:MAX_FILE]
    before = time.monotonic()
    assert resolve_user("100000", (), passwd, group).name == "user100000"
    assert time.monotonic() - before < 10
