"""Drop-ins of set-property: their syntax, and what of them others have set."""

from __future__ import annotations

import pytest
from hostfacts import facts

from sysbox.host import HostFacts
from sysbox.spec import Limits
from sysbox.units.limits import dropins
from sysbox.units.limits.plan import plan_limits
from sysbox.units.limits.properties import INFINITY, Property

MADE = """\
# This is a drop-in unit file extension, created via "systemctl set-property"
# or an equivalent operation. Do not edit.
[Scope]
"""


V1, V2 = facts("v1"), facts("v2")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (MADE + "CPUShares=128\n", [("CPUShares", "128")]),
        (
            MADE + "IOReadBandwidthMax=\nIOReadBandwidthMax=/dev/sda 1000000\n\n",
            [("IOReadBandwidthMax", ""), ("IOReadBandwidthMax", "/dev/sda 1000000")],
        ),
        ("[Scope]\nMemoryLimit=50.00%%\n", [("MemoryLimit", "50.00%")]),
        ("[Scope]\n  TasksMax = 7  \n; TasksMax=8\nnonsense\n=9\n", [("TasksMax", "7")]),
        ("[Scope]\nIPAddressDeny=10.0.0.0/8\\\n# between\n  any\n", [("IPAddressDeny", "10.0.0.0/8 any")]),
        ("[Unit]\nDescription=x\n[Service]\nCPUShares=3\n", []),
        ("CPUShares=128\n", []),
        ("", []),
        ("[Scope]\nCPUShares=1\\", [("CPUShares", "1")]),
    ],
)  # fmt: skip
def test_assignments(text: str, found: list[tuple[str, str]]) -> None:
    """systemd.syntax(7): sections, comments, continued lines, an empty value."""
    assert dropins.assignments(text) == found


def test_merge() -> None:
    """In the order of their names; an empty value resets what came before."""
    texts = [
        "[Scope]\nIPAddressDeny=10.0.0.0/8\nCPUShares=3\n",
        "[Scope]\nIPAddressDeny=192.0.2.0/24\n",
        "[Scope]\nCPUShares=\n",
    ]
    assert dropins.merge(texts) == {"IPAddressDeny": "10.0.0.0/8\n192.0.2.0/24", "CPUShares": ""}


@pytest.mark.parametrize(
    ("host", "key", "text", "name", "value"),
    [
        (V1, "CPUShares", "128", "CPUShares", 128),
        (V1, "CPUWeight", "50", "CPUShares", 512),
        (V2, "CPUShares", "512", "CPUWeight", 50),
        (V2, "CPUQuota", "20%", "CPUQuotaPerSecUSec", 200_000),
        (V1, "CPUQuotaPeriodSec", "50ms", "CPUQuotaPeriodUSec", 50_000),
        (V1, "MemoryLimit", "infinity", "MemoryLimit", INFINITY),
        (V1, "MemoryLimit", "50.00%", "MemoryLimitScale", 1 << 31),
        (V2, "AllowedCPUs", "0-1", "AllowedCPUs", b"\x03"),
        (
            V1, "BlockIOReadBandwidth", "/dev/a 1000\n/dev/b 2000",
            "BlockIOReadBandwidth", [("/dev/a", 1000), ("/dev/b", 2000)],
        ),
        (V1, "CPUShares", "", "CPUShares", None),
    ],
)  # fmt: skip
def test_to_property(host: HostFacts, key: str, text: str, name: str, value: object) -> None:
    """systemd's own spelling becomes this host's property."""
    one = dropins.to_property(key, text, host)
    assert (one.name, one.value) == (name, value)


def tuned(
    found: dict[str, str], asked: Limits, before: dict[str, str] | None = None, host: HostFacts = V1
) -> tuple[dict[str, str], tuple[str, ...]]:
    properties, _ = plan_limits(asked, host, {})
    tuning = dropins.Tuning(facts=host, found=found, defaults={"TasksMax": 1000})
    return dropins.sort_out(tuning, properties, before or {})


