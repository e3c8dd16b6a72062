"""Which hierarchies are ours, what is written by whom, and in which order, on facts of different hosts."""

from __future__ import annotations

import errno
import os
import posix
from pathlib import Path

import pytest
from hostfacts import TOP, facts

from sysbox.base.errors import KernelError
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
    ],
)
def test_the_scope_of_a_process(path: str, scope: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "paths_of", lambda _: {"name=systemd": path})
    assert tree.scope_of(1, USUAL) == scope


def test_the_scope_of_a_process_that_has_ended() -> None:
    """On v1 the kernel shows it in the root of every hierarchy, whose values are those of the whole host."""
    if "name=systemd" not in cgroup.paths_of(os.getpid()):
        pytest.skip("on v2 it is shown where it was")
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    try:
        with pytest.raises(KernelError, match="find the scope"):
            tree.scope_of(child, USUAL)
        with pytest.raises(KernelError, match="that exits"):
            tree.open_entry(cgroup.paths_of(child), USUAL)
    finally:
        os.waitpid(child, 0)


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


# --- what is done with them: on plain directories that stand for cgroups ---------------------------


@pytest.fixture
def hierarchies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HostFacts:
    """A v1 host below tmp_path, whose directories have the files of a cpuset once they are made."""

    def made(directory: str, dir_fd: int | None = None) -> None:
        os.mkdir(directory, dir_fd=dir_fd)
        for file in ("cpuset.cpus", "cpuset.mems", "tasks", "cgroup.procs", "net_cls.classid"):
            Path(directory, file).touch()

    monkeypatch.setattr(cgroup, "make", made)
    mounts = {
        name: f"{tmp_path}/{name}" for name in ("name=systemd", "cpuset", "net_cls", "memory")
    }
    for mount in mounts.values():
        made(mount)
    (tmp_path / "cpuset/cpuset.cpus").write_text("0-3\n")
    (tmp_path / "cpuset/cpuset.mems").write_text("0\n")
    return facts("v1", mounts)


def test_values_are_written_before_the_process_enters(
    hierarchies: HostFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that it never runs without its limits; a cpuset without CPUs could not be entered at all."""
    steps: list[str] = []
    real = cgroup.write

    def note(directory: str, file: str, value: str) -> None:
        steps.append(f"{Path(directory).name[:7]} {file}")
        real(directory, file, value)

    monkeypatch.setattr(cgroup, "write", note)
    placement, _ = tree.split_writes(PATH, (CPUSET, CLASS), hierarchies)
    tree.place(placement)
    values, entries = steps[:-2], steps[-2:]
    assert entries == ["docker- tasks"] * 2
    assert {"docker- cpuset.cpus", "docker- net_cls.classid"} <= set(values)
    assert not [step for step in values if step.endswith(" tasks")]


def test_a_new_cpuset_has_the_values_of_those_above(
    hierarchies: HostFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a running container gets one, in a slice that has none (cpuset(7))."""
    monkeypatch.setattr(tree, "move_all", lambda *_: None)
    tree.apply_writes((CPUSET.replace(value="1-2"),), PATH, hierarchies)
    slice_ = Path(hierarchies.controllers["cpuset"], "system.slice")
    found = {path: path.read_text() for path in slice_.rglob("cpuset.*")}
    assert {path.name: text for path, text in found.items() if path.parent == slice_} == {
        "cpuset.cpus": "0-3",
        "cpuset.mems": "0",
    }
    below = slice_ / PATH.rpartition("/")[2]
    assert (found[below / "cpuset.cpus"], found[below / "cpuset.mems"]) == ("1-2", "0")


@pytest.mark.parametrize("write", [SWAP, SWAP.replace(optional=True)])
def test_a_cgroup_that_is_gone(write: CgroupWrite, hierarchies: HostFacts) -> None:
    """systemd removes it with its last process: it is not the kernel that lacks the file."""
    with pytest.raises(KernelError, match="find the cgroup"):
        tree.apply_writes((write,), PATH, hierarchies)


@pytest.mark.parametrize(
    ("number", "fails"), [(errno.ESRCH, False), (errno.ENOSPC, True), (errno.EINVAL, True)]
)
def test_a_process_that_ends_while_it_is_moved(
    hierarchies: HostFacts, monkeypatch: pytest.MonkeyPatch, number: int, fails: bool
) -> None:
    inside = [[11, 12], [12], []]
    joined: list[int] = []

    def join(pid: int, _: object) -> None:
        joined.append(pid)
        if pid == 11:
            raise KernelError("write", "cgroup.procs", number)

    monkeypatch.setattr(cgroup, "processes", lambda _: inside.pop(0))
    monkeypatch.setattr(cgroup, "join", join)
    monkeypatch.setattr(tree, "_is_below", lambda *_: False)
    if fails:
        with pytest.raises(KernelError):
            tree.move_all(PATH, "cpuset", hierarchies)
    else:
        tree.move_all(PATH, "cpuset", hierarchies)
        assert (joined, inside) == ([11, 12, 12], [])


def test_what_a_container_made_below_its_cgroup_goes_with_it(
    hierarchies: HostFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while a process is still ending: rmdir(2) says EBUSY for both (cgroups(7))."""
    rmdir, busy = os.rmdir, ["a", "b"]
    above = Path(hierarchies.controllers["net_cls"], "system.slice")
    scope = above / PATH.rpartition("/")[2]
    (scope / "inner/innermost").mkdir(parents=True)

    def remove(name: str, *, dir_fd: int) -> None:
        if name == "innermost" and busy:
            busy.pop()
            raise OSError(errno.EBUSY, "")
        try:
            rmdir(name, dir_fd=dir_fd)
        except OSError as error:
            raise OSError(
                errno.EBUSY if error.errno == errno.ENOTEMPTY else error.errno, ""
            ) from None

    monkeypatch.setattr(posix, "rmdir", remove)
    tree.remove_cgroups(PATH, hierarchies)
    assert (list(above.iterdir()), busy) == ([], [])
    tree.remove_cgroups(PATH, hierarchies)
