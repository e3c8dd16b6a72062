"""Limits → properties and writes, and the scope they are for: docker's meaning, systemd's names. Pure."""

from __future__ import annotations

import pytest
from hostfacts import facts

from sysbox.base import numbers
from sysbox.base.errors import SpecError
from sysbox.host import HostFacts
from sysbox.spec import ContainerSpec, Limits
from sysbox.units import scopeplan
from sysbox.units.limits import properties
from sysbox.units.limits.disks import Disk
from sysbox.units.limits.plan import plan_devices, plan_limits
from sysbox.units.limits.properties import INFINITY, CgroupWrite

ID = "0123456789abcdef" * 4
MIB = 1 << 20


V1, V2 = facts("v1"), facts("v2")

# a machine with /dev/sda (8:0), which BFQ schedules, and /dev/sdb (8:16)
SDA = Disk(node="/dev/sda", number="8:0", weighed=True)
DISKS = {
    "/dev/sda": SDA,
    "/dev/sda1": SDA,
    "/dev/sdb": Disk(node="/dev/sdb", number="8:16"),
    "/dev/none": Disk(reason="/dev/none: no such thing"),
}


def planned(host: HostFacts, **limits: object) -> dict[str, object]:
    """Properties by name, and writes by file."""
    found, writes = plan_limits(Limits(**limits), host, DISKS)
    names = [one.name for one in found]
    assert len(set(names)) == len(names)
    return {one.name: one.value for one in found} | {one.file: one.value for one in writes}


def test_nothing_asked_sets_nothing() -> None:
    """S2: cpu.shares is the kernel's 1024; S4: memory is unlimited."""
    for host in (V1, V2):
        assert planned(host) == {}


@pytest.mark.parametrize(
    ("host", "limits", "expected"),
    [
        (V1, {"cpu_shares": 512}, {"CPUShares": 512}),  # S2
        (V2, {"cpu_shares": 512}, {"CPUWeight": 50}),
        (V2, {"cpu_shares": 1024}, {"CPUWeight": 100}),
        (V2, {"cpu_shares": 2}, {"CPUWeight": 1}),
        (V2, {"cpu_shares": 262144}, {"CPUWeight": 10000}),
        (V1, {"cpu_shares": 0}, {}),
        (V1, {"cpuset_cpus": "0,1"}, {"cpuset.cpus": "0-1"}),  # S3
        (V1, {"cpuset_cpus": "1"}, {"cpuset.cpus": "1"}),
        (V2, {"cpuset_cpus": "0,1"}, {"AllowedCPUs": b"\x03"}),
        (V2, {"cpuset_mems": "0"}, {"AllowedMemoryNodes": b"\x01"}),
        (V1, {"cpuset_mems": "0"}, {"cpuset.mems": "0"}),
        (
            V1,  # S4: swap defaults to twice the memory
            {"memory": 128 * MIB},
            {"MemoryLimit": 134217728, "memory.memsw.limit_in_bytes": "268435456"},
        ),
        (V2, {"memory": 128 * MIB}, {"MemoryMax": 134217728, "MemorySwapMax": 134217728}),
        (V1, {"memory": 8 * MIB, "memory_swap": -1}, {"MemoryLimit": 8 * MIB}),
        (
            V2,
            {"memory": 8 * MIB, "memory_swap": -1},
            {"MemoryMax": 8 * MIB, "MemorySwapMax": INFINITY},
        ),
        (
            V2,
            {"memory": 8 * MIB, "memory_swap": 8 * MIB},
            {"MemoryMax": 8 * MIB, "MemorySwapMax": 0},
        ),
        (V2, {"memory_reservation": 64 * MIB}, {"MemoryLow": 64 * MIB}),
        (
            V1,
            {"memory_reservation": 64 * MIB},
            {"memory.soft_limit_in_bytes": str(64 * MIB)},
        ),
        (V1, {"pids": 20}, {"TasksMax": 20}),
        (V1, {"pids": -1}, {"TasksMax": INFINITY}),
        (V1, {"nano_cpus": 1_500_000_000}, {"CPUQuotaPerSecUSec": 1_500_000}),
        (V1, {"cpu_quota": 50_000}, {"CPUQuotaPerSecUSec": 500_000}),
        (V1, {"cpu_quota": -1}, {"CPUQuotaPerSecUSec": INFINITY}),
        (
            V1,
            {"cpu_quota": 10_000, "cpu_period": 20_000},
            {"CPUQuotaPeriodUSec": 20_000, "CPUQuotaPerSecUSec": 500_000},
        ),
        (V1, {"blkio_weight": 500}, {"BlockIOWeight": 500}),
        (V2, {"blkio_weight": 500}, {"IOWeight": 100}),
        (
            V1,  # S5
            {"device_write_bps": (("/dev/sda", MIB),), "device_read_bps": (("/dev/sda", 2 * MIB),)},
            {
                "BlockIOWriteBandwidth": [("/dev/sda", MIB)],
                "BlockIOReadBandwidth": [("/dev/sda", 2 * MIB)],
            },
        ),
        (
            V2,
            {"device_write_bps": (("/dev/sda", MIB),)},
            {"IOWriteBandwidthMax": [("/dev/sda", MIB)]},
        ),
    ],
)
def test_limits(host: HostFacts, limits: dict[str, object], expected: dict[str, object]) -> None:
    assert planned(host, **limits) == expected


