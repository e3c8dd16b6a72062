"""Each limit in both versions of cgroups: what it becomes, what taking it away becomes, what is refused."""

from __future__ import annotations

import pytest
from test_units_limits_properties import DISKS, MIB, V1, V2, planned

from sysbox.base.errors import SpecError, SysboxError, Unsupported
from sysbox.host import HostFacts
from sysbox.security import device_rules
from sysbox.spec import Limits
from sysbox.units.limits import io, table
from sysbox.units.limits.network import check_links
from sysbox.units.limits.plan import plan_devices, plan_limits
from sysbox.units.limits.properties import INFINITY, CgroupWrite, Property

DRIVERS = """Character devices:
  1 mem
136 pts

Block devices:
  7 loop
  8 sd
 65 sd
"""


A, B = "/dev/sda", "/dev/sdb"


@pytest.mark.parametrize(
    ("limits", "on_v1", "on_v2"),
    [
        ({"cpu_idle": True}, {"cpu.idle": "1"}, {"CPUWeight": 0}),
        ({"memory_high": 8 * MIB}, None, {"MemoryHigh": 8 * MIB}),
        ({"memory_min": MIB}, None, {"MemoryMin": MIB}),
        ({"memory_swappiness": 0}, {"memory.swappiness": "0"}, None),
        ({"memory_swappiness": 100}, {"memory.swappiness": "100"}, None),
        ({"oom_kill_disable": True}, {"memory.oom_control": "1"}, None),
        ({"oom_policy": "stop"}, {}, {}),  # a property of the scope's life: see plan.py
        (
            {"blkio_weight_device": ((A, 1000),)},
            {"blkio.bfq.weight_device": "8:0 181"},
            {"IODeviceWeight": [(A, 200)]},
        ),
        (
            {"device_read_iops": ((A, 5), (B, 6))},
            {"blkio.throttle.read_iops_device": ["8:0 5", "8:16 6"]},
            {"IOReadIOPSMax": [(A, 5), (B, 6)]},
        ),
        (
            {"device_write_iops": ((B, (1 << 32) - 1),)},
            {"blkio.throttle.write_iops_device": "8:16 4294967295"},
            {"IOWriteIOPSMax": [(B, (1 << 32) - 1)]},
        ),
        # of two values for one disk the last counts
        (
            {"device_read_iops": ((A, 5), ("/dev/sda1", 6))},
            {"blkio.throttle.read_iops_device": "8:0 6"},
            {"IOReadIOPSMax": [(A, 5), ("/dev/sda1", 6)]},
        ),
        ({"net_cls": 0x100001}, {"net_cls.classid": "1048577"}, None),
        (
            {"hugetlb": (("2MB", 5 * MIB), ("1GB", 0))},
            {"hugetlb.2MB.limit_in_bytes": str(4 * MIB), "hugetlb.1GB.limit_in_bytes": "0"},
            {"hugetlb.2MB.max": str(4 * MIB), "hugetlb.1GB.max": "0"},
        ),
    ],
)
def test_each(
    limits: dict[str, object], on_v1: dict[str, object] | None, on_v2: dict[str, object] | None
) -> None:
    """None is "no, and what to use instead"."""
    for host, wanted in ((V1, on_v1), (V2, on_v2)):
        if wanted is None:
            with pytest.raises(Unsupported) as caught:
                plan_limits(Limits(**limits), host, DISKS)
            assert caught.value.hint
        else:
            assert _planned(host, limits) == wanted


def _planned(host: HostFacts, limits: dict[str, object]) -> dict[str, object]:
    """Like `planned`, with all the writes of one file."""
    found: dict[str, object] = planned(host, **limits)
    _, writes = plan_limits(Limits(**limits), host, DISKS)
    for name in {one.file for one in writes}:
        values = [one.value for one in writes if one.file == name]
        found[name] = values if len(values) > 1 else values[0]
    return found


