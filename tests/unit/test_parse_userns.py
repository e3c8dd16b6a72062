"""`--userns` and the maps: podman's forms."""

from __future__ import annotations

import pytest

from sysbox.base.errors import SpecError
from sysbox.linux.userns import IdMap
from sysbox.parse import userns
from sysbox.spec import UserNamespace


def maps(*ranges: tuple[int, int, int]) -> tuple[IdMap, ...]:
    return tuple(IdMap(inside=a, outside=b, count=c) for a, b, c in ranges)


def asked(text: str) -> tuple[str, UserNamespace]:
    return userns.parse(text, [], [], "", "")


@pytest.mark.parametrize("mode", ["host", "auto", "keep-id", "nomap", "container:web", "ns:/run/x"])
def test_modes(mode: str) -> None:
    assert asked(mode) == (mode, UserNamespace())


def test_options() -> None:
    assert asked("auto:size=1000") == ("auto", UserNamespace(size=1000))
    assert asked("auto:uidmapping=0:7:2,gidmapping=1:8,uidmapping=9:9:1,size=5") == (
        "auto",
        UserNamespace(size=5, uids=maps((0, 7, 2), (9, 9, 1)), gids=maps((1, 8, 1))),
    )
    assert asked("keep-id:uid=0,gid=4294967294,size=2") == (
        "keep-id",
        UserNamespace(uid=0, gid=4294967294, size=2),
    )


def of(*uidmap: str, gidmap: tuple[str, ...] = ()) -> UserNamespace:
    mode, found = userns.parse("", uidmap, gidmap, "", "")
    assert mode == "mapped"
    return found


def test_maps() -> None:
    assert of("0:100:5").uids == of("0:100:5").gids == maps((0, 100, 5))
    assert of("0:100").uids == maps((0, 100, 1))
    found = of("0:100:5", "7:7", gidmap=("0:9:1",))
    assert (found.uids, found.gids) == (maps((0, 100, 5), (7, 7, 1)), maps((0, 9, 1)))
    assert of(gidmap=("0:9:1",)).uids == maps((0, 9, 1))


def test_flags_of_maps() -> None:
    """The examples of podman-run(1)."""
    assert of("0:0:65000", "+100000:1:1").uids == maps((0, 0, 1), (2, 2, 64998), (100000, 1, 1))
    found = of(gidmap=("0:0:1000", "g2000:2000:1"))
    assert (found.uids, found.gids) == (maps((0, 0, 1000)), maps((0, 0, 1000), (2000, 2000, 1)))
    found = of("0:0:1000", "g+1:5", "u+2:6")
    assert found.uids == maps((0, 0, 2), (3, 3, 3), (7, 7, 993), (2, 6, 1))
    assert found.gids == maps((0, 0, 1), (2, 2, 3), (6, 6, 994), (1, 5, 1))


def test_an_id_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """@ID: where sysbox runs in a user namespace, by the map of that."""
    assert of("0:@5:2").uids == maps((0, 5, 2))
    own = (maps((0, 100000, 10)), maps((0, 200000, 10)))
    monkeypatch.setattr(userns, "read_maps", lambda: own)
    assert of("0:@100005:2", gidmap=("0:@200001",)).uids == maps((0, 5, 2))
    assert asked("auto:uidmapping=0:@100005:1")[1].uids == maps((0, 5, 1))
    for text in ("0:@99999", "0:@100005:6", "0:@5"):
        with pytest.raises(SpecError, match="has no map here"):
            of(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("own", "--userns own: unknown mode"),
        ("mapped", "unknown mode"),
        ("private", "unknown mode"),
        ("container:", "unknown mode"),
        ("ns:x", "the path must be absolute"),
        ("host:", "host has no options"),
        ("nomap:size=1", "nomap has no options"),
        ("auto:", "unknown option nothing"),
        ("auto:uid=1", "unknown option uid=1"),
        ("keep-id:uidmapping=0:1:1", "unknown option uidmapping"),
        ("auto:size=0", "--userns auto:size 0: out of range"),
        ("auto:size=4294967296", "out of range"),
        ("auto:size=big", "not a whole number"),
        ("keep-id:uid=4294967295", "out of range"),
        ("keep-id:gid=-1", "out of range"),
        ("auto:uidmapping=0:1:2:3", "not a map of ids"),
        ("auto:uidmapping=0:1:2,uidmapping=1:9:1", "the id 1 in the container is mapped twice"),
        ("auto:gidmapping=0:1:2,gidmapping=8:2:1", "the id 2 on the host is mapped twice"),
    ],
)
def test_bad_modes(text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        asked(text)
    assert message in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("uidmap", "gidmap", "message"),
    [
        (["0"], [], "--uidmap 0: not a map of ids"),
        (["x:1"], [], "x is not an id"),
        (["0:"], [], "nothing is not an id"),
        (["0:1:0"], [], "a range of no ids"),
        (["0:-1"], [], "-1 is not an id"),
        (["0:4294967295"], [], "beyond the highest id"),
        (["0:1:4294967295"], [], "beyond the highest id"),
        (["0:99999999999"], [], "99999999999 is not an id"),
        (["++0:1"], [], "do not go together"),
        (["g0:1"], ["0:1"], "the flags g do not go together"),
        ([], ["0:1:2", "1:8"], "--gidmap: the id 1 in the container is mapped twice"),
        (["0:1:2", "7:2"], [], "--uidmap: the id 2 on the host is mapped twice"),
    ],
)
def test_bad_maps(uidmap: list[str], gidmap: list[str], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        userns.parse("", uidmap, gidmap, "", "")
    assert message in caught.value.message


def test_names_of_entries() -> None:
    found = userns.parse("", [], [], "alice", "")
    assert found == ("mapped", UserNamespace(subuid="alice", subgid="alice"))
    assert userns.parse("", [], [], "", "1000")[1] == UserNamespace(subuid="1000", subgid="1000")
    assert userns.parse("", [], [], "a", "b")[1] == UserNamespace(subuid="a", subgid="b")
    with pytest.raises(SpecError, match="--subgidname a b"):
        userns.parse("", [], [], "", "a b")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("auto", ["0:1"], [], "", ""), "--userns and --uidmap"),
        (("auto", [], ["0:1"], "", ""), "--userns and --gidmap"),
        (("host", [], [], "x", ""), "--userns and --subuidname"),
        (("", ["0:1"], [], "", "x"), "--uidmap and --subgidname"),
    ],
)
def test_flags_that_exclude_each_other(given: tuple[object, ...], message: str) -> None:
    with pytest.raises(SpecError, match=f"{message} exclude each other"):
        userns.parse(*given)
