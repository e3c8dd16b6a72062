"""The freezers' files, on directories that stand for cgroups; tests/host/test_pause.py has the kernel's."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hostfacts import facts

from sysbox.base.errors import Unsupported
from sysbox.host import HostFacts
from sysbox.linux import freezer

PATH = "/a.slice/docker-1.scope"


@pytest.fixture
def v1(tmp_path: Path) -> HostFacts:
    scope = tmp_path / PATH[1:]
    scope.mkdir(parents=True)
    for directory in (scope, scope.parent):
        (directory / "freezer.state").write_text("THAWED\n")
        (directory / "freezer.self_freezing").write_text("0\n")
    return facts("v1", {"freezer": str(tmp_path)})


@pytest.fixture
def v2(tmp_path: Path) -> HostFacts:
    scope = tmp_path / PATH[1:]
    scope.mkdir(parents=True)
    for directory in (scope, scope.parent):
        (directory / "cgroup.freeze").write_text("0\n")
        (directory / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    return facts("v2", {"name=systemd": str(tmp_path)})


@pytest.mark.parametrize(
    ("state", "frozen"), [("THAWED", False), ("FREEZING", True), ("FROZEN", True)]
)
def test_frozen_on_v1(v1: HostFacts, tmp_path: Path, state: str, frozen: bool) -> None:
    (tmp_path / PATH[1:] / "freezer.state").write_text(f"{state}\n")
    assert freezer.is_frozen(v1, PATH) is frozen
    assert not freezer.is_frozen(v1, "/gone")


def test_frozen_on_v2(v2: HostFacts, tmp_path: Path) -> None:
    assert not freezer.is_frozen(v2, PATH)
    (tmp_path / PATH[1:] / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    assert freezer.is_frozen(v2, PATH)
    assert not freezer.is_frozen(v2, "/gone")


def test_who_wants_it(v1: HostFacts, tmp_path: Path) -> None:
    assert freezer.requested_above(v1, PATH) == ""
    (tmp_path / "a.slice/freezer.self_freezing").write_text("1\n")
    assert not freezer.is_requested(v1, PATH)
    assert freezer.requested_above(v1, PATH) == "/a.slice"


@pytest.mark.parametrize("mode", ["v1", "v2"])
def test_request_and_release(request: pytest.FixtureRequest, tmp_path: Path, mode: str) -> None:
    host: HostFacts = request.getfixturevalue(mode)
    file, thawed = freezer.thaw_file(host, PATH)
    inner = Path(file).parent / "inner"
    inner.mkdir()
    (inner / Path(file).name).write_text("as it was")
    freezer.request(host, PATH)
    assert Path(file).read_text().strip() in ("FROZEN", "1")
    freezer.release(host, PATH)
    assert Path(file).read_text().startswith(thawed)
    assert (inner / Path(file).name).read_text() == "as it was"
    freezer.release(host, PATH, below=True)
    assert (inner / Path(file).name).read_text().startswith(thawed)
    freezer.release(host, "/gone")


def test_no_freezer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A v1 host without that controller has the one of the v2 tree beside it, or none."""
    monkeypatch.setattr(freezer, "UNIFIED", str(tmp_path))
    host = facts("v1", {"memory": str(tmp_path)})
    with pytest.raises(Unsupported, match="no cgroup freezer"):
        freezer.request(host, PATH)
    assert not freezer.is_frozen(host, PATH)
    assert freezer.requested_above(host, PATH) == ""
    assert freezer.thaw_file(host, PATH) == ("", "")
    (tmp_path / "cgroup.procs").write_text("")
    assert freezer.thaw_file(host, PATH) == (f"{tmp_path}{PATH}/cgroup.freeze", "0")


KILL = 1 << (signal.SIGKILL - 1)


@pytest.mark.parametrize(
    ("own", "shared", "doomed"),
    [(0, 0, False), (KILL, 0, True), (0, KILL, True), (KILL | 1, KILL | 1, True),
     (KILL >> 1, KILL << 1, False)],
)  # fmt: skip
def test_a_kill_that_waits(
    monkeypatch: pytest.MonkeyPatch, own: int, shared: int, doomed: bool
) -> None:
    """As proc(5) has it: of the thread, and of the whole process."""
    status = f"Name:\tx\nSigPnd:\t{own:016x}\nShdPnd:\t{shared:016x}\nSigBlk:\t{KILL:016x}\n"
    monkeypatch.setattr(freezer.cgroup, "read", lambda *_: status)
    assert freezer.has_pending_kill(1) is doomed


def test_a_process_that_runs_and_one_that_is_gone_are_not_doomed() -> None:
    pid = os.fork()
    if not pid:
        signal.pause()
        os._exit(0)
    assert not freezer.has_pending_kill(pid)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert not freezer.has_pending_kill(pid)


@pytest.mark.parametrize("where", ["/a.slice", PATH, f"{PATH}/it"])
def test_what_holds_a_process(v2: HostFacts, tmp_path: Path, where: str) -> None:
    (tmp_path / PATH[1:] / "it").mkdir()
    (tmp_path / PATH[1:] / "it/cgroup.freeze").write_text("0\n")
    assert freezer.freezing_file(v2, f"{PATH}/it") == ""
    file = tmp_path / where[1:] / "cgroup.freeze"
    file.write_text("1\n")
    assert freezer.freezing_file(v2, f"{PATH}/it") == str(file)
    assert freezer.freezing_file(v2, "/gone") == ""