def test_what_is_not_there_is_what_is_refused() -> None:
    """The table and the planner agree about what a version of cgroups does not have."""
    values = {
        "memory_high": 8 * MIB, "memory_min": MIB, "memory_swappiness": 1, "oom_kill_disable": True,
        "net_cls": 1,
    }  # fmt: skip
    for host in (V1, V2):
        missing = {one.field for one in table.TABLE if not one.setting(host).available}
        for field, value in values.items():
            if field in missing:
                with pytest.raises(Unsupported):
                    plan_limits(Limits(**{field: value}), host, DISKS)
            else:
                assert planned(host, **{field: value})
        assert missing <= set(values)


SOME: dict[str, object] = {
    "cpu_shares": 500, "nano_cpus": 10**9, "cpu_quota": 5000, "cpu_period": 5000, "cpu_idle": True,
    "cpuset_cpus": "1", "cpuset_mems": "0", "memory": 64 * MIB, "memory_reservation": 32 * MIB,
    "memory_high": 50 * MIB, "memory_min": MIB, "memory_swappiness": 3, "oom_kill_disable": True,
    "pids": 9, "blkio_weight": 300, "blkio_weight_device": ((A, 300),), "device_read_bps": ((A, 7),),
    "device_write_bps": ((A, 7),), "device_read_iops": ((A, 7),), "device_write_iops": ((A, 7),),
    "net_cls": 5, "hugetlb": (("2MB", 4 * MIB),), "ip_allow": ("localhost",), "ip_deny": ("any",),
    "ip_accounting": True,
}  # fmt: skip


@pytest.mark.parametrize("field", SOME)
def test_the_table_names_what_the_planner_sets(field: str) -> None:
    for host in (V1.replace(unified="/sys/fs/cgroup/unified"), V2):
        setting = table.by_field(field).setting(host)
        if not setting.available:
            continue
        found, writes = plan_limits(Limits(**{field: SOME[field]}), host, DISKS)
        names = {one.name for one in found}
        if setting.written:
            assert any(table.writes_to(setting, one) for one in writes)
            assert {one.controller for one in writes} <= {setting.controller}
        else:
            assert setting.bus_name in names


@pytest.mark.parametrize("field", ["ip_allow", "ip_deny", "ip_accounting"])
def test_packets_need_the_unified_hierarchy(field: str) -> None:
    """Or, to be filtered, links of the container's own."""
    limits = Limits(**{field: SOME[field]})
    legacy, hybrid = V1.replace(unified=""), V1.replace(unified="/sys/fs/cgroup/unified")

    def plan(host: HostFacts, mode: str) -> None:
        plan_limits(limits, host, DISKS)
        check_links(limits, host, mode)

    for mode in ("host", "container:x", "ns:/x", "bridge", "none"):
        plan(hybrid, mode)
        if field != "ip_accounting" and mode in ("bridge", "none"):
            plan(legacy, mode)
            continue
        with pytest.raises(Unsupported) as caught:
            plan(legacy, mode)
        assert caught.value.message.startswith(
            f"{table.by_field(field).flag}: this host has no unified"
        )
    assert plan_limits(limits, hybrid, DISKS) == plan_limits(limits, V2, DISKS)


def test_networks_are_reduced() -> None:
    """As systemd reduces them, so that what it has can be compared with what was asked."""
    found = planned(
        V2, ip_deny=("10.1.0.0/16", "10.0.0.0/8", "localhost"), ip_allow=("::1/128", "any")
    )
    assert found == {
        "IPAddressDeny": [
            (2, bytes((10, 0, 0, 0)), 8),
            (2, bytes((127, 0, 0, 0)), 8),
            (10, bytes(15) + b"\1", 128),
        ],
        "IPAddressAllow": [(2, bytes(4), 0), (10, bytes(16), 0)],
    }


