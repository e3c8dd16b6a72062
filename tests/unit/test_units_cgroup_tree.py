"""Which hierarchies are ours, and what is written by whom, on facts of different hosts."""

from __future__ import annotations

import pytest
from hostfacts import TOP, facts

from sysbox.host import HostFacts
from sysbox.linux import cgroup
from sysbox.units.cgroup import tree
from sysbox.units.limits.properties import CgroupWrite

PATH = "/system.slice/docker-1.scope"
CPUSET = CgroupWrite(controller="cpuset", file="cpuset.cpus", value="0")
SWAP = CgroupWrite(controller="memory", file="memory.memsw.limit_in_bytes", value="1")
CLASS = CgroupWrite(controller="net_cls", file="net_cls.classid", value="1")


def mounted(mode: str, mounts: str) -> HostFacts:
    """`mounts` are directories, named as their controllers: "cpu,cpuacct memory systemd"."""
    controllers = {
        "name=systemd" if name == "systemd" else name: f"{TOP}/{directory}"
        for directory in mounts.split()
        for name in directory.split(",")
    }
    return facts(mode, controllers)


USUAL = mounted(
    "v1", "cpu,cpuacct cpuset memory blkio devices pids freezer net_cls,net_prio perf_event systemd"
)
APART = mounted("v1", "cpu cpuacct cpuset memory devices freezer net_cls perf_event systemd")
UNIFIED = mounted("v2", "systemd")


def test_what_is_ours() -> None:
    assert set(tree.own_hierarchies(USUAL)) == {
        "freezer",
        "perf_event",
        "cpuset",
        "net_cls",
        "net_prio",
    }
    assert set(tree.own_hierarchies(APART)) == {
        "freezer",
        "cpuacct",
        "perf_event",
        "cpuset",
        "net_cls",
    }
    assert tree.own_hierarchies(UNIFIED) == {}


def test_always() -> None:
    placement, rest = tree.split_writes(PATH, (SWAP,), APART)
    assert [mount for mount, _ in placement.mounts] == [
        f"{TOP}/{name}" for name in ("freezer", "cpuacct", "perf_event")
    ]
    assert placement.freezer == f"{TOP}/freezer"
    assert (placement.writes, rest) == ((), (SWAP,))


def test_when_asked() -> None:
    placement, rest = tree.split_writes(PATH, (CPUSET, SWAP, CLASS), USUAL)
    assert dict(placement.mounts) == {
        f"{TOP}/freezer": False,
        f"{TOP}/perf_event": False,
        f"{TOP}/cpuset": True,  # to be filled
        f"{TOP}/net_cls,net_prio": False,
    }
    assert placement.writes == (
        (f"{TOP}/cpuset", CPUSET),
        (f"{TOP}/net_cls,net_prio", CLASS),
    )
    assert rest == (SWAP,)


def test_nothing_on_v2() -> None:
    placement, rest = tree.split_writes(PATH, (), UNIFIED)
    assert (placement.mounts, placement.writes, rest) == ((), (), ())
    tree.place(placement)


@pytest.mark.parametrize(
    ("path", "scope"),
    [
        (PATH, PATH),
        (f"{PATH}/init.scope", PATH),
        (f"{PATH}/system.slice/x.service", PATH),
        ("/a.slice/a-b.slice/docker-1.scope/inner", "/a.slice/a-b.slice/docker-1.scope"),
        ("/", "/"),
    ],
)
def test_the_scope_of_a_path(path: str, scope: str) -> None:
    assert tree.scope_path(path) == scope


@pytest.mark.parametrize(
    ("path", "moved"),
    [("/system.slice/a.service", "system.slice/a.service"), ("/", ""), ("/../outside", None)],
)
def test_a_move_that_is_expected(
    path: str, moved: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[str] = []
    monkeypatch.setattr(cgroup, "paths_of", lambda _: {"name=systemd": path, "": "/"})
    monkeypatch.setattr(cgroup, "expect_move", prepared.append)
    tree.expect_move(USUAL)
    assert prepared == ([] if moved is None else [f"{TOP}/systemd/{moved}".rstrip("/")])


def test_no_move_is_expected_without_cgroups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "paths_of", lambda _: {})
    monkeypatch.setattr(cgroup, "expect_move", lambda _: pytest.fail("of what?"))
    tree.expect_move(USUAL)
    tree.expect_move(mounted("v2", ""))
