"""Tar headers, parsed strictly: v7, ustar, GNU long names, pax extended headers (pax(1), GNU tar manual).

`tarfile` takes seven times as long on a root file system and knows neither whiteouts nor xattrs. An entry
that is ambiguous or beyond the limits is refused, and the error names it; names stay bytes, as the kernel has
them.
"""

from __future__ import annotations

import zlib
from _struct import Struct

from sysbox.base.errors import FormatError
from sysbox.base.frozen import Frozen
from sysbox.image import sparse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sysbox.image.source import Source

    Run = Callable[[int, int], tuple[int, int]]

BLOCK = 512
REGULAR, HARD_LINK, SYMLINK = b"0", b"1", b"2"
CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"3", b"4", b"5", b"6"
_CONTIGUOUS, _V7 = b"7", b"\0"
_PAX, _GLOBAL, _LONG_NAME, _LONG_LINK, _SPARSE = b"x", b"g", b"L", b"K", b"S"
_KNOWN = frozenset((REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO))
MAX_ID = (1 << 32) - 2  # chown(2) does not change the owner for 2^32-1
_ADLER = 65521
_fields = Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12x").unpack
_XATTR = b"SCHILY.xattr."


class LayerLimits(Frozen):
    """The most that a layer may hold; more is an attack or a mistake."""

    bytes: int = 64 << 30  # of the uncompressed archive
    entries: int = 1_000_000  # headers of any kind
    path: int = 4095  # bytes: PATH_MAX without its NUL
    depth: int = 200  # components: each costs a descriptor while it is open
    extended: int = 1 << 20  # bytes of the pax headers before one entry, together
    xattrs: int = 1 << 16  # bytes of one entry's extended attributes
    # whether the end mark may be missing, as in layers of umoci's: where a digest proves that nothing is
    unended: bool = False


class Header:
    """One entry, ready to be applied; a plain class, as there are tens of thousands."""

    __slots__ = (
        "gid",
        "kind",
        "link",
        "major",
        "minor",
        "mode",
        "mtime",
        "name",
        "segments",
        "size",
        "uid",
        "whole",
        "xattrs",
    )

    def __init__(self, kind: bytes, name: bytes, link: bytes, size: int) -> None:
        self.kind = kind
        self.name = name
        self.link = link
        self.size = size  # bytes of content that follow; 0 for all but regular files
        self.whole = size  # bytes of the file, with its holes
        # (offset, length) of each part of a sparse file that the archive holds
        self.segments: tuple[tuple[int, int], ...] | None = None
        self.mode = 0
        self.uid = 0
        self.gid = 0
        self.mtime = 0  # nanoseconds
        self.major = 0
        self.minor = 0
        self.xattrs: tuple[tuple[bytes, bytes], ...] = ()


def headers(source: Source, limits: LayerLimits, run: Run | None = None) -> Iterator[Header]:
    """The entries of an archive; between two of them the caller may read up to `size` bytes.

    After each entry and its content, `run(entries, bytes)` may take further whole entries from the source, at
    most as many and with as many bytes of content; it returns how many these were, and their bytes.
    Raises FormatError, also for an archive without its end mark, unless the limits allow that: the process
    that wrote it has failed.
    """
    extra: dict[bytes, bytes] = {}
    count = pending = whole = 0
    while True:
        block = source.take(BLOCK)
        if not block and not limits.unended:
            raise FormatError("the archive is truncated: its end mark is missing")
        if not block or (block[0] == 0 and block.count(0) == BLOCK):
            if extra:
                raise FormatError("the archive ends after an extended header")
            return
        count += 1
        if count > limits.entries:
            raise FormatError(f"the archive has more than {limits.entries} entries")
        fields = _fields(block)
        _check_sum(block, fields[6])
        kind = fields[7]
        if kind in (_PAX, _GLOBAL, _LONG_NAME, _LONG_LINK):
            size = _number(fields[4], "size")
            pending = _add_extended(pending, size, limits)
            _read_extension(source, kind, size, extra, limits)
            continue
        pending = 0
        header, end = _entry(source, block, fields, extra, limits)
        extra = {}
        whole += header.whole
        if whole > limits.bytes:
            raise FormatError(f"{shown(header.name)}: unpacks to more than {limits.bytes} bytes")
        yield header
        source.skip_to(end)
        if run is not None:
            taken, size = run(limits.entries - count, limits.bytes - whole)
            count, whole = count + taken, whole + size


def _entry(
    source: Source,
    block: bytes,
    fields: tuple[bytes, ...],
    extra: dict[bytes, bytes],
    limits: LayerLimits,
) -> tuple[Header, int]:
    """The entry whose own header was read last, and the position of the next one."""
    kind = fields[7]
    header = _header(kind, fields, extra, limits) if extra else _plain_header(kind, fields)
    if kind == _SPARSE or (extra and sparse.is_pax(extra)):
        return header, _read_sparse(source, block, header, extra)
    return header, source.position + (header.size + BLOCK - 1) // BLOCK * BLOCK


