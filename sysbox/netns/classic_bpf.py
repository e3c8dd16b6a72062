"""Programs of classic BPF for a link (bpf(4) of BSD, linux/filter.h, tc-bpf(8)), put together by name. Pure.

A program runs on each Ethernet frame, and its result is the verdict of the kernel's traffic control.
"""

from __future__ import annotations

import _struct

PASS, DROP = 0xFFFFFFFF, 2  # TC_ACT_UNSPEC: the next filter decides; TC_ACT_SHOT
MOST = 4096  # instructions: BPF_MAXINSNS
SIZE = 8  # bytes of an instruction

# instructions (linux/filter.h)
LOAD4, LOAD2, LOAD1 = 0x20, 0x28, 0x30
_LENGTH, _AND, _GO = 0x80, 0x54, 0x05
_EQUAL, _AT_LEAST, _RETURN = 0x15, 0x35, 0x06
_INSTRUCTION = _struct.Struct("=HBBI")
VLAN_TAG = 0xFFFFF000 + 48  # SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT
# offsets in an Ethernet frame
SOURCE_MAC, TYPE = 6, 12
IP4, ARP, IP6 = 0x0800, 0x0806, 0x86DD
IP4_SOURCE, IP4_DESTINATION, IP4_LEAST = 26, 30, 34
IP6_NEXT, IP6_HOPS, IP6_SOURCE, IP6_DESTINATION, IP6_PAYLOAD = 20, 21, 22, 38, 54
ICMP6 = 58  # the next header


class Code:
    """Instructions with named targets, which are all further down; all but `goto` reach 255 instructions."""

    def __init__(self) -> None:
        self._made: list[tuple[int, str, str, int]] = []  # code, target if true, if not, operand
        self._labels: dict[str, int] = {}
        self._far: dict[int, str] = {}  # index of a `goto` -> its target
        self._names = 0

    def label(self, name: str) -> None:
        """Name the next instruction."""
        self._labels[name] = len(self._made)

    def load(self, size: int, offset: int) -> None:
        """Load from the frame; beyond its end the program ends, and the frame passes: see `at_least`."""
        self._made.append((size, "", "", offset))

    def when(self, value: int, target: str) -> None:
        """Go to `target` if what was loaded is `value`."""
        self._made.append((_EQUAL, target, "", value))

    def unless(self, value: int, target: str) -> None:
        """Go to `target` if it is not."""
        self._made.append((_EQUAL, "", target, value))

    def at_least(self, length: int) -> None:
        """Drop a shorter frame."""
        self._made.append((_LENGTH, "", "", 0))
        enough = self._unused()
        self._made.append((_AT_LEAST, enough, "", length))
        self.give(DROP)
        self.label(enough)

    def goto(self, target: str) -> None:
        """Go on there, however far it is."""
        self._made.append((_GO, "", "", 0))
        self._far[len(self._made) - 1] = target

    def give(self, verdict: int) -> None:
        """End with a verdict."""
        self._made.append((_RETURN, "", "", verdict))

    def equal_bytes(self, offset: int, value: bytes, otherwise: str) -> None:
        """Go on if the frame has these bytes, of which there are a multiple of two."""
        at = 0
        while at < len(value):
            size = 4 if len(value) - at >= 4 else 2
            self.load(LOAD4 if size == 4 else LOAD2, offset + at)
            self.unless(int.from_bytes(value[at : at + size], "big"), otherwise)
            at += size

    def any_of(self, offset: int, values: list[bytes], then: str) -> None:
        """Go to `then` if the frame has one of these values."""
        for value in values:
            other = self._unused()
            *most, last = [value[at : at + 4] for at in range(0, len(value), 4)]
            for number, word in enumerate(most):
                self.load(LOAD4, offset + number * 4)
                self.unless(int.from_bytes(word, "big"), other)
            self.load(LOAD4, offset + len(most) * 4)
            self.when(int.from_bytes(last, "big"), then)
            self.label(other)

    def within(self, offset: int, network: bytes, bits: int, verdict: int) -> None:
        """End with a verdict if the address at `offset` is in a network; it needs no label."""
        other = self._unused()
        for at in range(0, len(network), 4):
            width = min(max(bits - at * 8, 0), 32)
            if not width:
                break
            mask = (0xFFFFFFFF << (32 - width)) & 0xFFFFFFFF
            self.load(LOAD4, offset + at)
            if width < 32:
                self._made.append((_AND, "", "", mask))
            self.unless(int.from_bytes(network[at : at + 4], "big") & mask, other)
        self.give(verdict)
        self.label(other)

    def _unused(self) -> str:
        self._names += 1
        return f"other {self._names}"

    @property
    def length(self) -> int:
        """In instructions, so far."""
        return len(self._made)

    def assemble(self) -> bytes:
        """The program, as an array of struct sock_filter."""

        def distance(at: int, target: str) -> int:
            return self._labels[target] - at - 1 if target else 0

        for at, target in self._far.items():
            self._made[at] = (_GO, "", "", distance(at, target))
        return b"".join(
            _INSTRUCTION.pack(code, distance(at, yes), distance(at, no), operand)
            for at, (code, yes, no, operand) in enumerate(self._made)
        )
