"""Which of two names for one limit was used last, and what systemd is told then."""

from __future__ import annotations

from typing import Any

import pytest
from hostfacts import facts

from sysbox.host import HostFacts
from sysbox.units.limits import spellings
from sysbox.units.limits.dropins import PAIRS
from sysbox.units.limits.properties import INFINITY, Property

V1, V2 = facts("v1"), facts("v2")
# values of one limit by both names, and what stands in the other's place
SAME = {
    "CPUShares": ("512", "50", 50, 512),
    "StartupCPUShares": ("512", "50", 50, 512),
    "MemoryLimit": ("4096", "8192", 4096, 8192),
    "BlockIOWeight": ("500", "100", 100, 500),
    "StartupBlockIOWeight": ("500", "100", 100, 500),
    "BlockIODeviceWeight": ("/dev/a 500", "/dev/a 100", [("/dev/a", 100)], None),
    "BlockIOReadBandwidth": ("/dev/a 7", "/dev/a 8", [("/dev/a", 7)], [("/dev/a", 8)]),
    "BlockIOWriteBandwidth": ("/dev/a 7", "/dev/a 8", [("/dev/a", 7)], [("/dev/a", 8)]),
    "BlockIOAccounting": ("yes", "yes", True, True),
}


def told(host: HostFacts, *said: tuple[float, str]) -> list[tuple[str, Any]]:
    """(name, value) in the order in which they are told; `said` is (time, KEY=VALUE)."""
    texts = ((changed, f"[Scope]\n{text}\n") for changed, text in said)
    return [
        (one.name, one.value) for one in spellings.translate(spellings.last_assigned(texts), host)
    ]


def test_every_pair_is_here() -> None:
    """A pair that is added to the table of properties is tried below."""
    assert {old for old, _ in PAIRS} == set(SAME)


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_the_last_one_counts(old: str, new: str) -> None:
    """In either order, alone, and once more what was told: that is a drop-in too, and changes nothing."""
    one, other, as_new, as_old = SAME[old]
    is_list = isinstance(as_new, list)
    first = [(old, [])] if is_list else []
    for said in ([(1.0, f"{old}={one}")], [(1.0, f"{new}={other}"), (2.0, f"{old}={one}")]):
        assert told(V2, *said) == [*first, (new, as_new)]
    assert told(V2, (1.0, f"{old}={one}"), (2.0, f"{new}={other}")) == []
    assert told(V2, (1.0, f"{new}={other}")) == []
    empty: Any = [] if is_list else False if old.endswith("Accounting") else INFINITY
    second = [] if as_old is None else [(old, as_old)]
    for said in ([(1.0, f"{new}={other}")], [(1.0, f"{old}={one}"), (2.0, f"{new}={other}")]):
        assert told(V1, *said) == [(new, empty), *second]
    assert told(V1, (1.0, f"{old}={one}")) == []
    if as_old is not None:
        # as a later old name has it, the new one is in its way; and the old one stays the last word
        again = told(V1, (1.0, f"{new}={other}"), (2.0, f"{old}={one}"))
        assert [name for name, _ in again] == [new, old]
        assert again[0] == (new, empty)


@pytest.mark.parametrize(
    ("host", "said", "wanted"),
    [
        # nothing is said by the name that was used last: nothing is limited
        (V2, [(1, "CPUWeight=300"), (2, "CPUShares=")], [("CPUWeight", INFINITY)]),
        (V2, [(2, "MemoryLimit=infinity")], [("MemoryMax", INFINITY)]),
        (V2, [(1, "CPUShares=128"), (2, "CPUWeight=")], [("CPUShares", INFINITY)]),
        (V2, [(1, "CPUWeight="), (2, "CPUShares=")], []),
        (V2, [(1, "CPUShares="), (2, "CPUWeight=")], []),
        (V2, [(1, "BlockIOAccounting=no")], []),
        (V1, [(1, "CPUShares=300"), (2, "CPUWeight=")], [("CPUShares", INFINITY)]),
        (V1, [(2, "MemoryMax=infinity")], [("MemoryLimit", INFINITY)]),
        (V1, [(1, "IOAccounting=no")], []),
        # what update and we ourselves tell in one call
        (V2, [(1, "CPUShares="), (1, "CPUWeight=300")], []),
        (V2, [(1, "CPUShares="), (2, "CPUWeight=300")], []),
        (V1, [(1, "CPUWeight="), (1, "CPUShares=300")], []),
        (V1, [(1, "CPUWeight="), (2, "CPUShares=300")], []),
        # of two in one call the new name counts
        (V2, [(1, "CPUShares=128"), (1, "CPUWeight=300")], []),
        (V1, [(1, "CPUShares=128"), (1, "CPUWeight=50")], [("CPUWeight", INFINITY), ("CPUShares", 512)]),
        # v1 cannot do it, and systemd would heed MemoryLimit and BlockIO* no more
        (V1, [(1, "MemoryHigh=4096"), (1, "MemoryLow=4096")], [("MemoryHigh", INFINITY), ("MemoryLow", 0)]),
        (V1, [(1, "IOReadIOPSMax=/dev/a 5")], [("IOReadIOPSMax", [])]),
        (V1, [(1, "IODeviceLatencyTargetSec=/dev/a 5ms")], [("IODeviceLatencyTargetUSec", [])]),
        (V1, [(1, "MemoryHigh=infinity"), (1, "MemoryLow=0"), (1, "IOReadIOPSMax=")], []),
        (V2, [(1, "MemoryHigh=4096")], []),
        # what neither of us knows is left alone
        (V1, [(1, "CPUWeight=idle")], []),
        (V2, [(1, "CPUShares=x"), (1, "TasksMax=3"), (1, "Nonsense=1")], []),
    ],
)  # fmt: skip
def test_what_is_told(
    host: HostFacts, said: list[tuple[float, str]], wanted: list[tuple[str, Any]]
) -> None:
    assert told(host, *said) == wanted


def test_two_drop_ins_of_a_key() -> None:
    """A share of the host's memory has a file of its own: the later one counts."""
    assert told(V2, (1, "MemoryLimit=4096"), (2, "MemoryLimit=50.00%%")) == [
        ("MemoryMaxScale", 1 << 31)
    ]


def test_what_is_set_again_is_unset_first() -> None:
    """Else the last drop-in takes the limit off, as a user would who says infinity."""
    limit, none = (
        Property(name=name, signature="t", value=value)
        for name, value in (("MemoryLimit", 4096), ("MemoryMax", INFINITY))
    )
    assert spellings.unset_first((limit, none), V1) == (none, limit)
    assert told(V1, (1, "MemoryLimit=4096"), (2, "MemoryMax=infinity")) == [
        ("MemoryLimit", INFINITY)
    ]
    assert told(V1, (1, "MemoryMax=infinity"), (2, "MemoryLimit=4096")) == []