def test_what_was_asked_is_not_tuned() -> None:
    """update makes drop-ins too; the same value by another spelling is the same."""
    asked = Limits(cpu_shares=512, memory=64 << 20, pids=9)
    found = {"CPUShares": "512", "MemoryLimit": str(64 << 20), "TasksMax": "9"}
    assert tuned(found, asked) == ({}, ())
    assert tuned({"CPUWeight": "50"}, asked) == ({}, ())
    assert tuned({"CPUShares": "511"}, asked) == ({"CPUShares": "511"}, ())


def test_taken_away_is_not_tuned() -> None:
    """update clears a limit by the value that stands for none."""
    found = {
        "CPUShares": "",
        "MemoryLimit": "infinity",
        "TasksMax": "1000",
        "BlockIOReadBandwidth": "",
    }
    assert tuned(found, Limits()) == ({}, ())
    # more than the host gives by itself is somebody's wish, and so is none where some was asked for
    assert tuned({"TasksMax": "infinity"}, Limits()) == ({"TasksMax": "infinity"}, ())
    assert tuned({"CPUShares": ""}, Limits(cpu_shares=7)) == ({"CPUShares": ""}, ())


def test_the_other_spelling_unset_says_nothing() -> None:
    """update unsets CPUWeight where it sets CPUShares."""
    assert tuned({"CPUWeight": "", "CPUShares": "256"}, Limits(cpu_shares=256)) == ({}, ())
    assert tuned({"CPUShares": "", "CPUWeight": "20"}, Limits(), host=V2)[0] == {"CPUWeight": "20"}


def test_an_earlier_run_s_stays_until_it_is_changed() -> None:
    before = {"CPUShares": "128", "TasksMax": "7"}
    assert tuned({}, Limits(), before) == (before, ())
    assert tuned({"CPUWeight": "20"}, Limits(), before)[0] == {"CPUWeight": "20", "TasksMax": "7"}
    assert tuned({"CPUShares": "512"}, Limits(cpu_shares=512), before)[0] == {"TasksMax": "7"}


def test_not_kept() -> None:
    """What --property would not take, or this host has no use for."""
    found = {
        "DeviceAllow": "/dev/fuse rwm",
        "MemoryHigh": "100",
        "ExecStop": "/bin/x",
        "TasksMax": "?",
    }
    kept, ignored = tuned(found, Limits())
    assert kept == {}
    assert sorted(ignored) == ["DeviceAllow", "ExecStop", "MemoryHigh", "TasksMax"]


def test_overlay() -> None:
    """What was tuned comes over what was asked; what this host does not know is no reason to fail."""
    asked = (
        Property(name="CPUShares", signature="t", value=512),
        Property(name="MemoryLimit", signature="t", value=1 << 30),
        Property(name="TasksMax", signature="t", value=9),
    )
    over = {
        "CPUWeight": "20",
        "MemoryLimit": "50%",
        "TasksMax": "",
        "MemoryHigh": "3G",
        "What": "x",
    }
    result = {one.name: one.value for one in dropins.overlay(asked, over, V1)}
    assert result == {"CPUShares": 204, "MemoryLimitScale": 1 << 31}


def test_the_new_spelling_wins() -> None:
    """As in systemd, whatever the order."""
    for over in ({"CPUShares": "3", "CPUWeight": "20"}, {"CPUWeight": "20", "CPUShares": "3"}):
        assert [one.value for one in dropins.overlay((), over, V1)] == [204]


def test_without() -> None:
    over = {"CPUWeight": "20", "MemoryLimit": "50%", "TasksMax": "3"}
    assert dropins.without(over, ("CPUShares", "MemoryLimit"), V1) == {"TasksMax": "3"}


def test_the_property_that_is_heeded() -> None:
    """CPUShares counts for nothing while CPUWeight is set, and is what counts without."""
    live = {"CPUShares": 512, "CPUWeight": INFINITY}
    assert dropins.converted("CPUShares", live) == 512
    assert dropins.converted("CPUShares", live | {"CPUWeight": 20}) == 204
    rates = {"BlockIOReadBandwidth": [], "IOReadBandwidthMax": [("/dev/a", 5)]}
    assert dropins.converted("BlockIOReadBandwidth", rates) == [("/dev/a", 5)]
