"""The D-Bus wire format (D-Bus Specification, "Message Protocol"): marshalling and unmarshalling.

Python values by type: `y n q i u x t h` int, `b` bool, `d` float, `s o g` str, `ay` bytes, other
arrays list (or tuple), `a{..}` dict, structs tuple, and a variant is written as the pair
(signature, value) and read as the bare value. Written little-endian; both orders are read.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from struct import Struct, error, unpack_from
    from typing import Any
else:
    from _struct import Struct, error, unpack_from

CALL, RETURN, ERROR, SIGNAL = 1, 2, 3, 4
NO_REPLY_EXPECTED, NO_AUTO_START = 1, 2

_MAX_MESSAGE = 1 << 27  # bytes, of the specification
_MAX_ARRAY = 1 << 26
_MAX_DEPTH = 64  # 32 arrays and 32 structs
_HEAD = 16  # bytes: a header's fixed part, with the length of the array of fields

_FIXED = {  # type code -> (struct code, size; the alignment is the size)
    "y": ("B", 1),
    "n": ("h", 2),
    "q": ("H", 2),
    "i": ("i", 4),
    "u": ("I", 4),
    "x": ("q", 8),
    "t": ("Q", 8),
    "d": ("d", 8),
    "h": ("I", 4),
}
_PACK = {code: (Struct("<" + letter).pack, size) for code, (letter, size) in _FIXED.items()}
_ALIGN = {"b": 4, "s": 4, "o": 4, "g": 1, "a": 4, "v": 1, "(": 8, "{": 8}
_ALIGN.update({code: size for code, (_, size) in _FIXED.items()})
_U32 = Struct("<I").pack
_PADDING = tuple(b"\0" * count for count in range(8))
_HEADER = Struct("<cBBBIII").pack

_split_cache: dict[str, tuple[str, ...]] = {}


class WireError(ValueError):
    """A signature, a value or a message that D-Bus does not allow."""


def split(signature: str) -> tuple[str, ...]:
    """The complete types of a signature: "sa(sv)u" is ("s", "a(sv)", "u")."""
    types = _split_cache.get(signature)
    if types is None:
        found = []
        start = 0
        while start < len(signature):
            end = _complete(signature, start, 0)
            found.append(signature[start:end])
            start = end
        types = _split_cache[signature] = tuple(found)
    return types


def _complete(signature: str, start: int, depth: int) -> int:
    """The index after the complete type that begins at `start`."""
    code = signature[start : start + 1]
    entry = code == "{" and signature[start - 1 : start] != "a"  # only an array holds entries
    if depth > _MAX_DEPTH or code not in _ALIGN or entry:
        raise WireError(f"bad signature {signature[:80]!r}")
    if code == "a":
        return _complete(signature, start + 1, depth + 1)
    if code in "({":
        close = ")" if code == "(" else "}"
        index = start + 1
        while signature[index : index + 1] != close:
            index = _complete(signature, index, depth + 1)
        if index == start + 1:
            raise WireError(f"bad signature {signature[:80]!r}: an empty struct")
        return index + 1
    return start + 1


def marshal(out: bytearray, signature: str, values: Any) -> None:
    """Append one value for each complete type of `signature` to `out`, aligned to its start."""
    types = split(signature)
    if len(types) != len(values):
        raise WireError(f"{len(values)} values for the signature {signature!r}")
    for kind, value in zip(types, values, strict=True):
        _put(out, kind, value)


def _put(out: bytearray, kind: str, value: Any) -> None:
    code = kind[0]
    if code == "s" or code == "o":
        try:
            raw = value.encode("utf-8")
        except UnicodeEncodeError:
            raise WireError(f"no UTF-8 in {value[:80]!r}") from None
        if b"\0" in raw:
            raise WireError(f"a zero byte in {value[:80]!r}")
        out += _PADDING[-len(out) & 3]
        out += _U32(len(raw))
        out += raw
        out.append(0)
    elif code == "v":
        inner, content = value
        if len(split(inner)) != 1:
            raise WireError(f"a variant holds one value, not {inner!r}")
        _put(out, "g", inner)
        _put(out, inner, content)
    elif code == "a":
        _put_array(out, kind[1:], value)
    elif code == "(":
        out += _PADDING[-len(out) & 7]
        marshal(out, kind[1:-1], value)
    elif code == "g":
        raw = value.encode("ascii")
        if len(raw) > 255:
            raise WireError("a signature over 255 bytes")
        out.append(len(raw))
        out += raw
        out.append(0)
    else:
        _put_fixed(out, kind, value)


def _put_fixed(out: bytearray, kind: str, value: Any) -> None:
    if kind == "b":
        if type(value) is not bool:
            raise WireError(f"{value!r} is not a bool")
        out += _PADDING[-len(out) & 3]
        out += _U32(value)
        return
    pack, size = _PACK[kind]
    if type(value) is bool:  # struct would pack a bool as 0 or 1
        raise WireError(f"{value!r} is not a number of type '{kind}'")
    out += _PADDING[-len(out) & (size - 1)]
    try:
        out += pack(value)
    except error as reason:
        raise WireError(f"{value!r} does not fit the type '{kind}': {reason}") from None


def _put_array(out: bytearray, kind: str, value: Any) -> None:
    out += _PADDING[-len(out) & 3]
    at = len(out)
    out += b"\0\0\0\0"
    out += _PADDING[-len(out) & (_ALIGN[kind[0]] - 1)]
    start = len(out)
    if kind == "y":
        out += value
    elif kind[0] == "{":
        key_kind, value_kind = split(kind[1:-1])
        for key, item in value.items():
            out += _PADDING[-len(out) & 7]
            _put(out, key_kind, key)
            _put(out, value_kind, item)
    else:
        for item in value:
            _put(out, kind, item)
    if len(out) - start > _MAX_ARRAY:
        raise WireError("an array over 64 MiB")
    out[at : at + 4] = _U32(len(out) - start)


class Reader:
    """Reads values from one message, whose alignment starts at the buffer's first byte."""

    __slots__ = ("at", "data", "order")

    def __init__(self, data: bytes, at: int, order: str) -> None:
        self.data = data
        self.at = at
        self.order = order

    def read(self, signature: str) -> tuple[Any, ...]:
        """The values of a signature; raises WireError where the message does not hold them."""
        try:
            return tuple(self._get(kind, 0) for kind in split(signature))
        except WireError:
            raise
        except (error, IndexError, TypeError, ValueError) as reason:
            raise WireError(f"malformed message: {reason}") from None

    def _fixed(self, code: str, size: int) -> Any:
        at = self.at + (-self.at & (size - 1))
        self.at = at + size
        return unpack_from(self.order + code, self.data, at)[0]

    def _bytes(self, count: int) -> bytes:
        start = self.at
        self.at = start + count
        if self.at > len(self.data):
            raise WireError("malformed message: it ends inside a value")
        return self.data[start : self.at]

    def _get(self, kind: str, depth: int) -> Any:
        code = kind[0]
        if code in "so":
            text = self._bytes(self._fixed("I", 4)).decode("utf-8")
            self.at += 1
            return text
        if code == "g":
            text = self._bytes(self._fixed("B", 1)).decode("ascii")
            self.at += 1
            return text
        if code == "b":
            return bool(self._fixed("I", 4))
        if code == "v":
            (inner,) = split(self._get("g", depth))
            if depth > _MAX_DEPTH:
                raise WireError("malformed message: nested too deeply")
            return self._get(inner, depth + 1)
        if code == "(":
            self.at += -self.at & 7
            return tuple(self._get(part, depth + 1) for part in split(kind[1:-1]))
        if code == "a":
            return self._array(kind[1:], depth + 1)
        letter, size = _FIXED[code]
        return self._fixed(letter, size)

    def _array(self, kind: str, depth: int) -> Any:
        length = self._fixed("I", 4)
        self.at += -self.at & (_ALIGN[kind[0]] - 1)
        end = self.at + length
        if length > _MAX_ARRAY or end > len(self.data):
            raise WireError("malformed message: it ends inside an array")
        if kind == "y":
            return self._bytes(length)
        items = []
        if kind[0] == "{":
            key_kind, value_kind = split(kind[1:-1])
            while self.at < end:
                self.at += -self.at & 7
                items.append((self._get(key_kind, depth), self._get(value_kind, depth)))
            return dict(items)
        while self.at < end:
            items.append(self._get(kind, depth))
        return items