def _add_extended(pending: int, size: int, limits: LayerLimits) -> int:
    """The bytes of the extended headers before one entry, so far. Raises FormatError."""
    pending += max(size, 0)
    if pending > limits.extended + 2 * limits.path:
        raise FormatError(
            f"the extended headers of one entry have more than {limits.extended} bytes"
        )
    return pending


def _plain_header(kind: bytes, fields: tuple[bytes, ...]) -> Header:
    """A header without extended headers before it."""
    name = fields[0].partition(b"\0")[0]
    magic = fields[9]
    # GNU's magic is "ustar  \0" and means that the prefix field holds other things
    if magic == b"ustar\x0000":
        prefix = fields[14].partition(b"\0")[0]
        if prefix:
            name = prefix + b"/" + name
    if kind in (_V7, _CONTIGUOUS, REGULAR, _SPARSE):
        kind = DIRECTORY if name.endswith(b"/") else REGULAR
    if kind not in _KNOWN:
        raise _unknown(kind, name)
    size = _number(fields[4], "size") if kind == REGULAR else 0
    if size < 0:
        raise FormatError(f"{shown(name)}: a negative size")
    header = Header(kind, name, fields[8].partition(b"\0")[0], size)
    header.mode = _number(fields[1], "mode") & 0o7777
    header.uid = _identity(_number(fields[2], "uid"), name)
    header.gid = _identity(_number(fields[3], "gid"), name)
    header.mtime = _clamp(_number(fields[5], "mtime") * 1_000_000_000)
    if kind in (CHARACTER, BLOCK_DEVICE):
        header.major = _number(fields[12], "device number")
        header.minor = _number(fields[13], "device number")
        if not (0 <= header.major < 1 << 12 and 0 <= header.minor < 1 << 20):
            raise FormatError(f"{shown(name)}: a device number out of range")
    return header


def _header(
    kind: bytes, fields: tuple[bytes, ...], extra: dict[bytes, bytes], limits: LayerLimits
) -> Header:
    """A header whose fields the extended headers before it override."""
    known = list(fields)
    for index, key in ((2, b"uid"), (3, b"gid"), (4, b"size")):
        if key in extra:
            # the fixed fields of a pax archive may hold anything: only the record counts
            known[index] = _octal(_decimal(extra[key], key))
    if b"path" in extra:
        known[0], known[14] = extra[b"path"], b""
    header = _plain_header(kind, tuple(known))
    header.name = sparse.real_name(extra, header.name)
    header.link = extra.get(b"linkpath", header.link)
    if b"\0" in header.link:
        raise FormatError(f"{shown(header.name)}: a link to a name with a NUL in it")
    if b"mtime" in extra:
        header.mtime = _clamp(_nanoseconds(extra[b"mtime"]))
    header.xattrs = tuple(
        (key[len(_XATTR) :], extra[key]) for key in extra if key.startswith(_XATTR)
    )
    if b"SCHILY.acl.access" in extra or b"SCHILY.acl.default" in extra:
        header.xattrs += _access_lists(extra, header)
    if sum(len(key) + len(value) for key, value in header.xattrs) > limits.xattrs:
        raise FormatError(
            f"{shown(header.name)}: extended attributes of more than {limits.xattrs} bytes"
        )
    if any(b"\0" in key for key, _ in header.xattrs):
        raise FormatError(f"{shown(header.name)}: an extended attribute with a NUL in its name")
    return header


def _access_lists(extra: dict[bytes, bytes], header: Header) -> tuple[tuple[bytes, bytes], ...]:
    """The access control lists that are there as text, and not as extended attributes."""
    from sysbox.image import acl

    found = []
    for key, name in acl.ATTRIBUTES.items():
        if key in extra and not any(name == known for known, _ in header.xattrs):
            try:
                value = acl.from_text(extra[key])
            except FormatError as error:
                raise FormatError(
                    f"{shown(header.name)}: {error.message}", hint=error.hint
                ) from None
            if value:
                found.append((name, value))
    return tuple(found)


def _read_sparse(source: Source, block: bytes, header: Header, extra: dict[bytes, bytes]) -> int:
    """Read the map of a sparse file; returns the position of the next header."""
    if header.kind != REGULAR:
        raise FormatError(f"{shown(header.name)}: a sparse entry that is not a regular file")
    if sparse.is_pax(extra):
        start = source.position
        header.whole, header.segments = sparse.read_pax_map(source, extra)
        end = start + (header.size + BLOCK - 1) // BLOCK * BLOCK
        header.size -= source.position - start
    else:
        header.whole, header.segments = sparse.read_gnu_map(source, block, _number)
        end = source.position + (header.size + BLOCK - 1) // BLOCK * BLOCK
    sparse.check(header.whole, header.segments, header.size)
    return end


