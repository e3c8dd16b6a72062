"""Which user namespace a container is in, and the arithmetic of its maps."""

from __future__ import annotations

import pytest

from sysbox.base.errors import SpecError, SysboxError, Unsupported
from sysbox.linux import userns
from sysbox.linux.userns import IdMap
from sysbox.security import idmap
from sysbox.security.idmap import Decision, Joined
from sysbox.spec import ContainerSpec, Mount, Namespaces, Security, UserNamespace

WEB = Joined(flag="--network container:web", mode="container:1", owner="container:1")
SAME = WEB.replace(flag="--pid container:sidecar", mode="container:2")
DB = Joined(flag="--ipc container:db", mode="container:3", owner="container:3")
HOSTS = Joined(flag="--network ns:/run/netns/x")


def spec(user: str = "", **namespaces: str) -> ContainerSpec:
    return ContainerSpec(image="i", namespaces=Namespaces(user=user, **namespaces))


def maps(*ranges: tuple[int, int, int]) -> tuple[IdMap, ...]:
    return tuple(IdMap(inside=a, outside=b, count=c) for a, b, c in ranges)


HOST_FLAGS = [
    ({"pid": "host"}, "--pid host"),
    ({"network": "host"}, "--network host"),
    ({"ipc": "host"}, "--ipc host"),
    ({"uts": "host"}, "--uts host"),
    ({"cgroup": "host"}, "--cgroupns host"),
]


def test_the_default() -> None:
    assert idmap.decide(spec()) == Decision(mode="auto")
    assert idmap.decide(spec(), default="host") == Decision(mode="host")
    by_file = spec().replace(userns=UserNamespace(default="host"))
    assert idmap.decide(by_file) == Decision(mode="host", reason="UserNS=host")
    by_file = spec().replace(userns=UserNamespace(default="auto"))
    assert idmap.decide(by_file, default="host") == Decision(mode="auto")
    assert idmap.decide(spec(), incapable="no map") == Decision(mode="host", reason="no map")


@pytest.mark.parametrize(("namespaces", "flag"), HOST_FLAGS)
def test_flags_that_mean_the_hosts(namespaces: dict[str, str], flag: str) -> None:
    assert idmap.decide(spec(**namespaces)) == Decision(mode="host", reason=flag)
    assert idmap.decide(spec("host", **namespaces)) == Decision(mode="host", reason="--userns host")
    for mode in idmap.OWN:
        with pytest.raises(SpecError, match=f"and {flag} exclude each other"):
            idmap.decide(spec(mode, **namespaces))
    with pytest.raises(SpecError, match=f"{flag} means the host's"):
        idmap.decide(spec(**namespaces), (WEB,))


def test_privileged() -> None:
    asked = spec().replace(security=Security(privileged=True))
    assert idmap.decide(asked) == Decision(mode="host", reason="--privileged")
    with pytest.raises(SpecError, match="--privileged means the host's") as caught:
        idmap.decide(asked, (WEB,))
    assert "--cap-add ALL" in caught.value.hint


def test_mounts_that_reach_the_host() -> None:
    mount = Mount(kind="bind", source="/a", target="/b", options=("rshared",))
    asked = spec().replace(mounts=(mount,))
    assert idmap.decide(asked) == Decision(mode="host", reason="-v /a:/b:rshared")
    with pytest.raises(SpecError, match="--userns auto and -v /a:/b:rshared exclude each other"):
        idmap.decide(spec("auto").replace(mounts=(mount,)))
    assert idmap.decide(asked.replace(mounts=(mount.replace(options=("rslave",)),))).mode == "auto"


def test_joined() -> None:
    """One that joins another container is in its user namespace, whichever it is."""
    assert idmap.decide(spec(), (WEB,)) == Decision(mode="container:1", reason=WEB.flag)
    assert idmap.decide(spec(), (WEB, SAME)) == Decision(mode="container:1", reason=WEB.flag)
    assert idmap.decide(spec(), (HOSTS,)) == Decision(mode="host", reason=HOSTS.flag)
    # by name, which `joined` has first
    assert idmap.decide(spec("container:1"), (WEB,)).mode == "container:1"
    assert idmap.decide(spec("ns:/x"), (HOSTS,)).mode == "host"
    assert idmap.decide(spec("host"), (HOSTS,)) == Decision(mode="host", reason="--userns host")
    # a host that cannot make one need not: there is one
    assert idmap.decide(spec(), (WEB,), "no map").mode == "container:1"


