"""The D-Bus wire format, both ways."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sysbox.units import wire

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
BASIC: dict[str, st.SearchStrategy[Any]] = {
    "y": st.integers(0, 255), "b": st.booleans(), "n": st.integers(-(1 << 15), (1 << 15) - 1),
    "q": st.integers(0, (1 << 16) - 1), "i": st.integers(-(1 << 31), (1 << 31) - 1),
    "u": st.integers(0, (1 << 32) - 1), "x": st.integers(-(1 << 63), (1 << 63) - 1),
    "t": st.integers(0, (1 << 64) - 1), "d": st.floats(allow_nan=False), "s": TEXT, "o": TEXT,
}  # fmt: skip


@st.composite
def typed(draw: st.DrawFn, depth: int = 0) -> tuple[str, Any, Any]:
    """A complete type, a value to write, and what is read back."""
    kind = draw(st.sampled_from([*BASIC, "ay", "a", "(", "a{", "v"] if depth < 4 else [*BASIC]))
    if kind in BASIC:
        value = draw(BASIC[kind])
        return kind, value, value
    if kind == "ay":
        data = draw(st.binary(max_size=20))
        return "ay", data, data
    if kind == "v":
        inner, value, read = draw(typed(depth + 1))
        return "v", (inner, value), read
    if kind == "(":
        parts = draw(st.lists(typed(depth + 1), min_size=1, max_size=3))
        types, given_, read = zip(*parts, strict=True)
        return f"({''.join(types)})", given_, read
    inner, value, read = draw(typed(depth + 1))
    count = draw(st.integers(0, 3))
    if kind == "a":
        if inner == "y":
            return "ay", bytes([value] * count), bytes([value] * count)
        return f"a{inner}", [value] * count, [read] * count
    keys = draw(st.lists(TEXT, max_size=3, unique=True))
    return f"a{{s{inner}}}", dict.fromkeys(keys, value), dict.fromkeys(keys, read)


@given(st.lists(typed(), max_size=4))
def test_what_is_written_is_read(parts: list[tuple[str, Any, Any]]) -> None:
    signature = "".join(kind for kind, _, _ in parts)
    args = tuple(value for _, value, _ in parts)
    data = wire.method_call(7, "org.a", "/a", "org.a.b", "Call", signature, args)
    assert wire.message_size(data) == len(data)
    message = wire.parse(data)
    assert (message.serial, message.member) == (7, "Call")
    assert message.args == tuple(read for _, _, read in parts)


DAMAGE = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6)


@given(st.lists(typed(), max_size=3), DAMAGE, st.integers(0, 400))
def test_a_damaged_message(
    parts: list[tuple[str, Any, Any]], damage: list[tuple[int, int]], length: int
) -> None:
    signature = "".join(kind for kind, _, _ in parts)
    args = tuple(value for _, value, _ in parts)
    data = bytearray(wire.method_call(7, "org.a", "/a", "org.a.b", "Call", signature, args))
    for at, byte in damage:
        data[at % len(data)] = byte
    for one in (bytes(data), bytes(data[: length % len(data)])):
        if len(one) < 16:
            continue
        try:
            if wire.message_size(one) == len(one):
                wire.parse(one)
        except wire.WireError:
            pass


@given(st.text("abdginoqstuvxyh(){}", max_size=80))
def test_signatures(text: str) -> None:
    try:
        types = wire.split(text)
    except wire.WireError:
        return
    assert "".join(types) == text


@given(st.binary(min_size=16, max_size=200))
def test_any_bytes(data: bytes) -> None:
    try:
        wire.message_size(data)
        wire.parse(data)
    except wire.WireError:
        pass
