"""`--property`: an allowlist, typed, in either spelling. Pure."""

from __future__ import annotations

import pytest
from test_units_limits_properties import MIB, V1, V2

from sysbox.base.errors import SpecError
from sysbox.units.limits import allowlist
from sysbox.units.limits.allowlist import parse_property
from sysbox.units.limits.properties import INFINITY


@pytest.mark.parametrize(
    ("text", "name", "signature", "value"),
    [
        ("CPUShares=512", "CPUShares", "t", 512),
        ("CPUWeight=50", "CPUShares", "t", 512),
        ("CPUQuota=150%", "CPUQuotaPerSecUSec", "t", 1_500_000),
        ("CPUQuotaPeriodSec=10ms", "CPUQuotaPeriodUSec", "t", 10_000),
        ("MemoryMax=64M", "MemoryLimit", "t", 64 * MIB),
        ("MemoryLimit=infinity", "MemoryLimit", "t", INFINITY),
        ("MemoryMax=50%", "MemoryLimitScale", "u", 2147483648),
        ("TasksMax=7", "TasksMax", "t", 7),
        ("IOWeight=100", "BlockIOWeight", "t", 500),
        ("IOReadBandwidthMax=/dev/sda 1M", "BlockIOReadBandwidth", "a(st)", [("/dev/sda", 10**6)]),
        ("IOAccounting=yes", "BlockIOAccounting", "b", True),
        ("TimeoutStopSec=1min 30s", "TimeoutStopUSec", "t", 90_000_000),
        ("CollectMode=inactive-or-failed", "CollectMode", "s", "inactive-or-failed"),
        (
            "IPAddressDeny=192.0.2.0/24 localhost",
            "IPAddressDeny",
            "a(iayu)",
            [
                (2, b"\xc0\x00\x02\x00", 24),
                (2, b"\x7f\0\0\0", 8),
                (10, b"\0" * 15 + b"\x01", 128),
            ],
        ),
    ],
)
def test_property_on_v1(text: str, name: str, signature: str, value: object) -> None:
    found = parse_property(text, V1)
    assert (found.name, found.signature, found.value) == (name, signature, value)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("CPUShares=128", "CPUWeight", 12),
        ("CPUWeight=idle", "CPUWeight", 0),
        ("MemoryLimit=64M", "MemoryMax", 64 * MIB),
        ("BlockIOWeight=1000", "IOWeight", 200),
        ("BlockIODeviceWeight=/dev/sda 300", "IODeviceWeight", [("/dev/sda", 60)]),
        ("IODeviceWeight=/dev/sda 300", "IODeviceWeight", [("/dev/sda", 300)]),
        ("BlockIOWriteBandwidth=/dev/sda 1M", "IOWriteBandwidthMax", [("/dev/sda", 10**6)]),
        ("AllowedCPUs=0-1", "AllowedCPUs", b"\x03"),
        ("MemoryHigh=1G", "MemoryHigh", 1 << 30),
        ("IOReadIOPSMax=/dev/sda 100", "IOReadIOPSMax", [("/dev/sda", 100)]),
        ("ManagedOOMMemoryPressureLimit=50%", "ManagedOOMMemoryPressureLimit", 2147483648),
        (
            "IODeviceLatencyTargetSec=/dev/sda 5ms",
            "IODeviceLatencyTargetUSec",
            [("/dev/sda", 5000)],
        ),
    ],
)
def test_property_on_v2(text: str, name: str, value: object) -> None:
    """The seeds' v1 names work on v2 by our own translation; systemd 258 has none."""
    found = parse_property(text, V2)
    assert (found.name, found.value) == (name, value)


# CVE-2024-3154: what would start a program, leave the slice, or lift the device rules
HOSTILE_KEYS = (
    "ExecStart ExecStop ExecStopPost OnFailure OnSuccess PropagatesStopTo PIDs Slice Delegate"
    " DelegateControllers DevicePolicy DeviceAllow User Group Controller SourcePath Documentation"
    " Requires Wants BindsTo PartOf Upholds Conflicts Before After RequiresMountsFor Conditions"
    " JobTimeoutAction FailureAction SuccessAction DefaultDependencies RefuseManualStop"
    " IPIngressFilterPath IPEgressFilterPath BPFProgram Description KillSignal KillMode SendSIGKILL"
    " DisableControllers Markers cpushares CPUSHARES"
).split()


@pytest.mark.parametrize("key", HOSTILE_KEYS)
def test_property_is_an_allowlist(key: str) -> None:
    for host in (V1, V2):
        for value in ("1", "/bin/sh", "yes"):
            with pytest.raises(SpecError) as caught:
                parse_property(f"{key}={value}", host)
            assert caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "CPUShares",
        "CPUShares=",
        "CPUShares=1",
        "CPUShares=512\nExecStart=/bin/sh",
        "CPUShares=0x200",
        "CPUShares=-1",
        "CPUShares=5e2",
        "CPUWeight=10001",
        "MemoryMax=lots",
        "MemoryMax=101%",
        "MemoryMax=-1",
        "CPUQuota=50",
        "CPUQuota=0%",
        "TasksMax=0",
        "OOMPolicy=reboot",
        "CollectMode=never",
        "IOWeight=/dev/sda 5",
        "IOReadBandwidthMax=sda 1M",
        "IOReadBandwidthMax=/dev/sda",
        "IOReadBandwidthMax=/dev/sda 0",
        "IOReadBandwidthMax=/dev/s\nda 1",
        "CPUAccounting=maybe",
        "IPAddressAllow=here",
        "IPAddressAllow=192.0.2.0/33",
        "CPUQuotaPeriodSec=10s",
        "TimeoutStopSec=0",
    ],
)
def test_bad_property_values(text: str) -> None:
    for host in (V1, V2):
        with pytest.raises(SpecError):
            parse_property(text, host)


def test_unknown_property_suggests_the_nearest() -> None:
    with pytest.raises(SpecError) as caught:
        parse_property("MemoryMaxx=1G", V2)
    assert "MemoryMax" in caught.value.hint


@pytest.mark.parametrize("key", [key for key, (_, old, _) in allowlist.KEYS.items() if not old])
def test_v2_only_property_on_v1_says_what_to_use(key: str) -> None:
    with pytest.raises(SpecError, match="needs v2") as caught:
        parse_property(f"{key}=0", V1)
    assert caught.value.hint
    assert "--" in caught.value.hint


def test_idle_weight_on_v1_names_the_flag() -> None:
    with pytest.raises(SpecError) as caught:
        parse_property("CPUWeight=idle", V1)
    assert "--cpu-idle" in caught.value.hint


# as `systemctl set-property` of systemd 252 writes them into drop-ins
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("CPUQuota=30%", 300_000),
        ("CPUQuotaPeriodSec=1ms 500us", 1500),
        ("MemoryLimit=100663296", 96 * MIB),
        ("MemoryLimit=infinity", INFINITY),
        ("CPUShares=128", 128),
        ("TasksMax=71", 71),
        ("TasksMax=infinity", INFINITY),
        ("BlockIOWriteBandwidth=/dev/vda 1000000", [("/dev/vda", 1000000)]),
        ("IOWriteBandwidthMax=/dev/vda 1000000", [("/dev/vda", 1000000)]),
        ("CPUAccounting=no", False),
    ],
)
def test_a_line_of_a_drop_in(text: str, value: object) -> None:
    assert parse_property(text, V1).value == value
