"""The command line of update: what it sets, what it takes away, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest

from sysbox.base.errors import SpecError, UsageError
from sysbox.cli.commands import update
from sysbox.cli.parse import hot
from sysbox.cli.table.verbs import VERBS
from sysbox.lifecycle.update_plan import Change
from sysbox.spec import Ulimit

MIB = 1 << 20


def parse(*words: str) -> Change:
    return update.parse(hot.parse(VERBS["update"], [*words, "web"]))


@pytest.mark.parametrize(
    ("words", "limits"),
    [
        ("-c 512 --cpus 0.5", {"cpu_shares": 512, "nano_cpus": 500_000_000}),
        ("-m 64m --memory-swap -1", {"memory": 64 * MIB, "memory_swap": -1}),
        ("-c unset --cpus 0 --cpu-period -1", {"cpu_shares": None, "nano_cpus": None, "cpu_period": None}),
        ("--memory unset --memory-swap 0", {"memory": None, "memory_swap": None}),
        # values of their own, which elsewhere mean none
        ("--pids-limit -1 --cpu-quota -1", {"pids": -1, "cpu_quota": -1}),
        ("--pids-limit unset --cpu-quota 0", {"pids": None, "cpu_quota": None}),
        ("--cpuset 0 --cpuset-mems 0", {"cpuset_cpus": "0", "cpuset_mems": "0"}),
        ("--memory-swappiness 0", {"memory_swappiness": 0}),
        ("--memory-swappiness -1", {"memory_swappiness": None}),
        ("--cpu-idle", {"cpu_idle": True}),
        ("--cpu-idle=false", {"cpu_idle": None}),
        ("--oom-policy unset", {"oom_policy": None}),
        ("--device-read-bps unset --hugetlb unset", {"device_read_bps": (), "hugetlb": ()}),
    ],
)  # fmt: skip
def test_limits(words: str, limits: dict[str, Any]) -> None:
    """Only what is named; docker's 0 and -1 where it has them."""
    assert parse(*words.split()) == Change(limits=limits)


def test_the_limit_of_kernel_memory_is_none(capfd: pytest.CaptureFixture[str]) -> None:
    """docker's scripts may give it, also alone."""
    values = hot.parse(VERBS["update"], ["--kernel-memory", "64m", "web"])
    assert update.parse(values, anything=True) == Change()
    assert capfd.readouterr().err.startswith("sysbox: --kernel-memory has no effect: ")


def test_empty_clears() -> None:
    """As docker has it for sets of CPUs."""
    assert parse("--cpuset-cpus=").limits == {"cpuset_cpus": None}


@pytest.mark.parametrize(
    ("words", "devices"),
    [
        (
            "--device-read-bps /dev/sda:1m --device-read-bps /dev/sdb:unset",
            {"device_read_bps": (("/dev/sdb", None), ("/dev/sda", MIB))},
        ),
        ("--device-write-iops /dev/sda:0", {"device_write_iops": (("/dev/sda", None),)}),
        ("--blkio-weight-device /dev/sda:20", {"blkio_weight_device": (("/dev/sda", 20),)}),
        ("--hugetlb 2MB=unset", {"hugetlb": (("2MB", None),)}),
        (
            "--ip-deny 10.1.2.3/8:unset --ip-deny fd00::0 --ip-deny any",
            {"ip_deny": (("10.0.0.0/8", None), ("fd00::/128", "fd00::/128"), ("any", "any"))},
        ),
        ("--ip-allow fd00::1:unset", {"ip_allow": (("fd00::1/128", None),)}),
    ],
)
def test_devices(words: str, devices: dict[str, Any]) -> None:
    """An entry, or that it goes."""
    assert parse(*words.split()).devices == devices


def test_bandwidth() -> None:
    change = parse("--network-bandwidth", "up=1mbit,down=unset")
    assert change == Change(bandwidth={"up": 125_000, "down": 0})


def test_unset_first_and_then_more() -> None:
    """A list is replaced by emptying it in the same command."""
    change = parse("--device-read-bps", "unset", "--device-read-bps", "/dev/sda:1m")
    assert change == Change(
        limits={"device_read_bps": ()}, devices={"device_read_bps": (("/dev/sda", MIB),)}
    )


def test_device_rules() -> None:
    change = parse("--device-cgroup-rule", "c 1:3 rw", "--device-cgroup-rule", "b 8:0:unset")
    assert change.devices == {"device_rules": (("b 8:0", None), ("c 1:3", "c 1:3 rw"))}


def test_ulimits_and_properties() -> None:
    change = parse(
        "--ulimit", "nofile=3:4", "--ulimit", "core=unset",
        "--property", "TasksMax=5", "--property", "MemoryHigh=unset",
    )  # fmt: skip
    assert change == Change(
        ulimits=(Ulimit(name="nofile", soft=3, hard=4),),
        no_ulimits=("core",),
        properties=(("TasksMax", "5"), ("MemoryHigh", None)),
    )


@pytest.mark.parametrize(
    "words",
    [
        ["-c", "many"],
        ["--cpus", "-2"],
        ["--ulimit", "nothing=unset"],
        ["--property", "TasksMax"],
        ["--device-read-bps", "sda:1m"],
        ["--device-cgroup-rule", "c 1:3"],
    ],
)
def test_bad(words: list[str]) -> None:
    with pytest.raises(SpecError):
        parse(*words)


def test_nothing() -> None:
    with pytest.raises(UsageError, match="nothing to change"):
        parse()
