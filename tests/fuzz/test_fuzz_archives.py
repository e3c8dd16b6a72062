"""Archives: what our writer writes our reader reads, and any headers at all are entries or one line."""

from __future__ import annotations

import io
import os
import tarfile
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from inputs import NUMBERS, Refused, outcome

from sysbox.image import tar, tarwriter
from sysbox.image.source import open_source

LIMITS = tar.LayerLimits(bytes=1 << 20, entries=50)
NAMES = st.one_of(
    st.binary(min_size=1, max_size=12), st.binary(min_size=95, max_size=130),
    st.sampled_from([b"a", b"../x", b"/etc", b"a" * 100, b"a" * 101, b"b/" * 120, b"\xff", b"x" * 4000]),
).map(lambda name: name.replace(b"\0", b"_"))  # fmt: skip
OWNERS = st.integers(0, tar.MAX_ID)
TIMES = st.integers(-(1 << 31) * 10**9, ((1 << 34) - 1) * 10**9)
XATTRS = st.lists(st.tuples(st.sampled_from(["user.a", "user.b", "user.c"]), st.binary(max_size=300)),
                  max_size=2, unique_by=lambda pair: pair[0])  # fmt: skip


def entries(data: bytes) -> list[tar.Header]:
    """The headers of an archive."""
    fd = os.memfd_create("x")
    try:
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        source = open_source(fd, "", "x", LIMITS.bytes, "sha256:x")
        try:
            return list(tar.headers(source, LIMITS))
        finally:
            source.close()
    finally:
        os.close(fd)


@example(b"/", b"", 0, 0, 0, 0, [], tar.SYMLINK)
@given(NAMES, st.one_of(st.just(b""), NAMES), st.integers(0, 0o7777), OWNERS, OWNERS, TIMES, XATTRS,
       st.sampled_from([tar.REGULAR, tar.SYMLINK, tar.FIFO, tar.CHARACTER]))  # fmt: skip
def test_what_is_written_is_read(
    name: bytes, link: bytes, mode: int, uid: int, gid: int, mtime: int, xattrs: Any, kind: bytes
) -> None:
    if kind == tar.REGULAR:
        name = name.rstrip(b"/") or b"x"
    device = (5, 1000) if kind == tar.CHARACTER else (0, 0)
    data = tarwriter._headers(kind, name, link, 0, (mode, uid, gid, mtime), device, xattrs)
    assert len(data) % 512 == 0
    (found,) = entries(data + bytes(1024))
    assert (found.kind, found.name, found.mode, found.uid, found.gid) == (
        kind,
        name,
        mode,
        uid,
        gid,
    )
    assert (found.link, found.mtime, found.major, found.minor) == (link, mtime, *device)
    assert found.xattrs == tuple((key.encode(), value) for key, value in xattrs)
    # and by the standard library
    with tarfile.open(fileobj=io.BytesIO(data + bytes(1024)), errors="surrogateescape") as archive:
        (member,) = archive.getmembers()
    assert os.fsencode(member.name).rstrip(b"/") == name.rstrip(b"/")
    assert (member.uid, member.gid, member.mode) == (uid, gid, mode)


FIELD = st.one_of(
    st.binary(max_size=12),
    NUMBERS.map(lambda text: text.encode("utf-8", "replace")[:12]),
    st.sampled_from(
        [b"0000644\0", b"00000000000\0", b"ustar\x0000", b"\x80" + bytes(11), b"\xff" * 12]
    ),
)
RECORD = st.tuples(st.sampled_from([b"path", b"linkpath", b"size", b"uid", b"mtime", b"SCHILY.xattr.user.a",
                                    b"GNU.sparse.major", b"x", b""]), FIELD)  # fmt: skip


@st.composite
def block(draw: st.DrawFn) -> bytes:
    """A header whose checksum is right, and perhaps what follows it."""
    kind = draw(st.sampled_from([bytes([one]) for one in b"01234567xgLKSVDM\0\xff"]))
    body = b""
    if kind in b"xgLK":
        records = draw(st.lists(RECORD, max_size=3))
        body = b"".join(tarwriter._record(key, value) for key, value in records)
        body = draw(
            st.sampled_from([body, body[:-1], body + b"\0", b"9" * 5000 + b" a=b\n", b"\xb2 a=b\n"])
        )
    size = draw(st.sampled_from([b"%011o" % len(body), b"%011o" % len(body), draw(FIELD)]))
    sizes = (100, 8, 8, 8, 12, 12, 8, 1, 100, 8, 32, 32, 8, 8, 155)
    fields = [draw(FIELD)[:length] for length in sizes]
    fields[4], fields[6], fields[7] = size, b" " * 8, kind
    fields[6] = b"%06o\0 " % sum(tarwriter._pack(*fields))
    return tarwriter._pack(*fields) + body + bytes(-len(body) % 512)


@given(st.lists(block(), max_size=4), st.sampled_from([bytes(1024), b"", b"x"]))
def test_entries_or_one_line(blocks: list[bytes], end: bytes) -> None:
    found = outcome(lambda: entries(b"".join(blocks) + end))
    if found is not Refused:
        for one in found:
            assert one.size >= 0
            assert 0 <= one.uid <= tar.MAX_ID
