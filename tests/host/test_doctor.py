"""`sysbox doctor` says what holds here: what it calls possible works, what it denies does not.

In the guest: other limits are possible on v2, and the kernel has other parts.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from containers import V1
from lane import SYSBOX, TIMEOUT, Sysbox

from sysbox.base import paths
from sysbox.units.limits.table import TABLE

# flag -> values that a container can have anywhere; DISK is a loop device
SAMPLES = {
    "--cpu-shares": "512",
    "--cpus": "0.5",
    "--cpu-quota": "50000",
    "--cpu-period": "50000",
    "--cpuset-cpus": "0",
    "--cpuset-mems": "0",
    "--memory": "64m",
    "--memory-swap": "128m",
    "--memory-reservation": "32m",
    "--pids-limit": "100",
    "--blkio-weight": "300",
    "--device-read-bps": "DISK:1mb",
    "--device-write-bps": "DISK:1mb",
    "--device-read-iops": "DISK:100",
    "--device-write-iops": "DISK:100",
    "--blkio-weight-device": "DISK:300",
    "--cpu-idle": "",
    "--memory-high": "48m",
    "--memory-min": "8m",
    "--memory-swappiness": "10",
    "--oom-kill-disable": "",
    "--oom-policy": "continue",
    "--device-cgroup-rule": "c 1:3 rwm",
    "--net-cls": "0x10001",
    "--hugetlb": "2MB=4m",
    "--ip-allow": "localhost",
    "--ip-deny": "any",
    "--ip-accounting": "",
}
WITH = {"--memory-swap": ("-m", "64m")}  # flags that mean something only beside others


def examine(sysbox: Sysbox, *flags: str) -> list[dict[str, Any]]:
    done = sysbox("doctor", "--format", "json", *flags)
    return [json.loads(line) for line in done.stdout.splitlines()]


def in_a_mount_namespace(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A shell script where what is mounted and unmounted is nobody else's business."""
    return subprocess.run(
        ["unshare", "-m", "sh", "-ec", script],
        capture_output=True, text=True, check=False, timeout=TIMEOUT,
        env={**os.environ, "SYSBOX": str(SYSBOX), **environment},
    )  # fmt: skip


@pytest.mark.guest("what v2 and SELinux have")
def test_a_host_that_runs_containers(sysbox: Sysbox) -> None:
    """All that is essential is there, in one table, and the status says so."""
    done = sysbox("doctor", check=True)
    assert done.stdout.startswith("AREA")
    assert "missing" not in done.stdout
    assert ("cgroup v1" if V1 else "cgroup v2") in done.stdout
    found = examine(sysbox)
    assert len(found) == len(done.stdout.splitlines()) - 1
    assert {one["State"] for one in found} <= {"yes", "written", "no effect", "no"}
    # a "no" has its reason
    assert [one for one in found if one["State"] == "no" and not one["Detail"]] == []
    network = {one["Name"]: one["State"] for one in found if one["Area"] == "network"}
    assert network["address filter"] == network["bandwidth"] == "yes"
    limits = [one["Name"] for one in found if one["Area"] == "limit"]
    assert limits == [one.flag for one in TABLE]


def test_each_limit_is_as_it_says(sysbox: Sysbox, image: str, disk: str) -> None:
    """A flag that it calls possible is taken by `run`, one that it denies is refused."""
    with weighing(disk):
        wrong = disagreements(sysbox, image, disk)
    assert wrong == []


@contextlib.contextmanager
def weighing(disk: str) -> Iterator[None]:
    """The disk's scheduler is one that heeds weights, where the kernel has it."""
    scheduler = Path("/sys/block", Path(disk).name, "queue/scheduler")
    before = scheduler.read_text(encoding="ascii")
    if "bfq" in before:
        scheduler.write_text("bfq", encoding="ascii")
    yield
    scheduler.write_text(before.partition("[")[2].partition("]")[0], encoding="ascii")


def disagreements(sysbox: Sysbox, image: str, disk: str) -> list[Any]:
    wrong = []
    for one in examine(sysbox):
        if one["Area"] != "limit":
            continue
        flag = one["Name"]
        value = SAMPLES[flag].replace("DISK", disk)
        words = (*WITH.get(flag, ()), f"{flag}={value}" if value else flag)
        done = sysbox("run", "--rm", "--network", "none", *words, image, "true")
        if (done.returncode == 0) != (one["State"] != "no"):
            wrong.append((words, one, done.stderr))
    return wrong


@pytest.mark.v1_only("a controller of v1 is unmounted")
def test_a_controller_that_is_not_mounted() -> None:
    """The controller and the flags that need it: no, why, and what to do."""
    template = "|".join(f"{{{{.{key}}}}}" for key in ("Name", "State", "Detail", "Advice"))
    done = in_a_mount_namespace(
        f"umount /sys/fs/cgroup/pids; exec $SYSBOX doctor --format '{template}'"
    )
    lines = dict(line.split("|", 1) for line in done.stdout.splitlines())
    reason = (
        "no|the controller pids is not mounted|mount -t cgroup -o pids cgroup /sys/fs/cgroup/pids"
    )
    assert lines["pids"] == lines["--pids-limit"] == reason
    assert done.returncode == 0, done.stdout


def test_where_there_is_no_systemd() -> None:
    """It still answers, says what is missing, and its status is 1."""
    done = in_a_mount_namespace(
        "mount -t tmpfs none /run/systemd; exec $SYSBOX doctor", SYSBOX_HOST="system"
    )
    assert done.returncode == 1, done.stderr
    line = next(line for line in done.stdout.splitlines() if " systemd " in line)
    assert "missing" in line
    assert "PID 1 is not systemd" in line


def test_not_root(requires: Any) -> None:
    """Whoever is not root is told that it takes root."""
    requires.program("setpriv")
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", SYSBOX, "doctor"],
        capture_output=True, text=True, check=False, timeout=TIMEOUT, cwd="/",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    line = next(line for line in done.stdout.splitlines() if " root " in line)
    assert "missing" in line
    assert "only root runs containers" in line


@pytest.mark.parametrize(
    ("verb", "package"),
    [("info", "pystemd"), ("doctor", "pystemd"), ("doctor", "pyroute2"), ("help", "click")],
)
def test_the_packages_that_a_verb_is_made_with(verb: str, package: str) -> None:
    main = Path(paths.LIBEXEC).parent / "_main.py"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "utf8", "-X", "importtime", main, SYSBOX, verb],
        capture_output=True, text=True, check=True, timeout=TIMEOUT,
    )  # fmt: skip
    assert f" {package}\n" in done.stderr
