"""The options of `-v` and `--mount` that map the ids of a mount."""

from __future__ import annotations

import pytest

from sysbox.base.errors import SpecError
from sysbox.fs.mountoptions import ids_of
from sysbox.parse import storage
from sysbox.parse.mount_ids import MountIds, Range, parse_idmap


def option(text: str) -> str:
    """What a mount of `-v /a:/b:TEXT` maps."""
    return ids_of(storage.parse_mount_v(f"/a:/b:{text}", "-v"))


def key(text: str) -> str:
    """The same of `--mount`."""
    return ids_of(storage.parse_mount(f"type=bind,src=/a,dst=/b,{text}", "--mount"))


def test_ranges() -> None:
    found = parse_idmap("uids=0-1-10#@10-11-10;gids=0-100-10", "-v", "x")
    assert found == MountIds(
        uids=(
            Range(on_disk=0, there=1, count=10),
            Range(on_disk=10, there=11, count=10, relative=True),
        ),
        gids=(Range(on_disk=0, there=100, count=10),),
    )
    assert parse_idmap("gids=4294967294-0-1", "-v", "x").uids == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no empty part"),
        ("uids=", "nothing is not a range"),
        ("uids=0-1", "0-1 is not a range"),
        ("uids=0-1-2-3", "is not a range"),
        ("uids=0-1-2;", "no empty part"),
        ("uids=0-1-2#", "nothing is not a range"),
        ("uids=0-1-2;uids=5-6-7", "uids twice"),
        ("users=0-1-2", "no users"),
        ("uids=0--1", "nothing is not an id"),
        ("uids=@@0-1-2", "@0 is not an id"),
        ("uids=0-@1-2", "@1 is not an id"),
        ("uids=-1-0-1", "is not a range"),
        ("uids=x-0-1", "x is not an id"),
        ("uids=0x0-0-1", "0x0 is not an id"),
        ("uids=\u0661-0-1", "is not an id"),
        ("uids=0-0-0", "a range of no ids"),
        ("uids=4294967295-0-1", "beyond the highest id"),
        ("uids=0-4294967294-2", "beyond the highest id"),
        ("uids=4294967296-0-1", "4294967296 is not an id"),
        ("uids=99999999999-0-1", "is not an id"),
    ],
)
def test_ranges_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        option(f"idmap={text}")
    assert caught.value.message.startswith(f"-v /a:/b:idmap={text}: ")
    assert caught.value.hint


def test_options() -> None:
    given = "idmap=uids=@0-5-1;gids=1-2-3"
    assert [option(one) for one in ("ro", "idmap", "U", "noidmap", given, "U,idmap", "idmap,ro,U")] == [
        "", "idmap", "U", "", given, "U", "U",
    ]  # fmt: skip
    assert storage.parse_mount_v(f"/a:/b:{given}", "-v").options == (given,)
    assert storage.parse_mount_v("/a:/b:U,U", "-v").options == ("U",)
    assert storage.parse_mount_v("vol:/b:U", "-v").options == ("U",)


def test_keys() -> None:
    """podman's keys of --mount, with and without a value."""
    given = "idmap=uids=@0-5-1;gids=1-2-3"
    for text in ("U", "U=true", "chown", "chown=true", "U=1"):
        assert key(text) == "U"
    for text, found in (("idmap", "idmap"), ("idmap=true", "idmap"), (given, given)):
        assert key(text) == found
    for text in ("U=false", "chown=0"):
        assert storage.parse_mount(f"type=bind,src=/a,dst=/b,{text}", "--mount").options == ()
    mount = storage.parse_mount("src=vol,dst=/b,idmap=false", "--mount")
    assert mount.options == ("noidmap",)
    assert ids_of(mount) == ""


@pytest.mark.parametrize(
    "text", ["U,noidmap", "noidmap,U", "idmap,noidmap", "U,idmap=uids=0-0-1", "idmap,idmap=uids=0-0-1",
             "idmap=uids=0-0-1,idmap=uids=0-0-2"],
)  # fmt: skip
def test_options_that_exclude_each_other(text: str) -> None:
    with pytest.raises(SpecError, match="exclude each other"):
        option(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type=tmpfs,dst=/b,U", "a tmpfs has no U"),
        ("type=tmpfs,dst=/b,idmap=uids=0-0-1", "a tmpfs has no idmap="),
        ("src=vol,dst=/b,U,idmap=false", "noidmap and U exclude"),
        ("src=vol,dst=/b,idmap=users=1", "is not true or false"),
        ("src=vol,dst=/b,idmap=uids=1", "1 is not a range"),
        ("src=vol,dst=/b,U,chown", "chown is given twice"),
        ("src=vol,dst=/b,U=maybe", "is not true or false"),
    ],
)
def test_keys_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        storage.parse_mount(text, "--mount")


def test_a_suggestion() -> None:
    with pytest.raises(SpecError, match="unknown option u") as caught:
        storage.parse_mount_v("/a:/b:u", "-v")
    assert "U" in (caught.value.hint or "")


def test_the_z_of_another_flag() -> None:
    with pytest.raises(SpecError, match="unknown key z") as caught:
        storage.parse_mount("type=bind,src=/a,dst=/b,Z", "--mount")
    assert "relabel=private" in (caught.value.hint or "")
