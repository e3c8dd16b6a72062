"""Control-group paths and files, on text and on a directory that stands for one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hostfacts import facts

from sysbox.base.errors import KernelError, Unsupported
from sysbox.linux import cgroup

HYBRID = """\
12:cpu,cpuacct:/system.slice/docker-1.scope
3:memory:/system.slice/docker-1.scope
1:name=systemd:/system.slice/docker-1.scope
0::/user.slice/with:colon
"""


def test_parse() -> None:
    assert cgroup.parse(HYBRID) == {
        "cpu": "/system.slice/docker-1.scope",
        "cpuacct": "/system.slice/docker-1.scope",
        "memory": "/system.slice/docker-1.scope",
        "name=systemd": "/system.slice/docker-1.scope",
        cgroup.UNIFIED: "/user.slice/with:colon",
    }
    assert cgroup.parse("0::/\n") == {"": "/"}


def test_our_own_paths() -> None:
    paths = cgroup.paths_of(os.getpid())
    assert paths
    assert all(path.startswith("/") for path in paths.values())
    assert cgroup.path_of(os.getpid(), "memory") in paths.values()
    with pytest.raises(KernelError):
        cgroup.paths_of(2**22 + 1)


def test_directory() -> None:
    here = facts("v1", {"memory": "/sys/fs/cgroup/memory"})
    assert cgroup.directory(here, "memory", "/a.slice") == "/sys/fs/cgroup/memory/a.slice"
    assert cgroup.directory(here, "memory", "/") == "/sys/fs/cgroup/memory"
    with pytest.raises(Unsupported, match="'rdma'"):
        cgroup.directory(here, "rdma", "/")


def test_values(tmp_path: Path) -> None:
    (tmp_path / "memory.stat").write_text("anon 4096\nfile 0\n")
    (tmp_path / "cgroup.procs").write_text("")
    assert cgroup.read(str(tmp_path), "memory.stat") == "anon 4096\nfile 0"
    assert cgroup.read_keyed(str(tmp_path), "memory.stat") == {"anon": 4096, "file": 0}
    cgroup.join(42, (str(tmp_path),))
    assert (tmp_path / "cgroup.procs").read_text() == "42"
    with pytest.raises(KernelError, match=r"write '1' to .*memory\.max"):
        cgroup.write(str(tmp_path), "memory.max", "1")
    with pytest.raises(KernelError, match="read"):
        cgroup.read(str(tmp_path), "gone")


def test_a_tree_of_them(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").write_text("1\n2\n")
    inner = tmp_path / "init.scope"
    inner.mkdir()
    (inner / "cgroup.procs").write_text("3\n")
    assert cgroup.children(str(tmp_path)) == [str(inner)]
    assert sorted(cgroup.processes(str(tmp_path))) == [1, 2, 3]
    with pytest.raises(KernelError) as raised:
        cgroup.processes(str(tmp_path / "gone"))
    assert raised.value.errno in cgroup.GONE
