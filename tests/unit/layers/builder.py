"""Tar archives from single headers, with every field as wrong as a test wants it."""

from __future__ import annotations

BLOCK = 512
END = bytes(2 * BLOCK)
USTAR = b"ustar\x0000"
GNU = b"ustar  \0"


def octal(value: int, width: int) -> bytes:
    """A number as tar writes it."""
    return b"%0*o\0" % (width - 1, value)


def binary(value: int, width: int) -> bytes:
    """GNU's base-256 form; negative numbers too."""
    raw = bytearray(value.to_bytes(width, "big", signed=True))
    raw[0] |= 0x80
    return bytes(raw)


def entry(
    name: bytes | str,
    data: bytes = b"",
    kind: bytes = b"0",
    *,
    link: bytes | str = b"",
    mode: bytes | int = 0o644,
    uid: bytes | int = 0,
    gid: bytes | int = 0,
    size: bytes | int | None = None,
    mtime: bytes | int = 1_700_000_000,
    device: tuple[int, int] = (0, 0),
    magic: bytes = USTAR,
    checksum: bytes | None = None,
) -> bytes:
    """One header and its content; a field given as bytes is taken as it is."""
    fields = [
        _text(name, 100),
        _number(mode, 8),
        _number(uid, 8),
        _number(gid, 8),
        _number(len(data) if size is None else size, 12),
        _number(mtime, 12),
        b" " * 8,
        kind,
        _text(link, 100),
        magic,
        _text("root", 32),
        _text("root", 32),
        octal(device[0], 8),
        octal(device[1], 8),
        bytes(155),
        bytes(12),
    ]
    header = b"".join(fields)
    assert len(header) == BLOCK
    total = checksum if checksum is not None else b"%06o\0 " % sum(header)
    return header[:148] + total + header[156:] + padded(data)


def sparse(
    name: bytes | str, whole: int, segments: list[tuple[int, int]], data: bytes = b""
) -> bytes:
    """A sparse file of the old GNU format, with at most four segments."""
    plain = entry(name, kind=b"S", size=len(data), magic=GNU)[:BLOCK]
    table = b"".join(octal(one, 12) for pair in segments for one in pair)
    header = plain[:386] + table.ljust(97, b"\0") + binary(whole, 12) + plain[495:]
    header = header[:148] + b" " * 8 + header[156:]
    return header[:148] + b"%06o\0 " % sum(header) + header[156:] + padded(data)


def directory(name: bytes | str, mode: int = 0o755, **rest: int) -> bytes:
    """A directory."""
    return entry(name, kind=b"5", mode=mode, **rest)  # type: ignore[arg-type]


def symlink(name: bytes | str, target: bytes | str) -> bytes:
    """A symbolic link."""
    return entry(name, kind=b"2", link=target, mode=0o777)


def hard_link(name: bytes | str, target: bytes | str) -> bytes:
    """A hard link."""
    return entry(name, kind=b"1", link=target)


def pax(*records: tuple[bytes | str, bytes | str], kind: bytes = b"x") -> bytes:
    """An extended header; it belongs to the entry after it."""
    return raw_pax(b"".join(record(_bytes(key), _bytes(value)) for key, value in records), kind)


def raw_pax(data: bytes, kind: bytes = b"x") -> bytes:
    """An extended header with this very content."""
    return entry("PaxHeaders/x", data, kind)


def record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE\\n`, where the length counts its own digits."""
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


def long_name(name: bytes, kind: bytes = b"L") -> bytes:
    """GNU's long name ("L") or long link ("K")."""
    return entry("././@LongLink", name + b"\0", kind, magic=GNU)


def archive(*parts: bytes) -> bytes:
    """The entries and the end mark."""
    return b"".join(parts) + END


def padded(data: bytes) -> bytes:
    """Content up to the next block."""
    return data + bytes(-len(data) % BLOCK)


def _text(value: bytes | str, width: int) -> bytes:
    raw = _bytes(value)
    assert len(raw) <= width, f"{raw!r} is longer than the field"
    return raw.ljust(width, b"\0")


def _bytes(value: bytes | str) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _number(value: bytes | int, width: int) -> bytes:
    if isinstance(value, bytes):
        assert len(value) == width
        return value
    return octal(value, width)
