"""The maps of mounts: what the file system's ids are for the host, and for the container."""

from __future__ import annotations

import pytest

from sysbox.base.errors import SpecError
from sysbox.linux import userns
from sysbox.linux.userns import IdMap
from sysbox.security import mount_ids
from sysbox.security.mount_ids import ALL, exchanged

Maps = tuple[IdMap, ...]

FIRST = 524288


def maps(*rows: tuple[int, int, int]) -> Maps:
    return tuple(IdMap(inside=inside, outside=outside, count=n) for inside, outside, n in rows)


OWN = maps((0, FIRST, 65536))
TORN = maps((0, 100000, 10), (10, 5000, 90))


def of(option: str, own: Maps = OWN, *, inside: bool = False) -> Maps:
    """The map of users of an idmap= with only those."""
    uids, gids = mount_ids.of_option(f"idmap=uids={option}", "/data", own, own, inside=inside)
    usual = tuple(one.replace(outside=one.inside) for one in own) if inside else own
    assert gids == (usual or ALL)
    return uids


def test_ids_of_the_host() -> None:
    assert of("0-1-10#10-11-10") == maps((0, 1, 10), (10, 11, 10))
    assert of("5-7-1", ()) == maps((5, 7, 1))


def test_ids_in_the_container() -> None:
    assert of("@1000-0-1") == maps((1000, FIRST, 1))
    assert of("@1000-5-10#0-0-1") == maps((1000, FIRST + 5, 10), (0, 0, 1))
    # in the host's user namespace they are the same
    assert of("@1000-5-10", ()) == maps((1000, 5, 10))
    # a map of the container's that has several ranges tears it apart
    assert of("@500-8-4", TORN) == maps((500, 100008, 2), (502, 5000, 2))


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("option", ["@0-65536-1", "@0-65530-10", "@5-70000-2"])
def test_ids_that_the_container_lacks(option: str, inside: bool) -> None:
    number = "70000" if "70000" in option else "65536"
    with pytest.raises(
        SpecError, match=f"mount /data: idmap=.*: {number} is outside the container"
    ) as caught:
        of(option, inside=inside)
    assert f"auto:size={int(number) + 1}" in caught.value.hint


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("0-1-10#5-100-1", "the id 5 on disk is mapped twice"),
        ("0-1-10#10-5-1", "the id 5 on the host is mapped twice"),
        (f"0-{FIRST}-1#@1-0-1", f"the id {FIRST} on the host is mapped twice"),
        ("#".join(f"{2 * one}-{2 * one}-1" for one in range(341)), "341 ranges"),
    ],
)
def test_maps_that_the_kernel_refuses(option: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        of(option)


def test_as_the_container_sees_them() -> None:
    """For the root of a container that does not run, which is mounted without a map."""
    assert of("@1000-5-10", inside=True) == maps((1000, 5, 10))
    assert of(f"1000-{FIRST + 5}-10", inside=True) == maps((1000, 5, 10))
    assert of("1000-7-10", inside=True) == (), "of strangers"
    assert of("7-100009-1#0-4999-2", TORN, inside=True) == maps((7, 9, 1), (1, 10, 1))


def shown(own: Maps, on_disk: int) -> int:
    """The host's id of an id on disk; -1 without one."""
    try:
        return userns.outside(own, on_disk, "x")
    except SpecError:
        return -1


@pytest.mark.parametrize(("on_disk", "owner"), [(0, 999), (999, 0), (1000, 999), (65535, 0)])
@pytest.mark.parametrize("own", [OWN, ALL], ids=["own", "host"])
def test_owners_are_exchanged(own: Maps, on_disk: int, owner: int) -> None:
    made = exchanged(own, on_disk, owner, "x")
    assert shown(made, on_disk) == shown(own, owner)
    assert shown(made, owner) == shown(own, on_disk)
    for other in (1, 998, 1001, 65534):
        assert shown(made, other) == shown(own, other)
    assert sum(one.count for one in made) == sum(one.count for one in own)
    assert {*exchanged(own, owner, on_disk, "x")} == {*made}


def test_an_owner_outside_of_the_map() -> None:
    made = exchanged(OWN, 1 << 20, 999, "x")
    assert shown(made, 1 << 20) == FIRST + 999
    assert shown(made, 999) == -1, "the id on the host is taken"
    assert sum(one.count for one in made) == 65536


def test_an_owner_that_is_right() -> None:
    assert exchanged(OWN, 5, 5, "x") is OWN


def test_a_user_outside_of_the_map() -> None:
    with pytest.raises(SpecError, match="mount /data: U: 70000 is outside"):
        exchanged(OWN, 0, 70000, "mount /data: U")


def test_everybody() -> None:
    """The kernel takes no id more: 2^32 - 1 is (uid_t)-1."""
    assert ALL[0].wrong() == ""
    assert ALL[0].replace(count=ALL[0].count + 1).wrong()
