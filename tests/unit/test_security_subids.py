"""/etc/subuid and /etc/subgid, and which ranges are free."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sysbox.base.errors import Conflict, NotFound, SysboxError
from sysbox.embedded import caller_root
from sysbox.security import subids
from sysbox.security.subids import END, FIRST, Entry, Pools

SIZE = 65536


@pytest.fixture(autouse=True)
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of this test's own; those that it does not write do not exist."""
    names = ("subuid", "subgid", "passwd", "group")
    paths = [str(tmp_path / name) for name in names]
    monkeypatch.setattr(subids, "FILES", (paths[0], paths[1]))
    monkeypatch.setattr(subids, "DATABASES", (paths[2], paths[3]))
    monkeypatch.setattr(subids, "NSPAWN", str(tmp_path / "nspawn-uid"))
    return tmp_path


def both(etc: Path, text: str) -> None:
    for name in ("subuid", "subgid"):
        (etc / name).write_text(text)


def chosen(size: int = SIZE, *held: tuple[int, int]) -> tuple[int, int]:
    return subids.choose(size, subids.pools(), [*held], [*held])


def test_the_format() -> None:
    """subuid(5); as in shadow, other lines are no entries."""
    good = "root:100000:65536\n1000:200000:5\nno-newline:7:1"
    assert subids.parse(good) == [
        Entry(owner="root", start=100000, end=165536),
        Entry(owner="1000", start=200000, end=200005),
        Entry(owner="no-newline", start=7, end=8),
    ]
    bad = "\n#x:1:1:1\na:1\na::1\n:1:1\na:-1:1\na:1:0\na:0x1:1\na: 1:1\na:1:99999999999\na:4294967295:2\n"
    assert subids.parse(bad) == []


def test_without_any_entry() -> None:
    assert chosen() == (FIRST, FIRST)
    assert chosen(SIZE, (FIRST, FIRST + 1)) == (FIRST + SIZE, FIRST + SIZE)
    assert chosen(3 * SIZE) == (FIRST, FIRST)


def test_what_others_have(etc: Path) -> None:
    both(etc, f"alice:100000:65536\nbob:{FIRST + 5}:10\n")
    (etc / "subgid").write_text(f"carol:{FIRST + SIZE}:1\n")
    (etc / "passwd").write_text(
        f"root:x:0:0::/:/bin/sh\nfar:x:{FIRST + 2 * SIZE}:1:1234567890123:/:\nbad\n"
    )
    (etc / "group").write_text(f"far:x:{FIRST + 3 * SIZE + 9}:\nodd:x:12345678901:\n")
    (etc / "nspawn-uid").mkdir()
    (etc / "nspawn-uid" / str(FIRST + 4 * SIZE)).touch()
    assert chosen() == (FIRST + 5 * SIZE,) * 2
    assert chosen(10) == (FIRST + 5 * SIZE,) * 2


def test_whose_entries_count(etc: Path) -> None:
    both(etc, "root:100000:131072\n")
    assert subids.pools().owner == "root"
    both(etc, "0:100000:131072\ncontainers:300000:65536\n")
    assert subids.pools().owner == "containers"
    both(etc, "0:100000:131072\ncontainers:300000:65536\nsysbox:400000:65536\n")
    assert subids.pools().owner == "sysbox"
    assert chosen() == (400000, 400000)
    # by number
    both(etc, "991:700000:65536\n")
    (etc / "passwd").write_text("sysbox:x:991:991::/:/bin/false\n")
    assert (subids.pools().owner, chosen()) == ("sysbox", (700000, 700000))
    both(etc, "0:100000:131072\n")
    assert (subids.pools().owner, chosen()) == ("root", (100000, 100000))


def test_users_and_groups_may_differ(etc: Path) -> None:
    (etc / "subuid").write_text("sysbox:100000:10\nsysbox:200000:65536\n")
    (etc / "subgid").write_text("sysbox:900000:65536\n")
    assert chosen() == (200000, 900000)
    assert chosen(10) == (100000, 900000)
    assert subids.choose(10, subids.pools(), [(100000, 100004)], []) == (200000, 900000)


def test_used_up(etc: Path) -> None:
    """Entries that are sysbox's own are a limit; those that it shares are not."""
    both(etc, "containers:100000:65536\n")
    assert chosen() == (100000, 100000)
    assert chosen(SIZE, (100000, 100001)) == (FIRST, FIRST)
    both(etc, "sysbox:100000:65536\n")
    with pytest.raises(
        Conflict, match="65536 ids of sysbox in a row are not free any more"
    ) as caught:
        chosen(SIZE, (100000, 100001))
    assert "a larger range" in caught.value.hint
    with pytest.raises(
        Conflict, match="largest range of sysbox has 65536 ids, the container takes 65537"
    ):
        chosen(SIZE + 1)


