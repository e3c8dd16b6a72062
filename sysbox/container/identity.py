"""Ids of containers, and names for those without one: two words, easy to say and to type."""

from __future__ import annotations

import posix

from sysbox.base.errors import Conflict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Protocol, TypeVar

    class _HasId(Protocol):
        @property
        def id(self) -> str: ...
        @property
        def name(self) -> str: ...

    _Named = TypeVar("_Named", bound=_HasId)

_SHORTEST = 4  # digits of an id that may stand for a network or a secret
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


def find_short(what: str, word: str, every: Callable[[], Iterable[_Named]]) -> _Named | None:
    """The one of `every` whose id begins with `word`; None where there is none, or `word` is too short.

    `what` they are, "network", for the error: raises Conflict where it is the beginning of several ids.
    """
    if len(word) < _SHORTEST or not HEX.issuperset(word):
        return None
    found = [one for one in every() if one.id.startswith(word)]
    if len(found) > 1:
        some = ", ".join(one.name for one in found)
        raise Conflict(f"{what} {word}: the id is that of several: {some}")
    return found[0] if found else None


def of_unit(unit: str) -> str:
    """The id of the container that the service `unit` declares: 64 hexadecimal digits."""
    from hashlib import sha256  # only these containers need it

    return sha256(f"sysbox container of {unit}".encode("utf-8", "surrogateescape")).hexdigest()