def test_quota_is_a_whole_percent() -> None:
    """systemd writes CPUQuota= in whole percents: a finer value would change at daemon-reload."""
    assert planned(V1, nano_cpus=333_333_333) == {"CPUQuotaPerSecUSec": 340_000}
    assert planned(V1, cpu_quota=1001) == {"CPUQuotaPerSecUSec": 20_000}


def test_swap_asked_for_must_be_there_and_its_default_need_not() -> None:
    _, (default,) = plan_limits(Limits(memory=8 * MIB), V1, {})
    _, (asked,) = plan_limits(Limits(memory=8 * MIB, memory_swap=9 * MIB), V1, {})
    assert default == CgroupWrite(
        controller="memory",
        file="memory.memsw.limit_in_bytes",
        value=str(16 * MIB),
        optional=True,
    )
    assert not asked.optional


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"memory": 1024}, ("--memory 1024", "6m")),
        ({"memory": 8 * MIB, "memory_swap": 7 * MIB}, ("--memory-swap", "below --memory")),
        ({"memory_swap": 7 * MIB}, ("--memory-swap", "--memory must be given")),
        ({"memory": 8 * MIB, "memory_swap": -2}, ("--memory-swap -2", "-1")),
        ({"memory": 8 * MIB, "memory_reservation": 9 * MIB}, ("--memory-reservation", "exceed")),
        ({"memory_reservation": 1}, ("--memory-reservation 1", "6m")),
        ({"cpu_shares": 1}, ("--cpu-shares 1", "2 to 262144")),
        ({"cpu_shares": 262145}, ("--cpu-shares", "262144")),
        ({"cpu_period": 999}, ("--cpu-period 999", "1000 to 1000000")),
        ({"cpu_period": 1_000_001}, ("--cpu-period", "1000000")),
        ({"cpu_quota": 999}, ("--cpu-quota 999", "1000")),
        ({"cpu_quota": -2}, ("--cpu-quota -2", "-1")),
        ({"nano_cpus": 3_000_000_000}, ("--cpus 3", "0.01 to 2.00", "only 2 CPUs")),
        ({"nano_cpus": 10**9, "cpu_quota": 5000}, ("--cpus", "--cpu-quota")),
        ({"nano_cpus": 10**9, "cpu_period": 5000}, ("--cpus", "--cpu-period")),
        ({"cpuset_cpus": "0,2"}, ("--cpuset-cpus 0,2", "0-1")),
        ({"cpuset_cpus": "1-0"}, ("--cpuset-cpus",)),
        ({"cpuset_cpus": "0-999999"}, ("--cpuset-cpus",)),
        ({"cpuset_cpus": "0\n"}, ("--cpuset-cpus",)),
        ({"cpuset_cpus": "٣"}, ("--cpuset-cpus",)),
        ({"cpuset_mems": "1"}, ("--cpuset-mems 1", "has 0")),
        ({"pids": -2}, ("--pids-limit -2",)),
        ({"blkio_weight": 9}, ("--blkio-weight 9", "10 to 1000")),
        ({"blkio_weight": 1001}, ("--blkio-weight",)),
        ({"device_read_bps": (("/dev/sda", 0),)}, ("--device-read-bps /dev/sda:0", "above 0")),
    ],
)
def test_bad_limits_name_the_flag_and_the_range(
    limits: dict[str, object], words: tuple[str, ...]
) -> None:
    for host in (V1, V2):
        with pytest.raises(SpecError) as caught:
            plan_limits(Limits(**limits), host, DISKS)
        assert all(word in caught.value.message for word in words), caught.value.message


def test_list_and_mask() -> None:
    assert numbers.parse_list("--x", "0-2,5, 9") == [0, 1, 2, 5, 9]
    assert numbers.format_list([0, 1, 2, 5, 9]) == "0-2,5,9"
    assert numbers.bitmask([0, 9]) == b"\x01\x02"
    assert numbers.bitmask([7]) == b"\x80"


