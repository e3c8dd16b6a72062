"""Access control lists as text, as GNU tar and bsdtar write them into pax records (acl(5), "ACL TEXT FORMS").

`SCHILY.acl.access=user::rw-,user:lisa:rw-:1000,group::r--,mask::rw-,other::r--`, with commas or newlines. The
number at the end is bsdtar's and star's; a name without one is looked up on this machine, as GNU tar does.
"""

from __future__ import annotations

from _struct import Struct

from sysbox.base.errors import FormatError

ACCESS, DEFAULT = b"SCHILY.acl.access", b"SCHILY.acl.default"
ATTRIBUTES = {ACCESS: b"system.posix_acl_access", DEFAULT: b"system.posix_acl_default"}
_MOST = 1000  # entries
_VERSION = Struct("<I").pack(2)  # linux/posix_acl_xattr.h
_entry = Struct("<HHI").pack
_NONE = 0xFFFFFFFF
_MAX_ID = 0xFFFFFFFE
# the first letter of the tag -> (its number without a name, with one), linux/posix_acl.h
_TAGS = {b"u": (0x01, 0x02), b"g": (0x04, 0x08), b"m": (0x10, 0), b"o": (0x20, 0)}
_WORDS = frozenset((b"u", b"user", b"g", b"group", b"m", b"mask", b"o", b"other"))
_BITS = {b"r": 4, b"w": 2, b"x": 1, b"-": 0}


def from_text(text: bytes) -> bytes:
    """The value of the extended attribute; b"" for a list that says no more than a mode.

    Raises FormatError, also for a name that this machine does not know.
    """
    found = set()
    for line in text.replace(b",", b"\n").split(b"\n"):
        line = line.partition(b"#")[0].strip()
        if line:
            found.add(_parse(line))
    if len(found) > _MOST:
        raise FormatError(f"an access control list of more than {_MOST} entries")
    kinds = sorted((tag, number) for tag, _, number in found)
    if len(set(kinds)) != len(kinds) or [tag for tag, _ in kinds if tag in (1, 4, 32)] != [
        1,
        4,
        32,
    ]:
        raise FormatError("an access control list without one user::, group:: and other:: each")
    if len(found) == 3:
        return b""
    return _VERSION + b"".join(_entry(*one) for one in sorted(found, key=lambda e: (e[0], e[2])))


def _parse(line: bytes) -> tuple[int, int, int]:
    """(tag, permissions, id)"""
    fields = line.split(b":")
    if not 3 <= len(fields) <= 4 or fields[0] not in _WORDS:
        raise _malformed(line)
    word, name, letters = fields[:3]
    plain, named = _TAGS[word[:1]]
    if not name:
        tag, number = plain, _NONE
    elif named:
        tag, number = named, _number(word, fields[3] if len(fields) == 4 else name, line)
    else:
        raise _malformed(line)
    bits = 0
    for letter in letters:
        bit = _BITS.get(bytes((letter,)))
        if bit is None:
            raise _malformed(line)
        bits |= bit
    return tag, bits, number


def _number(word: bytes, name: bytes, line: bytes) -> int:
    if name.isdigit():
        if len(name) > 10 or int(name) > _MAX_ID:
            raise _malformed(line)
        return int(name)
    import grp
    import pwd

    text = name.decode("utf-8", "surrogateescape")
    try:
        return pwd.getpwnam(text).pw_uid if word[:1] == b"u" else grp.getgrnam(text).gr_gid
    except (KeyError, ValueError):
        raise FormatError(
            f"an access control list names {line[:80]!r}, which this machine does not know",
            hint="make the archive with --xattrs --xattrs-include='*', which keeps the numbers",
        ) from None


def _malformed(line: bytes) -> FormatError:
    return FormatError(f"a malformed access control list: {line[:80]!r}")
