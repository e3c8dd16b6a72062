"""`systemctl set-property` by both names of a limit: the one that was used last acts at once (S2, S4, S5).

In the guest: systemd translates the old names to v2 by itself as long as no new one is set.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable

import pytest
from containers import V1, Container, Containers, eventually, popen, systemctl
from lane import Sysbox

from sysbox import scope
from sysbox.base.errors import SystemdError
from sysbox.container import store
from sysbox.container.locks import Lock
from sysbox.host import probe
from sysbox.run import tuned
from sysbox.units.bus import Bus
from sysbox.units.limits import spellings
from sysbox.units.limits.io import bfq_weight
from sysbox.units.limits.properties import Property

MIB = 1 << 20
RATES = {"read": "rbps", "write": "wbps"}
FLAGS = ("-c", "512", "-m", "128m", "--blkio-weight", "500")
ENDS = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")

# what is set in one call, and what the kernel has then on v1 and on v2; the other limits stay
STEPS: tuple[tuple[tuple[str, ...], dict[str, tuple[int | None, int | None]]], ...] = (
    (
        ("CPUShares=128", "MemoryLimit=64M", "BlockIOWeight=250", "BlockIOWriteBandwidth=DISK 1M",
         "BlockIOReadBandwidth=DISK 2M"),
        {"cpu": (128, 12), "memory": (64 * MIB,) * 2, "block": (250, 50), "write": (1_000_000,) * 2,
         "read": (2_000_000,) * 2},
    ),
    (
        ("CPUWeight=300", "MemoryMax=96M", "IOWeight=180", "IOWriteBandwidthMax=DISK 3M",
         "IOReadBandwidthMax=DISK 4M"),
        {"cpu": (3072, 300), "memory": (96 * MIB,) * 2, "block": (900, 180), "write": (3_000_000,) * 2,
         "read": (4_000_000,) * 2},
    ),
    (
        ("CPUShares=256", "MemoryLimit=48M", "BlockIOWeight=300", "BlockIOWriteBandwidth=DISK 5M",
         "BlockIOReadBandwidth="),
        {"cpu": (256, 25), "memory": (48 * MIB,) * 2, "block": (300, 60), "write": (5_000_000,) * 2,
         "read": (None, None)},
    ),
    (
        ("CPUWeight=", "MemoryMax=infinity", "IOReadBandwidthMax=DISK 6M", "StartupIOWeight=30"),
        {"cpu": (1024, 100), "memory": (None, None), "read": (6_000_000,) * 2},
    ),
    (
        ("CPUWeight=75", "MemoryMax=80M", "IOWeight=150"),
        {"cpu": (768, 75), "memory": (80 * MIB,) * 2, "block": (750, 150)},
    ),
    # on v1 the last two are no use, and would make systemd ignore MemoryLimit and BlockIO*
    (("CPUShares=", "MemoryHigh=70M", "IOAccounting=yes"), {"cpu": (1024, 100)}),
    (
        ("StartupCPUWeight=50", "MemoryLimit=400M", "StartupBlockIOWeight=300"),
        {"memory": (400 * MIB,) * 2},
    ),
    (("CPUShares=130", "StartupCPUShares=700"), {"cpu": (130, 12)}),
)  # fmt: skip


def limits(one: Container) -> dict[str, object]:
    """What the kernel has."""
    if V1:
        shares, memory = (
            one.limit(*place.split("/"))
            for place in ("cpu/cpu.shares", "memory/memory.limit_in_bytes")
        )
        rates = [one.limit("blkio", f"blkio.throttle.{name}_bps_device") for name in RATES]
        found = [int(text.split()[1]) if text else None for text in rates]
        weight = one.limit("blkio", "blkio.bfq.weight")
        limited = int(memory) < 1 << 62
    else:
        shares, memory = one.limit("cpu", "cpu.weight"), one.limit("memory", "memory.max")
        words = dict(word.split("=") for word in one.limit("io", "io.max").split()[1:])
        texts = [words.get(RATES[name], "max") for name in RATES]
        found = [None if text == "max" else int(text) for text in texts]
        weight = one.limit("io", "io.weight").split()[1]
        limited = memory != "max"
    return {
        "cpu": int(shares),
        "memory": int(memory) if limited else None,
        "block": int(weight),
        **dict(zip(RATES, found, strict=True)),
    }


def settled(one: Container) -> bool:
    """Nothing is left to be said again by its other name."""
    found = spellings.last_assigned((each.changed, each.text) for each in tuned.drop_ins(one.id))
    return not spellings.translate(found, probe())


def has(one: Container, wanted: dict[str, object]) -> Callable[[], bool]:
    """Whether these are in force, and stay so."""
    return lambda: {name: limits(one)[name] for name in wanted} == wanted and settled(one)


def go_through(one: Container, disk: str) -> dict[str, object]:
    """Each step, and after it all limits; what they are at the end."""
    wanted = limits(one)
    for texts, changed in STEPS:
        settings = [text.replace("DISK", disk) for text in texts]
        systemctl("set-property", "--runtime", one.scope, *settings)
        wanted |= {name: values[0 if V1 else 1] for name, values in changed.items()}
        if V1 and "block" in changed:
            wanted["block"] = bfq_weight(changed["block"][0] or 0)
        eventually(has(one, wanted), f"{settings}: {wanted}, not {limits(one)}")
    return wanted


def check(one: Container, sysbox: Sysbox, disk: str, wanted: dict[str, object]) -> None:
    """What sysbox tells of it, and that systemd tells the same after a reload."""
    systemctl("daemon-reload")
    assert limits(one) == wanted
    done = sysbox("explain", "--format", "json", one.id)
    rows = {row["Limit"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert [row["Drift"] for row in rows.values() if row["Drift"]] == []
    assert done.returncode == 0
    for flag in ("--cpu-shares", "--memory", "--device-write-bps", "--blkio-weight"):
        assert rows[flag]["SetBy"].startswith("systemctl set-property, "), rows[flag]
    config = json.loads(one("inspect"))[0]["HostConfig"]
    assert (config["CpuShares"], config["Memory"]) == (130, wanted["memory"])
    assert config["BlkioDeviceWriteBps"] == [{"Path": disk, "Rate": wanted["write"]}]
    assert config["BlkioDeviceReadBps"] == [{"Path": disk, "Rate": wanted["read"]}]


ALONE = pytest.mark.v2_only("where systemd translates by itself as long as no new name is set")


@pytest.mark.parametrize(
    "flagged", [pytest.param(True, id="limited by run"), pytest.param(False, id="not", marks=ALONE)]
)
def test_the_last_name_acts(
    containers: Containers, sysbox: Sysbox, disk: str, flagged: bool
) -> None:
    """Every pair, in every order, on one container; a restart and an update go on from there."""
    flags = (*FLAGS, "--device-write-bps", f"{disk}:2mb") if flagged else ()
    one = containers(*flags, command=ENDS)
    wanted = go_through(one, disk)
    check(one, sysbox, disk, wanted)
    one("restart")
    assert limits(one) == wanted
    if flagged:
        systemctl("set-property", one.scope, "CPUWeight=50" if V1 else "CPUShares=512")
        one("update", "-c", "256", "--device-write-bps", f"{disk}:1mb")
        wanted |= {"cpu": 256 if V1 else 25, "write": MIB}
        assert limits(one) == wanted
        assert one.inspect("HostConfig.CpuShares") == 256


def test_in_the_foreground(containers: Containers, sysbox: Sysbox, image: str, disk: str) -> None:
    """The command that waits for it watches, with --rm too."""
    words = ("run", "--rm", "--name", "tuned-here", *FLAGS, image, *ENDS)
    with popen(*words) as command:
        try:
            one = containers.known("tuned-here")
            check(one, sysbox, disk, go_through(one, disk))
        finally:
            command.send_signal(signal.SIGTERM)
        assert command.wait() == 0


@pytest.mark.parametrize("flags", [FLAGS, (*FLAGS, "--rm")])
def test_before_the_monitor_watches(containers: Containers, flags: tuple[str, ...]) -> None:
    """What is set between the start of the scope and the monitor's watch acts like what comes later."""
    used, weight = ("CPUWeight", 75) if V1 else ("CPUShares", 768)
    told = (Property(name=used, signature="t", value=weight),)
    for _ in range(20):
        one = containers(*flags, verb=("create",))
        with Bus.connect() as bus, popen("start", one.id) as command:
            while command.poll() is None:
                with contextlib.suppress(SystemdError):  # there is no such scope yet
                    scope.set_properties(bus, one.scope, told)
                    break
            assert command.wait() == 0
        found = tuned.drop_ins(one.id)
        # the monitor comes after that; on a busy machine this process may be too late
        if found and found[0].changed < store.runtime(one.id).started_ns / 1e9:
            break
    else:
        pytest.fail("it was never set before the monitor watched")
    eventually(has(one, {"cpu": 768 if V1 else 75}), f"{used} acts, and is the last word")


