"""The filter at the end of a link: the program's shape; tests/host/test_spoofing.py sends packets."""

from __future__ import annotations

import struct

import pytest

from sysbox.netns import port_filter

MAC = "02:00:00:00:00:01"


@pytest.mark.parametrize("addresses", [(), ("10.90.0.2",), ("10.90.0.2", "fd00::2")])
def test_every_way_through_it_ends(addresses: tuple[str, ...]) -> None:
    """Jumps lead forward, to an instruction; every last one is a verdict."""
    code = port_filter.program(MAC, addresses)
    made = list(struct.iter_unpack("=HBBI", code))
    for at, (kind, yes, no, operand) in enumerate(made):
        if kind == 0x06:
            assert operand in (0xFFFFFFFF, 2)
        elif kind in (0x15, 0x35):
            assert max(at + yes, at + no) + 1 < len(made)
    assert made[-1][0] == 0x06


def test_it_does_not_grow_beyond_what_a_jump_reaches() -> None:
    with_six = port_filter.program(MAC, ("10.90.0.2", "fd00::2"))
    assert len(with_six) // 8 < 128