def test_the_end_of_all_ids() -> None:
    with pytest.raises(Conflict, match="are free from 524288 to 1879048191"):
        chosen(SIZE, (FIRST, END))
    assert chosen(SIZE, (FIRST, END - SIZE)) == (END - SIZE,) * 2
    with pytest.raises(Conflict):
        chosen(END)


@pytest.mark.parametrize(
    ("uids", "gids", "message"),
    [
        (
            "sysbox:100000:9\nalice:100008:1\n",
            None,
            "subuid: sysbox:100000:9 and alice:100008:1 overlap",
        ),
        ("sysbox:1:9\nsysbox:1:9\n", None, "subuid: sysbox:1:9 and sysbox:1:9 overlap"),
        ("sysbox:1:9\n", "sysbox:1:9\nbob:9:1\n", "subgid: sysbox:1:9 and bob:9:1 overlap"),
        ("sysbox:1:9\n", "", "subgid has no entry of sysbox, and "),
        ("", "sysbox:1:9\n", "subuid has no entry of sysbox, and "),
    ],
)
def test_entries_that_cannot_be_used(etc: Path, uids: str, gids: str | None, message: str) -> None:
    (etc / "subuid").write_text(uids)
    (etc / "subgid").write_text(uids if gids is None else gids)
    with pytest.raises(SysboxError) as caught:
        subids.pools()
    assert message in caught.value.message
    assert caught.value.hint


def test_accounts_are_no_containers(etc: Path) -> None:
    """Of an entry that has ids of the host's users too, root's among them, only the others are taken."""
    (etc / "passwd").write_text("root:x:0:0::/:\nalice:x:1000:1000::/:\nnobody:x:65534:65534::/:\n")
    both(etc, "sysbox:0:200000\n")
    assert chosen() == (65535, 65535)
    assert chosen(10) == (1, 1)
    both(etc, "root:1000:1\n")
    assert chosen(1) == (FIRST, FIRST)
    both(etc, "sysbox:1000:65536\n")
    with pytest.raises(Conflict, match="no 65536 ids of sysbox in a row are free, and no user's"):
        chosen()
    (etc / "passwd").unlink()
    both(etc, "sysbox:0:10\n")
    assert chosen(9) == (1, 1)
    (etc / "group").write_text("staff:x:5:\n")
    assert chosen(4) == (1, 1)
    with pytest.raises(Conflict, match="no 9 ids of sysbox"):
        chosen(9)


@pytest.mark.parametrize("owner", ["root", "containers"])
def test_a_range_that_other_tools_give_twice(etc: Path, owner: str) -> None:
    """LXD has the same lines for itself and for root: no reason to make no containers."""
    both(etc, f"{owner}:1000000:1000000000\nlxd:1000000:1000000000\n")
    assert chosen() == (FIRST, FIRST)
    both(etc, f"{owner}:1000000:65536\nlxd:1000000:65536\n{owner}:300000:65536\n")
    assert chosen() == (300000, 300000)


def test_overlaps_of_others_are_theirs(etc: Path) -> None:
    both(etc, "alice:1:9\nbob:1:9\nsysbox:100000:65536\n")
    assert chosen() == (100000, 100000)


def test_of_one_user(etc: Path) -> None:
    both(etc, "alice:100000:5\n1001:200000:7\nbob:300000:1\n")
    (etc / "passwd").write_text("alice:x:1001:1001::/:\n")
    for name in ("alice", "1001"):
        assert subids.of(name, 0) == subids.of(name, 1) == ((100000, 5), (200000, 7))
    with pytest.raises(NotFound, match="subgid has no entry of carol") as caught:
        subids.of("carol", 1)
    assert "carol:524288:65536" in caught.value.hint


def test_of_the_caller(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On an embedded host, whose /etc is a copy from when it booted."""
    both(etc, "sysbox:100000:65536\n")
    inside = etc / "caller"
    (inside / str(etc)[1:]).mkdir(parents=True)
    both(inside / str(etc)[1:], "sysbox:200000:65536\n")
    root = os.open(inside, os.O_PATH)
    try:
        monkeypatch.setattr(caller_root, "_root", root)
        assert chosen() == (200000, 200000)
    finally:
        os.close(root)


def test_gaps() -> None:
    used = [(10, 20), (20, 30), (25, 26), (50, 60)]
    assert subids.first_gap(0, 100, 10, used) == 0
    assert subids.first_gap(0, 100, 11, used) == 30
    assert subids.first_gap(0, 100, 21, used) == 60
    assert subids.first_gap(0, 100, 41, used) == -1
    assert subids.first_gap(5, 100, 1, used, 16) == 32
    assert Pools().others is None
