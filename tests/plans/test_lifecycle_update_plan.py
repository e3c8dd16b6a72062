"""update, decided: the specification as it is to be, and what a running scope is told. Pure."""

from __future__ import annotations

import pytest
from test_units_limits_properties import DISKS, MIB, V1, V2

from sysbox.base.errors import SpecError
from sysbox.host import HostFacts
from sysbox.lifecycle import update_plan
from sysbox.lifecycle.update_plan import Change, Delta
from sysbox.spec import ContainerSpec, Limits, Ulimit
from sysbox.units.limits.dropins import Tuning
from sysbox.units.limits.properties import INFINITY, Property


def spec(*properties: str, **limits: object) -> ContainerSpec:
    return ContainerSpec(image="x", limits=Limits(**limits), properties=properties)


def delta(
    before: ContainerSpec,
    change: Change,
    *,
    tuned: dict[str, str] | None = None,
    kept: dict[str, str] | None = None,
    found: dict[str, str] | None = None,
    host: HostFacts = V1,
) -> Delta:
    after = update_plan.change_spec(before, change, host, DISKS)
    about = update_plan.touched(change, host)
    tuning = Tuning(facts=host, found=found or {})
    return update_plan.delta((before, tuned or {}), (after, kept or {}), about, tuning, DISKS)


def told(one: Delta) -> list[tuple[str, object]]:
    return [(each.name, each.value) for each in one.properties]


def test_only_what_changes() -> None:
    """One limit of three; nothing is said of the others."""
    one = delta(spec(cpu_shares=512, memory=64 * MIB, pids=9), Change(limits={"cpu_shares": 256}))
    assert told(one) == [("CPUShares", 256)]
    assert one.writes == ()


def test_said_again() -> None:
    """What is asked for by name is set even if the record has it already: the scope may not."""
    before = spec(cpu_shares=512, cpuset_cpus="0")
    one = delta(before, Change(limits={"cpu_shares": 512, "cpuset_cpus": "0"}))
    assert told(one) == [("CPUShares", 512)]
    assert [(each.file, each.value) for each in one.writes] == [("cpuset.cpus", "0")]


@pytest.mark.parametrize(
    ("host", "properties"),
    [
        (V1, [("CPUShares", INFINITY), ("MemoryLimit", INFINITY), ("TasksMax", INFINITY)]),
        (
            V2,
            [("CPUWeight", INFINITY), ("MemoryMax", INFINITY), ("MemorySwapMax", INFINITY),
             ("TasksMax", INFINITY)],
        ),
    ],
)  # fmt: skip
def test_taken_away(host: HostFacts, properties: list[tuple[str, object]]) -> None:
    before = spec(cpu_shares=512, memory=64 * MIB, pids=9)
    change = Change(limits={"cpu_shares": None, "memory": None, "pids": None})
    assert sorted(told(delta(before, change, host=host))) == properties


def test_the_host_s_default() -> None:
    """Where nobody asks systemd limits the number of processes all the same."""
    before, after = spec(pids=9), spec()
    tuning = Tuning(facts=V1, defaults={"TasksMax": 1000})
    one = update_plan.delta((before, {}), (after, {}), frozenset(), tuning, {})
    assert told(one) == [("TasksMax", 1000)]


@pytest.mark.parametrize(
    ("before", "after", "early"), [(64, 256, True), (256, 64, False), (None, 64, False)]
)
def test_memory_and_swap_on_v1(before: int | None, after: int, early: bool) -> None:
    """Both together are raised before the memory and lowered after it: the kernel wants them in order."""
    had = spec(memory=before and before * MIB)
    one = delta(had, Change(limits={"memory": after * MIB}))
    assert told(one) == [("MemoryLimit", after * MIB)]
    (write,) = one.writes
    assert (write.file, write.value) == ("memory.memsw.limit_in_bytes", str(2 * after * MIB))
    assert write.before is early


def test_swap_on_v2() -> None:
    """The property is the swap alone."""
    one = delta(spec(memory=64 * MIB), Change(limits={"memory": 100 * MIB}), host=V2)
    assert told(one) == [("MemoryMax", 100 * MIB), ("MemorySwapMax", 100 * MIB)]
    before = spec(memory=64 * MIB, memory_swap=96 * MIB)
    one = delta(before, Change(limits={"memory": 80 * MIB}), host=V2)
    assert told(one) == [("MemoryMax", 80 * MIB), ("MemorySwapMax", 16 * MIB)]


@pytest.mark.parametrize(
    ("before", "limits", "hint"),
    [
        (spec(cpu_quota=20000), {"nano_cpus": 10**9}, "--cpu-quota unset"),
        (spec(nano_cpus=10**9), {"cpu_period": 50000}, "--cpus unset"),
        (spec(memory=64 * MIB, memory_swap=64 * MIB), {"memory": 65 * MIB}, "--memory-swap unset"),
        (spec(memory=64 * MIB, memory_swap=64 * MIB), {"memory": None}, "--memory-swap unset"),
    ],
)
def test_contradictions(before: ContainerSpec, limits: dict[str, object], hint: str) -> None:
    """With what the container has: the hint says which flag to give along."""
    with pytest.raises(SpecError) as error:
        update_plan.change_spec(before, Change(limits=limits), V1, DISKS)
    assert hint in error.value.hint