@pytest.mark.parametrize("field", SOME)
def test_a_controller_the_host_lacks(field: str) -> None:
    """One clear line, before anything is made."""
    for host in (V1, V2):
        setting = table.by_field(field).setting(host)
        if not setting.available:
            continue
        if setting.controller == table.FILTER:
            continue  # no controller, see below
        rest = {name: at for name, at in host.controllers.items() if name != setting.controller}
        with pytest.raises(Unsupported) as caught:
            plan_limits(Limits(**{field: SOME[field]}), host.replace(controllers=rest), DISKS)
        message = caught.value.message
        assert message.startswith(table.by_field(field).flag)
        assert f"'{setting.controller}'" in message
        assert "\n" not in message


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"cpu_idle": True, "cpu_shares": 5}, ("--cpu-idle", "--cpu-shares")),
        ({"memory_swappiness": 101}, ("--memory-swappiness 101", "0 to 100")),
        ({"memory_high": 1}, ("--memory-high 1", "6m")),
        ({"memory": 8 * MIB, "memory_min": 9 * MIB}, ("--memory-min", "exceed --memory")),
        ({"device_read_iops": ((A, 0),)}, ("--device-read-iops /dev/sda:0", "above 0")),
        ({"device_write_iops": ((A, 1 << 32),)}, ("--device-write-iops", "1 to 4294967295")),
        ({"device_write_bps": ((A, 1 << 63),)}, ("--device-write-bps", "1 to ")),
        ({"blkio_weight_device": ((A, 9),)}, ("--blkio-weight-device /dev/sda", "10 to 1000")),
        ({"blkio_weight_device": ((B, 10),)}, ("--blkio-weight-device /dev/sdb",)),
        ({"hugetlb": (("4MB", 1),)}, ("--hugetlb 4MB=1", "no huge pages")),
        ({"hugetlb": (("2MB", -1),)}, ("--hugetlb 2MB=-1", "0 or more")),
    ],
)
def test_bad_values(limits: dict[str, object], words: tuple[str, ...]) -> None:
    for host in (V1, V2):
        with pytest.raises(SysboxError) as caught:
            plan_limits(Limits(**limits), host, DISKS)
        assert all(word in caught.value.message for word in words), caught.value.message


def test_a_class_is_32_bits() -> None:
    with pytest.raises(SpecError, match="1 to 4294967295"):
        plan_limits(Limits(net_cls=1 << 32), V1, DISKS)


def test_bfq_weights_are_systemds() -> None:
    """The two ends, the default and the break of its line (BFQ_WEIGHT of systemd)."""
    assert [io.bfq_weight(one) for one in (10, 100, 500, 1000)] == [10, 100, 136, 181]


def change(
    host: HostFacts, before: dict[str, object], after: dict[str, object]
) -> list[CgroupWrite]:
    """The writes that lead from one to the other."""
    _, old = plan_limits(Limits(**before), host, DISKS)
    _, new = plan_limits(Limits(**after), host, DISKS)
    limit = before.get("memory", INFINITY)
    assert isinstance(limit, int)
    return list(table.change_writes(old, new, limit))


@pytest.mark.parametrize(
    ("limits", "file", "value"),
    [
        ({"cpu_idle": True}, "cpu.idle", "0"),
        ({"cpuset_cpus": "1"}, "cpuset.cpus", ""),
        ({"cpuset_mems": "0"}, "cpuset.mems", ""),
        ({"memory": 64 * MIB}, "memory.memsw.limit_in_bytes", "-1"),
        ({"memory_reservation": 64 * MIB}, "memory.soft_limit_in_bytes", "-1"),
        ({"memory_swappiness": 5}, "memory.swappiness", ""),
        ({"oom_kill_disable": True}, "memory.oom_control", "0"),
        ({"blkio_weight_device": ((A, 300),)}, "blkio.bfq.weight_device", "8:0 default"),
        ({"device_read_iops": ((A, 7),)}, "blkio.throttle.read_iops_device", "8:0 0"),
        ({"device_write_iops": ((B, 7),)}, "blkio.throttle.write_iops_device", "8:16 0"),
        ({"net_cls": 5}, "net_cls.classid", "0"),
        ({"hugetlb": (("2MB", 4 * MIB),)}, "hugetlb.2MB.limit_in_bytes", "-1"),
    ],
)
def test_a_write_is_taken_back(limits: dict[str, object], file: str, value: str) -> None:
    """To what the kernel has without it; "" is the parent cgroup's."""
    (one,) = change(V1, limits, {})
    assert (one.file, one.value, one.inherit) == (file, value, value == "")
    assert change(V1, limits, limits) == (
        [one.replace(value="8:0 118")] if "weight" in file else []
    )


