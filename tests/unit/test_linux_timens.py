"""Time namespaces, as the first process of a container makes and enters its own."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from forked import in_child, needs_root

from sysbox.base.errors import KernelError
from sysbox.linux import _sys, capability, mount, namespace, process, timens, userns
from sysbox.linux.namespace import CLONE_NEWTIME, CLONE_NEWUSER

SECOND = 10**9
ALL = (1 << 41) - 1


def clocks() -> tuple[int, int]:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC), time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def entered(offsets: dict[str, int], flags: int = CLONE_NEWTIME) -> dict[str, Any]:
    """What a process reads in a new time namespace."""

    def inside() -> dict[str, Any]:
        timens.enter(mount.open_procfs(), offsets)
        fields = Path("/proc/self/stat").read_text().rpartition(") ")[2].split()
        return {
            "clocks": clocks(),
            "start": int(fields[19]),
            "namespace": os.stat("/proc/self/ns/time").st_ino,
            "children": os.stat("/proc/self/ns/time_for_children").st_ino,
            "btime": next(
                int(line.split()[1])
                for line in Path("/proc/stat").read_text().splitlines()
                if line.startswith("btime")
            ),
        }

    found: dict[str, Any] = in_child(inside, flags)
    return found


def test_it_counts_from_the_start_of_the_process() -> None:
    for _ in range(10):
        begin = time.monotonic_ns()
        found = entered({})
        for value in found["clocks"]:
            # a clock tick is 10 ms
            assert 0 <= value <= time.monotonic_ns() - begin + 2 * SECOND // 100
        assert found["start"] <= 1
        assert found["namespace"] == found["children"]
        assert found["namespace"] != os.stat("/proc/self/ns/time").st_ino
        assert abs(found["btime"] - time.time()) < 60


def test_offsets_are_from_the_callers_clocks() -> None:
    before = clocks()
    found = entered({"monotonic": 1500 * SECOND + 7, "boottime": -SECOND // 2})
    for value, old, offset in zip(
        found["clocks"], before, (1500 * SECOND + 7, -SECOND // 2), strict=True
    ):
        assert 0 <= value - old - offset < 60 * SECOND
    only = entered({"boottime": 0})
    assert only["clocks"][0] < 60 * SECOND
    assert 0 <= only["clocks"][1] - before[1] < 120 * SECOND


def test_one_in_another() -> None:
    """The kernel counts offsets from its own clocks, and ours are from those of the namespace we are in."""

    def outer() -> list[int]:
        timens.enter(mount.open_procfs(), {"monotonic": 10**6 * SECOND, "boottime": 10**6 * SECOND})
        shown = list(clocks())
        for offsets in ({"monotonic": 5 * SECOND, "boottime": 5 * SECOND}, {}):
            shown += entered(offsets)["clocks"]
        return shown

    first, same, later, _, fresh, zero = in_child(outer, CLONE_NEWTIME)
    assert 0 <= later - first - 5 * SECOND < 60 * SECOND
    assert same >= 10**6 * SECOND
    assert fresh < 60 * SECOND
    assert zero < 60 * SECOND


@pytest.mark.parametrize("dumpable", [True, False])
def test_in_a_user_namespace(*, dumpable: bool) -> None:
    """The new one belongs to it; the file belongs to the host's root while the process is not dumpable."""
    needs_root()

    def inside() -> tuple[tuple[int, int], int]:
        ready, go = os.pipe(), os.pipe()
        pid = os.fork()
        if not pid:
            os.read(ready[0], 1)
            maps = (userns.IdMap(inside=0, outside=100_000, count=65536),)
            userns.write_maps(os.getppid(), maps, maps)
            os.write(go[1], b"x")
            os._exit(0)
        procfs = mount.open_procfs()
        _sys.unshare(CLONE_NEWUSER)
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        os.waitpid(pid, 0)
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        _sys.prctl(process.PR_SET_DUMPABLE, int(dumpable))
        _sys.unshare(CLONE_NEWTIME)
        timens.enter(procfs, {})
        return clocks(), _sys.prctl(3)  # PR_GET_DUMPABLE

    shown, left = in_child(inside)
    assert all(0 <= value < 60 * SECOND for value in shown)
    assert left == int(dumpable)


def test_a_clock_below_zero() -> None:
    def inside() -> str:
        try:
            timens.enter(mount.open_procfs(), {"boottime": -(10**9) * SECOND})
        except KernelError as error:
            return error.message
        return ""

    assert in_child(inside, CLONE_NEWTIME) == (
        "set the clocks of the time namespace: Numerical result out of range"
    )


def test_what_is_lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    assert timens.lack(ALL) == ""
    assert "CAP_SYS_TIME" in timens.lack(ALL & ~capability.mask(("SYS_TIME",)))
    assert timens.is_shared(os.getpid())
    assert timens.joinable() == CLONE_NEWTIME
    monkeypatch.setattr(namespace, "is_there", lambda _: False)
    assert timens.lack(ALL) == "user.max_time_namespaces is 0"
    monkeypatch.setattr(timens, "has_kernel", lambda: False)
    assert timens.lack(ALL) == "the kernel has no time namespaces"
    assert timens.joinable() == 0