def await_another(one: Container, first: int) -> None:
    eventually(lambda: one.pid not in (0, first), "it runs again")


def test_with_a_restart_policy(containers: Containers) -> None:
    """What systemd starts again is watched like the run before."""
    one = containers("--restart", "always", *FLAGS)
    used, other = ("CPUWeight=75", "CPUShares=90") if V1 else ("CPUShares=768", "CPUWeight=90")
    for _ in range(2):
        systemctl("set-property", one.scope, used)
        eventually(lambda: limits(one)["cpu"] == (768 if V1 else 75), f"{used} acts")
        systemctl("set-property", one.scope, other)
        eventually(lambda: limits(one)["cpu"] == 90, f"{other} acts")
        first = one.pid
        os.kill(first, signal.SIGKILL)
        await_another(one, first)
        assert limits(one)["cpu"] == 90


def test_one_after_the_other(containers: Containers) -> None:
    """A script that says both names without a pause: its last word acts."""
    one = containers(*FLAGS)
    for last, weight in (
        ("CPUWeight=300", 3072 if V1 else 300),
        ("CPUShares=200", 200 if V1 else 19),
    ):
        for text in ("CPUShares=128", "CPUWeight=75", "CPUShares=640", last):
            systemctl("set-property", one.scope, text)
        eventually(has(one, {"cpu": weight}), f"{last}, not {limits(one)}")


