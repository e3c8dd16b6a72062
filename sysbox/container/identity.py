"""Ids of containers, and names for those without one: two words, easy to say and to type."""

from __future__ import annotations

import posix

_FIRST = (
    "amber agile bold brave bright brisk calm candid clear clever crisp deft eager early fair fleet "
    "fond frank fresh gentle glad grand hardy honest humble jolly keen kind lively loyal lucid merry "
    "mild neat nimble noble patient plain polite proud quick quiet ready robust serene sharp silent "
    "smart solid stable steady still sturdy subtle sunny swift tidy trusty upright vivid warm wise witty"
).split()
_SECOND = (
    "alder ash aspen badger beech birch bison cedar clover crane cypress deer dove eagle egret elm "
    "falcon fern finch fir fox gull hare hawk hazel heron holly ibis ivy jay juniper kestrel lark "
    "laurel lily linden lynx maple marten mink moss oak olive osprey otter owl pine plover poplar "
    "quail raven robin rowan sable seal sparrow spruce stork swan swift tern thrush vole willow wren yew"
).split()


def random_name() -> str:
    """A name such as `brave_otter`; the caller checks that it is free."""
    first, second = posix.urandom(2)
    return f"{_FIRST[first % len(_FIRST)]}_{_SECOND[second % len(_SECOND)]}"


def new_id() -> str:
    """A new container id. Its first 12 digits, the host name, are not all decimal: an address could be."""
    while (fresh := posix.urandom(32).hex())[:12].isdecimal():
        pass
    return fresh


def new_uuid() -> str:
    """A new random UUID, as the kernel writes one (RFC 9562, version 4)."""
    data = bytearray(posix.urandom(16))
    data[6] = data[6] & 0x0F | 0x40
    data[8] = data[8] & 0x3F | 0x80
    text = data.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


HEX = frozenset("0123456789abcdef")


def is_id(text: str) -> bool:
    """Whether `text` is a full id, 64 hexadecimal digits; checked before it becomes part of a path."""
    return len(text) == 64 and HEX.issuperset(text)


def of_unit(unit: str) -> str:
    """The id of the container that the service `unit` declares: 64 hexadecimal digits."""
    from hashlib import sha256  # only these containers need it

    return sha256(f"sysbox container of {unit}".encode("utf-8", "surrogateescape")).hexdigest()