def test_huge_pages_without_limit_on_v2() -> None:
    (one,) = change(V2, {"hugetlb": (("2MB", 4 * MIB),)}, {})
    assert (one.file, one.value) == ("hugetlb.2MB.max", "max")


def test_one_disk_of_two() -> None:
    both: dict[str, object] = {"device_read_iops": ((A, 7), (B, 8))}
    (one,) = change(V1, both, {"device_read_iops": ((B, 8),)})
    assert one.value == "8:0 0"


def test_memory_and_swap_together_never_below_memory() -> None:
    """Raised before the memory limit, lowered after it; what is idle is woken before it has shares."""

    def order(before: int, after: int) -> bool:
        (one,) = change(V1, {"memory": before * MIB}, {"memory": after * MIB})
        return one.before

    assert order(64, 256)
    assert order(256, 128)  # 256 together is not below the 256 of memory
    assert not order(256, 64)
    assert change(V1, {"memory": 64 * MIB}, {})[0].before
    assert not change(V1, {}, {"memory": 64 * MIB})[0].before
    assert change(V1, {"cpu_idle": True}, {"cpu_shares": 300})[0].before


@pytest.mark.parametrize(
    ("name", "signature", "value"),
    [
        ("CPUShares", "t", INFINITY),
        ("CPUWeight", "t", INFINITY),
        ("MemoryMax", "t", INFINITY),
        ("MemoryLow", "t", 0),
        ("MemoryMin", "t", 0),
        ("IOReadIOPSMax", "a(st)", []),
        ("AllowedCPUs", "ay", b"\x03"),
        ("AllowedMemoryNodes", "ay", b"\x01"),
    ],
)
def test_not_set(name: str, signature: str, value: object) -> None:
    assert table.unset(name, signature, V2) == Property(name=name, signature=signature, value=value)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("c 1:3 rwm", [("/dev/char/1:3", "rwm")]),
        ("b 8:0 r", [("/dev/block/8:0", "r")]),
        ("c 0189:0 r", [("/dev/char/189:0", "r")]),
        ("b 8:* r", [("block-8", "r")]),
        ("c *:* m", [("char-*", "m")]),
        ("a *:* rwm", [("char-*", "rwm"), ("block-*", "rwm")]),
        ("char-pts rw", [("char-pts", "rw")]),
        ("block-sd r", [("block-sd", "r")]),
        ("block-* m", [("block-*", "m")]),
    ],
)
def test_device_rules(rule: str, expected: list[tuple[str, str]]) -> None:
    assert list(device_rules.rules((rule,), DRIVERS)) == expected
    plan_devices(tuple(expected))  # systemd takes them


@pytest.mark.parametrize(
    ("rule", "words"),
    [("c *:3 rwm", "one minor of every major"), ("char-sd r", "no driver"), ("block-pts r", "no driver")],
)  # fmt: skip
def test_device_rules_that_systemd_cannot_have(rule: str, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        device_rules.rules((rule,), DRIVERS)
    assert caught.value.hint


def test_rules_for_one_device_add_up() -> None:
    """As the kernel has it; systemd would take the last alone."""
    _, allow = plan_devices(
        (("/dev/char/1:3", "rwm"), ("/dev/char/1:3", "r"), ("char-7", "r"), ("char-7", "w"))
    )
    assert allow.value == [("/dev/char/1:3", "rwm"), ("char-7", "rw")]