@pytest.mark.guest("old names are sysbox's to translate on v2")
def test_nobody_watches(containers: Containers) -> None:
    """A supervisor that does not act, as that of an older version: the next command that looks does."""
    one = containers(*FLAGS)
    monitor = int(systemctl("show", "-P", "MainPID", f"sysbox-{one.id}.service"))
    os.kill(monitor, signal.SIGSTOP)
    try:
        for text, shares, weight in (
            ("CPUWeight=75", 768, 768 if V1 else 75),
            ("CPUShares=130", 130, 130 if V1 else 12),
            ("CPUWeight=150", 1536, 1536 if V1 else 150),
        ):
            systemctl("set-property", one.scope, text)
            assert one.inspect("HostConfig.CpuShares") == shares
            assert limits(one)["cpu"] == weight
    finally:
        os.kill(monitor, signal.SIGCONT)


def test_who_looks_does_not_interfere(containers: Containers) -> None:
    """Two that said it again at once read what the other had half written, and no limit was left."""
    one = containers(*FLAGS)
    with Lock(one.id):
        systemctl("set-property", one.scope, "MemoryMax=50M" if V1 else "MemoryLimit=50M")
        before = tuned.drop_ins(one.id)
        one.inspect("HostConfig.Memory")
        assert tuned.drop_ins(one.id) == before
        assert not settled(one)
    eventually(has(one, {"memory": 50 * MIB}), "the monitor does it")