@pytest.mark.parametrize(
    ("asked", "joined", "message"),
    [
        (
            "host",
            (WEB,),
            "--userns host means the host's user namespace, and --network container:web is",
        ),
        ("auto", (WEB,), "--userns auto: --network container:web is in another user namespace"),
        ("auto", (HOSTS,), "--userns auto: --network ns:/run/netns/x is in another user namespace"),
        ("mapped", (WEB,), "--uidmap: --network container:web is in another"),
        ("", (WEB, DB), "--network container:web and --ipc container:db are in different user"),
        ("", (HOSTS, DB), "--network ns:/run/netns/x and --ipc container:db are in different user"),
        ("container:3", (DB, WEB), "are in different user namespaces"),
    ],
)
def test_what_excludes_each_other(asked: str, joined: tuple[Joined, ...], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        idmap.decide(spec(asked), joined)
    assert message in caught.value.message
    assert caught.value.hint


def test_a_host_that_cannot() -> None:
    with pytest.raises(Unsupported, match="--userns auto: no map") as caught:
        idmap.decide(spec("auto"), (), "no map")
    assert "--userns host" in caught.value.hint


USUAL = maps((0, 524288, 65536))


def test_translation() -> None:
    assert userns.outside(USUAL, 1000, "x") == 525288
    assert userns.inside(USUAL, 525288) == 1000
    assert userns.inside(USUAL, 0) == userns.inside(USUAL, 589824) == userns.OVERFLOW
    # the host's
    assert (userns.outside((), 7, "x"), userns.inside((), 7)) == (7, 7)


def test_an_id_that_was_asked_for() -> None:
    assert userns.outside((), 70000, "--user 70000") == 70000
    assert userns.outside(USUAL, 65535, "--user 65535") == 589823
    with pytest.raises(
        SysboxError, match="--user 70000: 70000 is outside the container's ids"
    ) as caught:
        userns.outside(USUAL, 70000, "--user 70000")
    assert "auto:size=70001" in caught.value.hint


def test_given_ranges_and_others_around_them() -> None:
    assert idmap.around((), 524288, 65536) == USUAL
    assert idmap.around(maps((1000, 5, 1)), 100, 2000) == maps(
        (0, 100, 1000), (1000, 5, 1), (1001, 1101, 999)
    )
    # beyond the size, at its end, in place of all
    assert idmap.around(maps((9, 1, 1)), 100, 5) == maps((0, 100, 5), (9, 1, 1))
    assert idmap.around(maps((4, 1, 9)), 100, 5) == maps((0, 100, 4), (4, 1, 9))
    assert idmap.around(maps((0, 1, 9)), 100, 5) == maps((0, 1, 9))


def test_extended_as_in_podman() -> None:
    """Its example: `0:0:65000` and `+100000:1:1` leave out the id 1."""
    assert idmap.extend(maps((0, 0, 65000)), maps((100000, 1, 1))[0]) == maps(
        (0, 0, 1), (2, 2, 64998), (100000, 1, 1)
    )
    assert idmap.extend((), USUAL[0]) == USUAL


def test_what_the_kernel_refuses() -> None:
    assert idmap.problem(USUAL) == ""
    assert "5 in the container is mapped twice" in idmap.problem(maps((0, 100, 6), (5, 900, 1)))
    assert "102 on the host is mapped twice" in idmap.problem(maps((0, 100, 6), (7, 102, 1)))
    assert "340" in idmap.problem(maps(*((n, 2 * n, 1) for n in range(341))))
    assert idmap.problem(maps(*((n, 2 * n, 1) for n in range(340)))) == ""


def test_words() -> None:
    found = maps((100000, 7, 1), (0, 524288, 65536))
    assert userns.text(found) == "0-65535, 100000"
    assert [userns.span(one.outside, one.count) for one in found] == ["7", "524288-589823"]


def test_of_other_maps() -> None:
    assert idmap.same(maps((0, 700, 10), (50, 1, 2))) == maps((0, 0, 10), (50, 50, 2))
    assert idmap.in_a_row(((100, 5), (900, 2))) == maps((0, 100, 5), (5, 900, 2))
