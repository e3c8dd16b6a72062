"""Cgroups of scopes that systemd does not know, in all hierarchies: `gc` removes them where nothing runs.

In the guest: there is one hierarchy on v2 in which cgroups can be left.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from containers import eventually, systemctl
from lane import Sysbox

from sysbox.host import probe
from sysbox.linux import freezer

UNIFIED = Path(freezer.UNIFIED)
EMPTY, FULL, KNOWN = (f"docker-{pair * 32}.scope" for pair in ("ab", "cd", "ef"))


def directories(scope: str) -> list[Path]:
    """Its cgroups, which need not be there."""
    mounts = {Path(mount) for mount in probe().controllers.values()}
    if (UNIFIED / "cgroup.procs").exists():
        mounts.add(UNIFIED)
    return [mount / "system.slice" / scope for mount in mounts]


@pytest.fixture
def process() -> Iterator[int]:
    """A process in cgroups of a scope that systemd does not know."""
    with subprocess.Popen(["sleep", "1000"]) as started:
        for directory in directories(FULL):
            # cpuset has no place for a process before it is told of one
            with suppress(OSError):
                directory.mkdir(parents=True)
                (directory / "cgroup.procs").write_text(str(started.pid))
        yield started.pid
        started.kill()
    for directory in directories(FULL):
        eventually(lambda one=directory: not one.exists() or removed(one), f"{directory} is free")


@pytest.fixture
def known() -> Iterator[list[Path]]:
    """The cgroups of a scope of somebody else's that systemd knows, and empty ones of the same name."""
    words = ("systemd-run", "--quiet", "--scope", f"--unit={KNOWN}", "sleep", "1000")
    with subprocess.Popen(words) as started:
        eventually(lambda: systemctl("is-active", KNOWN, check=False) == "active", "it is active")
        for directory in directories(KNOWN):
            directory.mkdir(parents=True, exist_ok=True)
        yield directories(KNOWN)
        started.kill()
    eventually(lambda: systemctl("is-active", KNOWN, check=False) == "inactive", "it is over")
    for directory in directories(KNOWN):
        eventually(lambda one=directory: not one.exists() or removed(one), f"{directory} is free")


def removed(directory: Path) -> bool:
    try:
        directory.rmdir()
    except OSError:
        return False
    return True


@pytest.mark.guest("one hierarchy on v2")
def test_gc_removes_what_systemd_forgot(sysbox: Sysbox, process: int, known: list[Path]) -> None:
    """Not what a process is in, and nothing of a scope that systemd knows: docker's have the same names."""
    for directory in directories(EMPTY):
        directory.mkdir(parents=True, exist_ok=True)
    assert sysbox("gc").stdout == f"removed the cgroups of {EMPTY[7:19]}\n"
    assert not any(directory.exists() for directory in directories(EMPTY))
    assert all(directory.exists() for directory in known)
    assert any(
        str(process) in (directory / "cgroup.procs").read_text().split()
        for directory in directories(FULL)
        if directory.exists()
    )
    assert sysbox("gc").stdout == ""