def _read_extension(
    source: Source, kind: bytes, size: int, extra: dict[bytes, bytes], limits: LayerLimits
) -> None:
    limit = limits.extended if kind in (_PAX, _GLOBAL) else limits.path + 1
    if not 0 <= size <= limit:
        raise FormatError(f"an extended header or a name of {size} bytes, the limit is {limit}")
    padded = source.position + (size + BLOCK - 1) // BLOCK * BLOCK
    data = source.take(size) if size else b""
    if len(data) != size:
        raise FormatError("the archive is truncated in an extended header")
    source.skip_to(padded)
    if kind == _PAX:
        _parse_pax(data, extra)
    elif kind != _GLOBAL:
        # a pax record wins over a GNU long name, whichever comes first
        key = b"path" if kind == _LONG_NAME else b"linkpath"
        extra.setdefault(key, data.rstrip(b"\0"))
    # a global header is ignored: it has comments in practice (git archive), and no image may depend on it


def _parse_pax(data: bytes, extra: dict[bytes, bytes]) -> None:
    position = 0
    segments: list[bytes] = []
    while position < len(data):
        space = data.find(b" ", position, position + 12)
        digits = data[position:space] if space > 0 else b""
        end = position + int(digits) if digits.isdigit() else 0
        if not space + 3 <= end <= len(data) or data[end - 1] != 0x0A:
            raise FormatError("a malformed pax header")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not key or not equals:
            raise FormatError("a malformed pax header")
        if key in (b"path", b"linkpath") and (b"\0" in value or not value):
            raise FormatError("a pax header with an empty name or a NUL in it")
        if key in sparse.REPEATED:
            segments.append(value)
        else:
            extra[key] = value
        position = end
    if segments:
        sparse.keep_map(extra, segments)


def _check_sum(block: bytes, field: bytes) -> None:
    """The header's checksum: the sum of its bytes, with the field itself as spaces.

    adler32 keeps that sum modulo 65521 in its low half, a hundred times faster than `sum`.
    """
    if not field.strip(b" \0").isdigit():
        raise FormatError("not a tar archive")
    low = zlib.adler32(block[156:], zlib.adler32(b"        ", zlib.adler32(block[:148]))) & 0xFFFF
    if low != (_number(field, "checksum") + 1) % _ADLER:
        raise FormatError("not a tar archive, or a damaged one: a header's checksum is wrong")


_numbers: dict[bytes, int] = {}


def _number(field: bytes, what: str) -> int:
    """The number in an octal field, or GNU's base-256 one; cached, since few distinct ones occur."""
    value = _numbers.get(field)
    if value is None:
        value = _parse_number(field, what)
        if len(_numbers) < 4096:
            _numbers[field] = value
    return value


def _parse_number(field: bytes, what: str) -> int:
    if field and field[0] & 0x80:
        value = int.from_bytes(field, "big")
        bits = 8 * len(field)
        # bit 6 of the first byte is the sign, the top bit only says "binary"
        return value - (1 << bits) if field[0] & 0x40 else value - (0x80 << bits - 8)
    digits = field.partition(b"\0")[0].strip(b" ")
    if not digits:
        return 0
    if not digits.isdigit():
        raise FormatError(f"a header's {what} is not a number")
    try:
        return int(digits, 8)
    except ValueError:
        raise FormatError(f"a header's {what} is not an octal number") from None


def _decimal(text: bytes, key: bytes) -> int:
    if not text.isdigit() or len(text) > 19:
        raise FormatError(f"a pax header's {key.decode()} is not a number: {shown(text)}")
    return int(text)


def _octal(value: int) -> bytes:
    return b"%o" % value


def _nanoseconds(text: bytes) -> int:
    sign = -1 if text.startswith(b"-") else 1
    whole, _, fraction = text.lstrip(b"-").partition(b".")
    if not whole.isdigit() or len(whole) > 19 or (fraction and not fraction.isdigit()):
        raise FormatError(f"a pax header's mtime is not a number: {shown(text)}")
    return sign * (int(whole) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0") or b"0"))


def _clamp(nanoseconds: int) -> int:
    """The nearest time that every file system can store (ext4: -2^31 to 2^34 seconds)."""
    return max(-(1 << 31) * 1_000_000_000, min(nanoseconds, ((1 << 34) - 1) * 1_000_000_000))


def _identity(value: int, name: bytes) -> int:
    if not 0 <= value <= MAX_ID:
        raise FormatError(f"{shown(name)}: an owner of {value} is out of range")
    return value


def _unknown(kind: bytes, name: bytes) -> FormatError:
    return FormatError(f"{shown(name)}: an entry of the unknown type {kind!r}")


def shown(name: bytes) -> str:
    """A name for an error message: printable, and not longer than a line."""
    text = name.decode("utf-8", "backslashreplace")
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text[:200])
    return repr(text if len(name) <= 200 else f"{text}...")
