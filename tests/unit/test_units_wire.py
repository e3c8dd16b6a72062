"""Our D-Bus encoder puts the same bytes on the wire as dbus-next, and pystemd takes the same values."""

from __future__ import annotations

import random
import string
from typing import Any

import pytest
from counted import calls

from sysbox.units import wire

DESTINATION = "org.freedesktop.systemd1"
PATH = "/org/freedesktop/systemd1"
MANAGER = "org.freedesktop.systemd1.Manager"
TRANSIENT = "ssa(sv)a(sa(sv))"

# every signature that the planners use
SIGNATURES = ("b", "t", "u", "i", "s", "ay", "as", "au", "a(st)", "a(ss)", "a(iayu)", "a(sasb)")


def text(rng: random.Random) -> str:
    letters = string.ascii_letters + string.digits + " -_./:äß漢🂡"
    return "".join(rng.choice(letters) for _ in range(rng.randrange(0, 40)))


def value(rng: random.Random, kind: str) -> Any:
    bits = {"t": 64, "u": 32, "x": 63, "q": 16, "n": 15, "i": 31, "y": 8}
    if kind in bits:
        return rng.choice([0, 1, (1 << bits[kind]) - 1, rng.getrandbits(bits[kind])])
    if kind == "b":
        return rng.random() < 0.5
    if kind == "d":
        return rng.uniform(-1e9, 1e9)
    if kind in "so":
        return text(rng) if kind == "s" else "/" + "/".join(["a"] * rng.randrange(1, 4))
    if kind == "ay":
        return rng.randbytes(rng.randrange(0, 20))
    if kind[0] == "a":
        return [value(rng, kind[1:]) for _ in range(rng.randrange(0, 4))]
    return tuple(value(rng, one) for one in wire.split(kind[1:-1]))


def property_set(rng: random.Random) -> list[tuple[str, tuple[str, Any]]]:
    kinds = rng.choices(SIGNATURES, k=rng.randrange(0, 25))
    names = ("".join(rng.choices(string.ascii_letters, k=rng.randrange(1, 30))) for _ in kinds)
    return [(name, (kind, value(rng, kind))) for name, kind in zip(names, kinds, strict=True)]


def for_dbus_next(kind: str, one: Any) -> Any:
    """dbus-next wants lists for structs, and Variant objects."""
    from dbus_next.signature import Variant

    if kind == "v":
        return Variant(one[0], for_dbus_next(*one))
    if kind == "ay":
        return one
    if kind.startswith("a{"):
        _, inner = wire.split(kind[2:-1])
        return {key: for_dbus_next(inner, item) for key, item in one.items()}
    if kind[0] == "a":
        return [for_dbus_next(kind[1:], item) for item in one]
    if kind[0] == "(":
        return [for_dbus_next(*pair) for pair in zip(wire.split(kind[1:-1]), one, strict=True)]
    return one


def theirs(serial: int, member: str, signature: str, args: tuple[Any, ...]) -> bytes:
    from dbus_next.message import Message

    body = [for_dbus_next(*pair) for pair in zip(wire.split(signature), args, strict=True)]
    message = Message(
        destination=DESTINATION, path=PATH, interface=MANAGER, member=member,
        signature=signature, body=body, serial=serial,
    )  # fmt: skip
    return bytes(message._marshall())


def ours(serial: int, member: str, signature: str, args: tuple[Any, ...]) -> bytes:
    return wire.method_call(serial, DESTINATION, PATH, MANAGER, member, signature, args)


@pytest.mark.parametrize("seed", range(60))
def test_start_transient_unit_as_dbus_next(seed: int) -> None:
    rng = random.Random(seed)
    args = (f"docker-{seed}.scope", "fail", property_set(rng), [])
    serial = rng.randrange(1, 1 << 32)
    assert ours(serial, "StartTransientUnit", TRANSIENT, args) == theirs(
        serial, "StartTransientUnit", TRANSIENT, args
    )