def method_call(
    serial: int,
    destination: str,
    path: str,
    interface: str,
    member: str,
    signature: str = "",
    args: Any = (),
    flags: int = 0,
) -> bytes:
    """The bytes of one method call."""
    body = bytearray()
    marshal(body, signature, args)
    fields = bytearray(_HEAD)  # room for the fixed part: alignment counts from the message's start
    for number, kind, text in (
        (1, "o", path),
        (2, "s", interface),
        (3, "s", member),
        (6, "s", destination),
        (8, "g", signature),
    ):
        if text:
            fields += _PADDING[-len(fields) & 7]
            fields.append(number)
            _put(fields, "v", (kind, text))
    head = _HEADER(b"l", CALL, flags, 1, len(body), serial, len(fields) - _HEAD)
    fields += _PADDING[-len(fields) & 7]
    fields[:_HEAD] = head
    if len(fields) + len(body) > _MAX_MESSAGE:
        raise WireError("a message over 128 MiB")
    return bytes(fields + body)


class Message:
    """One received message; `fields` by number of the header field, `args` the decoded body."""

    __slots__ = ("args", "fields", "kind", "serial")

    def __init__(
        self, kind: int, serial: int, fields: dict[int, Any], args: tuple[Any, ...]
    ) -> None:
        self.kind = kind
        self.serial = serial
        self.fields = fields
        self.args = args

    @property
    def member(self) -> str:
        name: str = self.fields.get(3, "")
        return name

    @property
    def error_name(self) -> str:
        name: str = self.fields.get(4, "")
        return name

    @property
    def reply_serial(self) -> int:
        serial: int = self.fields.get(5, 0)
        return serial


def message_size(data: bytes | bytearray) -> int:
    """The size of the message that `data` begins with; 0 if `data` is too short to tell."""
    if len(data) < _HEAD:
        return 0
    order = _order(data)
    (body,) = unpack_from(order + "I", data, 4)
    (fields,) = unpack_from(order + "I", data, 12)
    size: int = _HEAD + fields + (-fields & 7) + body
    if size > _MAX_MESSAGE:
        raise WireError("a message over 128 MiB")
    return size


def _order(data: bytes | bytearray) -> str:
    if data[0] not in b"lB" or data[3] != 1:
        raise WireError("not a D-Bus message of protocol version 1")
    return "<" if data[0] == ord("l") else ">"


def parse(data: bytes) -> Message:
    """One whole message, as `message_size` measured it."""
    order = _order(data)
    reader = Reader(data, 12, order)
    fields = dict(reader.read("a(yv)")[0])
    (serial,) = unpack_from(order + "I", data, 8)
    reader.at += -reader.at & 7
    args = reader.read(fields.get(8, "")) if 8 in fields else ()
    return Message(data[1], serial, fields, args)