def test_a_list_is_set_anew() -> None:
    """systemd adds to the list what it is told: it is emptied first."""
    before = Property(
        name="BlockIOReadBandwidth", signature="a(st)", value=[("/dev/a", 1), ("/dev/b", 2)]
    )
    was = {before.name: before}
    assert update_plan.told(was, {}, frozenset(), Tuning(facts=V1)) == [before.replace(value=[])]
    now = {before.name: before.replace(value=[("/dev/b", 2)])}
    assert update_plan.told(was, now, frozenset(), Tuning(facts=V1)) == [
        before.replace(value=[]), now[before.name],
    ]  # fmt: skip


def test_entries() -> None:
    """An entry replaces that of its device, or takes it away; an emptied list may be filled again."""
    before = spec(device_read_bps=(("/dev/none1", 1), ("/dev/none2", 2)))
    entries = (("/dev/none1", None), ("/dev/none2", 5), ("/dev/none3", 3))
    after = update_plan.change_spec(before, Change(devices={"device_read_bps": entries}), V1, DISKS)
    assert after.limits.device_read_bps == (("/dev/none2", 5), ("/dev/none3", 3))
    change = Change(
        limits={"device_read_bps": ()}, devices={"device_read_bps": (("/dev/none4", 4),)}
    )
    assert update_plan.change_spec(before, change, V1, DISKS).limits.device_read_bps == (
        ("/dev/none4", 4),
    )


def test_networks() -> None:
    before = spec(ip_allow=("localhost", "192.0.2.0/24"))
    entries = (("192.0.2.0/24", None), ("2001:db8::/32", "2001:db8::/32"))
    after = update_plan.change_spec(before, Change(devices={"ip_allow": entries}), V2, DISKS)
    assert after.limits.ip_allow == ("localhost", "2001:db8::/32")
    delta = update_plan.delta((before, {}), (after, {}), frozenset(), Tuning(facts=V2), DISKS)
    assert [(one.name, len(one.value)) for one in delta.properties] == [
        ("IPAddressAllow", 0), ("IPAddressAllow", 3),
    ]  # fmt: skip


def test_device_rules() -> None:
    before = spec(device_rules=("c 1:3 rwm", "b 8:* r"))
    entries = (("c 1:3", "c 1:3 r"), ("b 8:*", None), ("c 5:1", "c 5:1 w"))
    change = Change(devices={"device_rules": entries})
    after = update_plan.change_spec(before, change, V1, DISKS)
    assert after.limits.device_rules == ("c 1:3 r", "c 5:1 w")
    assert update_plan.at_next_start(change, V1) == ("--device-cgroup-rule",)


def test_a_flag_and_its_property() -> None:
    """The last word counts: --property wins over a flag when it is newer, and only then."""
    before = spec("CPUWeight=50", "TasksMax=7", cpu_shares=100)
    after = update_plan.change_spec(before, Change(limits={"cpu_shares": 256}), V1, DISKS)
    assert after.properties == ("TasksMax=7",)
    change = Change(properties=(("CPUShares", "300"), ("TasksMax", None)))
    after = update_plan.change_spec(before, change, V1, DISKS)
    assert after.properties == ("CPUShares=300",)
    assert told(delta(before, change)) == [("TasksMax", INFINITY), ("CPUShares", 300)]


def test_ulimits() -> None:
    before = spec().replace(
        ulimits=(Ulimit(name="core", soft=0, hard=0), Ulimit(name="cpu", soft=1, hard=1))
    )
    change = Change(ulimits=(Ulimit(name="core", soft=5, hard=6),), no_ulimits=("cpu",))
    after = update_plan.change_spec(before, change, V1, DISKS)
    assert after.ulimits == (Ulimit(name="core", soft=5, hard=6),)


def test_what_others_have_set_gives_way() -> None:
    """Of the limit that is asked for, not of another."""
    one = delta(
        spec(cpu_shares=512),
        Change(limits={"cpu_shares": 512}),
        tuned={"CPUShares": "128", "TasksMax": "5"},
        kept={"TasksMax": "5"},
    )
    assert told(one) == [("CPUShares", 512)]


def test_forget() -> None:
    one = delta(
        spec(cpu_shares=512), Change(forget=True), tuned={"CPUShares": "128", "TasksMax": "5"}
    )
    assert told(one) == [("TasksMax", INFINITY), ("CPUShares", 512)]


def test_the_other_spelling_is_put_into_this_one() -> None:
    """While CPUWeight is set systemd heeds no CPUShares."""
    found = {"CPUWeight": "50", "MemoryMax": "", "TasksMax": "5"}
    one = delta(spec(), Change(limits={"cpu_shares": 256}), tuned={"CPUWeight": "50"}, found=found)
    assert told(one) == [("CPUWeight", INFINITY), ("CPUShares", 256)]
    one = delta(
        spec(), Change(limits={"pids": 7}), tuned={"CPUWeight": "50"}, kept={"CPUWeight": "50"}, found=found
    )  # fmt: skip
    assert told(one) == [("CPUWeight", INFINITY), ("TasksMax", 7), ("CPUShares", 512)]


def test_at_the_next_start() -> None:
    """What a scope takes only when it is made is not sent to one that runs."""
    change = Change(limits={"oom_policy": "stop"}, properties=(("TimeoutStopSec", "5"),))
    assert told(delta(spec(), change)) == []
    assert update_plan.at_next_start(change, V1) == ("--oom-policy", "--property TimeoutStopSec")


def test_memory_up_to_all_of_memory_and_swap() -> None:
    had = spec(memory=32 * MIB, memory_swap=64 * MIB)
    after = update_plan.change_spec(had, Change(limits={"memory": 64 * MIB}), V1, {})
    assert (after.limits.memory, after.limits.memory_swap) == (64 * MIB, 64 * MIB)