@pytest.mark.parametrize(
    ("signature", "args"),
    [
        ("", ()),
        ("s", ("",)),
        ("ss", ("unit", "replace")),
        ("ssi", ("unit", "all", -9)),
        ("ybnqiuxtd", (1, True, -2, 3, -4, 5, -6, 7, 8.5)),
        ("asas", ([], ["docker-*.scope"])),
        ("a{sv}", ({"a": ("s", "b"), "c": ("t", 1)},)),
        ("a{sas}", ({"a": ["b", "c"]},)),
        ("(y(yt))v", ((1, (2, 3)), ("a(st)", [("/dev/sda", 1 << 40)]))),
        ("ayat", (b"", [1 << 63])),
        ("og", ("/a", "a(sv)")),
        ("v", (("v", ("v", ("s", "deep"))),)),
    ],
)
def test_other_calls_as_dbus_next(signature: str, args: tuple[Any, ...]) -> None:
    assert ours(1, "Call", signature, args) == theirs(1, "Call", signature, args)


@pytest.mark.parametrize("seed", range(30))
def test_pystemd_takes_the_same_signatures(seed: int) -> None:
    """pystemd's own compiler of signatures accepts what the planners emit, value for value."""
    from pystemd.dbuslib import apply_signature
    from pystemd.utils import x2char_star

    rng = random.Random(seed)

    def as_bytes(one: Any) -> Any:
        if isinstance(one, str):
            return x2char_star(one)
        if isinstance(one, list | tuple):
            return type(one)(as_bytes(item) for item in one)
        return one

    for _, (kind, one) in property_set(rng):
        given = list(one) if kind == "ay" else as_bytes(one)
        assert apply_signature(kind.encode(), [given])


@pytest.mark.parametrize("seed", range(40))
def test_what_is_written_is_read_back(seed: int) -> None:
    rng = random.Random(seed)
    properties = property_set(rng)
    data = ours(7, "StartTransientUnit", TRANSIENT, ("u", "fail", properties, []))
    assert wire.message_size(data) == len(data)
    assert wire.message_size(data[:15]) == 0
    message = wire.parse(data)
    assert (message.kind, message.serial, message.member) == (wire.CALL, 7, "StartTransientUnit")
    assert message.args == ("u", "fail", [(name, one) for name, (_, one) in properties], [])


def big_endian(data: bytes) -> bytes:
    """The empty signal of below, in the other byte order."""
    assert data[0:1] == b"l"
    return b"B" + data[1:4] + data[4:8][::-1] + data[8:12][::-1] + data[12:16][::-1] + data[16:]


def test_both_byte_orders_are_read() -> None:
    data = wire.method_call(258, "", "", "", "", "", ())
    message = wire.parse(big_endian(data))
    assert message.serial == 258


@pytest.mark.parametrize(
    ("signature", "args"),
    [
        ("b", (1,)),
        ("t", (-1,)),
        ("t", (1 << 64,)),
        ("t", (True,)),
        ("u", ("1",)),
        ("s", ("a\0b",)),
        ("s", ("a", "b")),
        ("v", (("ss", "x"),)),
        ("g", ("s" * 256,)),
    ],
)
def test_bad_values_are_refused(signature: str, args: tuple[Any, ...]) -> None:
    with pytest.raises(wire.WireError):
        wire.marshal(bytearray(), signature, args)


@pytest.mark.parametrize(
    "bad", ["z", "a", "(s", "()", "{sv}", "a{s", "s)", "(" * 70 + "s" + ")" * 70]
)
def test_bad_signatures_are_refused(bad: str) -> None:
    with pytest.raises(wire.WireError):
        wire.split(bad)


@pytest.mark.parametrize("seed", range(300))
def test_a_damaged_message_is_an_error_and_nothing_else(seed: int) -> None:
    rng = random.Random(seed)
    whole = ours(1, "StartTransientUnit", TRANSIENT, ("u", "fail", property_set(rng), []))
    damaged = bytearray(whole)
    for _ in range(rng.randrange(1, 6)):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    try:
        size = wire.message_size(damaged)
        if size == len(damaged):
            wire.parse(bytes(damaged))
    except wire.WireError:
        pass


def test_a_call_costs_little() -> None:
    """The budget of a hot verb: a few calls for each property of a scope, however many there are."""
    few, many = (
        calls(lambda one=one: ours(1, "StartTransientUnit", TRANSIENT, ("docker.scope", "fail", one, [])))[0]
        for one in ([("A", ("s", "x"))] * count for count in (10, 1010))
    )  # fmt: skip
    assert few < 200
    assert (many - few) / 1000 < 12