def test_devices() -> None:
    policy, allow = plan_devices((("/dev/null", "rwm"), ("char-*", "m")))
    assert (policy.name, policy.value) == ("DevicePolicy", "strict")
    assert (allow.signature, allow.value) == ("a(ss)", [("/dev/null", "rwm"), ("char-*", "m")])
    (policy,) = plan_devices(None)
    assert policy.value == "auto"
    for rule in (("/etc/passwd", "rwm"), ("/dev/null\nExecStart=/x", "r"), ("/dev/null", "x")):
        with pytest.raises(SpecError):
            plan_devices((rule,))


def scope(host: HostFacts = V1, service: str = "", **spec: object) -> scopeplan.ScopePlan:
    return scopeplan.plan_scope(
        ID,
        ContainerSpec(image="debian:12", **spec),
        properties=plan_limits(spec.get("limits", Limits()), host, DISKS)[0],
        writes=(),
        devices=(("/dev/null", "rwm"),),
        facts=host,
        service=service,
        disks=DISKS,
    )


def values(plan: scopeplan.ScopePlan) -> dict[str, object]:
    return {one.name: one.value for one in plan.properties}


def test_scope() -> None:
    plan = scope(name="web")
    assert plan.unit == f"docker-{ID}.scope"
    assert plan.slice == "system.slice"
    assert plan.description == "sysbox container web (debian:12)"
    found = values(plan)
    assert found["Delegate"] is True
    assert found["DefaultDependencies"] is True
    assert found["DevicePolicy"] == "strict"
    assert found["CollectMode"] == "inactive"
    assert found["OOMPolicy"] == "kill"
    assert found["TimeoutStopUSec"] == 10_000_000
    assert "IOAccounting" not in found  # it would switch every BlockIO* setting off
    assert "Before" not in found


def test_scope_of_a_service_is_stopped_after_it() -> None:
    found = values(scope(service=f"sysbox-{ID}.service"))
    assert found["Before"] == [f"sysbox-{ID}.service"]
    assert (
        "PropagatesStopTo" not in found
    )  # the service's own: it outlives a scope that is replaced


def test_scope_of_a_container_that_leaves_nothing() -> None:
    assert values(scope(remove=True))["CollectMode"] == "inactive-or-failed"


def test_stop_timeout_of_zero_and_of_for_ever() -> None:
    assert values(scope(stop_timeout=-1))["TimeoutStopUSec"] == INFINITY
    assert 0 < values(scope(stop_timeout=0))["TimeoutStopUSec"] < 10_000  # 0 is "never" to systemd


def test_description_is_one_short_line() -> None:
    text = scopeplan.describe("a\nExecStart=/bin/sh\x1b[1m", "i" * 4000)
    assert text.isprintable()
    assert len(text) <= 200


def test_property_wins_over_the_flag() -> None:
    plan = scope(limits=Limits(cpu_shares=512), properties=("CPUShares=256",))
    assert [one.value for one in plan.properties if one.name == "CPUShares"] == [512, 256]


def test_device_limits_are_on_whole_disks() -> None:
    plan = scope(
        limits=Limits(device_read_bps=(("/dev/sda1", 5),)),
        properties=("BlockIOWriteBandwidth=/dev/sdb 7",),
    )
    assert values(plan)["BlockIOReadBandwidth"] == [("/dev/sda", 5)]
    assert values(plan)["BlockIOWriteBandwidth"] == [("/dev/sdb", 7)]
    for text in ("BlockIOReadBandwidth=/dev/none 1", "IOReadBandwidthMax=/dev/none 1"):
        with pytest.raises(SpecError, match="--device-read-bps /dev/none: no such thing"):
            scope(properties=(text,))


def test_slice() -> None:
    plan = scope(slice="web")
    assert plan.slice == "web.slice"
    assert plan.keeper is None
    keeper = scope().keeper
    assert keeper is not None
    assert keeper.directory == "/sys/fs/cgroup/systemd/system.slice/system-sysbox.slice"
    with pytest.raises(SpecError):
        scope(slice="../etc")


@pytest.mark.parametrize("text", ["0-8192", "99999", "3-1", "-1", "1-", "a", "", "0,,1", "²"])
def test_a_list_of_the_kernel_s_is_checked(text: str) -> None:
    with pytest.raises(SpecError, match="--x"):
        numbers.parse_list("--x", text)


def test_the_highest_cpu() -> None:
    assert numbers.parse_list("--x", "8191") == [8191]


@pytest.mark.parametrize(
    ("io", "block"), [(1, 10), (2, 10), (100, 500), (200, 1000), (10000, 1000)]
)
def test_a_weight_stays_in_the_range_of_the_other_property(io: int, block: int) -> None:
    """10 to 1000 of BlockIOWeight=, systemd.resource-control(5)."""
    assert properties.blkio_weight_of_io(io) == block
