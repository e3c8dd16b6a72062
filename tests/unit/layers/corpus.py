"""Hostile and odd layers. Whatever one of them says, nothing outside its directory may change.

`refused` ones end in a FormatError or KernelError and leave the store as it was; the others are unpacked,
inside. DECOY in a name stands for a directory of the test beside the store, UP for enough "../" to leave it.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable, Iterator

from layers.builder import (
    BLOCK,
    archive,
    binary,
    directory,
    entry,
    hard_link,
    long_name,
    pax,
    raw_pax,
    sparse,
    symlink,
)

UP = "../" * 12
ENTRIES = 2000  # the limits that the tests set
BYTES = 8 << 20
Make = Callable[[str], bytes]

EIGHT_EIB = (1 << 63) - 1
TRUSTED = b"trusted.overlay."


def refused(decoy: str) -> Iterator[tuple[str, bytes]]:
    """(name, archive) of all that must be refused."""
    yield from _names(decoy)
    yield from _links(decoy)
    yield from _whiteouts()
    yield from _roots(decoy)
    yield from _headers(decoy)
    yield from _extensions(decoy)
    yield from _streams()
    yield from _too_much()


def _names(decoy: str) -> Iterator[tuple[str, bytes]]:
    yield "dotdot", archive(entry("../x", b"evil"))
    yield "dotdot-nested", archive(directory("a"), entry("a/../../x", b"evil"))
    yield "dotdot-to-decoy", archive(entry(f"{UP}x"[:100], b"evil"))
    yield "dotdot-directory", archive(directory("../d", 0o777))
    yield "dotdot-symlink", archive(symlink("../l", decoy))
    yield (
        "dotdot-inside",
        archive(directory("a"), entry("a/../b", b"harmless, but a sign of malice")),
    )
    yield "component-256", archive(pax(("path", "a" * 256)), entry("x", b"evil"))
    yield "path-4097", archive(pax(("path", "a/" * 2048 + "b")), entry("x", b"evil"))
    yield "depth-201", archive(pax(("path", "a/" * 200 + "b")), entry("x", b"evil"))
    yield "nul-in-pax-path", archive(pax(("path", b"a\0b")), entry("x", b"evil"))
    yield "no-name", archive(entry("", b"evil"))


def _links(decoy: str) -> Iterator[tuple[str, bytes]]:
    yield "symlink-then-below", archive(symlink("d", decoy), entry("d/secret", b"evil"))
    yield "symlink-then-directory-below", archive(symlink("d", decoy), directory("d/new"))
    yield (
        "symlink-chain",
        archive(symlink("a", "b"), symlink("b", decoy), entry("a/secret", b"evil")),
    )
    yield (
        "symlink-to-proc-root",
        archive(symlink("d", "/proc/self/root"), entry(f"d{decoy}/x"[:100], b"evil")),
    )
    yield "symlink-to-proc-fd", archive(symlink("d", "/proc/self/cwd"), entry("d/x", b"evil"))
    yield "symlink-loop", archive(symlink("a", "b"), symlink("b", "a"), entry("a/x", b"evil"))
    yield "symlink-to-nothing", archive(entry("l", kind=b"2"))
    yield "hard-link-absolute", archive(hard_link("x", "/etc/shadow"))
    yield "hard-link-to-decoy", archive(hard_link("x", f"{decoy}/secret"[:100]))
    yield "hard-link-dotdot", archive(hard_link("x", f"{UP}etc/shadow"))
    yield "hard-link-through-symlink", archive(symlink("d", decoy), hard_link("x", "d/secret"))
    yield "hard-link-to-directory", archive(directory("d"), hard_link("x", "d"))
    yield "hard-link-to-itself", archive(entry("x", b"a"), hard_link("x", "x"))
    yield "hard-link-to-root", archive(hard_link("x", "."))
    yield "hard-link-to-later", archive(hard_link("x", "y"), entry("y", b"a"))
    yield (
        "hard-link-into-what-it-replaces",
        archive(directory("d"), entry("d/f", b"a"), hard_link("d", "d/f")),
    )
    yield "below-a-file", archive(entry("f", b"a"), entry("f/x", b"evil"))
    yield (
        "directory-becomes-file",
        archive(directory("d"), entry("d/a", b"a"), entry("d", b"file"), entry("d/b", b"evil")),
    )
    yield (
        "directory-becomes-symlink",
        archive(
            directory("d"), entry("d/a", b"a"), symlink("d", decoy), entry("d/secret", b"evil")
        ),
    )


def _whiteouts() -> Iterator[tuple[str, bytes]]:
    yield "whiteout-of-dot", archive(entry(".wh.."))
    yield "whiteout-of-dotdot", archive(entry(".wh..."))
    yield "whiteout-of-nothing", archive(entry(".wh."))
    yield "whiteout-of-the-root", archive(entry(".wh./"))
    yield "whiteout-with-slash", archive(directory(".wh."), entry(".wh./x", b"evil"))
    yield "whiteout-with-content", archive(entry(".wh.d/x", b"evil"))
    yield "opaque-as-directory", archive(directory(".wh..wh..opq"))
    yield "opaque-with-content", archive(entry(".wh..wh..opq/x", b"evil"))
    yield "whiteout-as-symlink", archive(symlink(".wh.x", "/etc"))
    yield "whiteout-as-hard-link", archive(entry("y", b"a"), hard_link(".wh.x", "y"))
    yield "whiteout-device", archive(entry("x", kind=b"3"))


def _roots(decoy: str) -> Iterator[tuple[str, bytes]]:
    yield "root-is-a-symlink", archive(symlink(".", decoy), entry("secret", b"evil"))
    yield "root-is-a-file", archive(entry("./.", b"evil"))
    yield "root-is-a-device", archive(entry("/", kind=b"4", device=(8, 0)))
    yield "root-is-a-hard-link", archive(entry("a", b"a"), hard_link(".", "a"))


def _headers(decoy: str) -> Iterator[tuple[str, bytes]]:
    yield "negative-uid", archive(entry("x", uid=binary(-1, 8)))
    yield "uid-2-to-32", archive(entry("x", uid=binary(1 << 32, 8)))
    yield "uid-minus-one", archive(entry("x", uid=binary((1 << 32) - 1, 8)))
    yield "gid-2-to-40", archive(directory("x", gid=binary(1 << 40, 8)))  # type: ignore[arg-type]
    yield "negative-size", archive(entry("x", size=binary(-512, 12)), entry("y", b"evil"))
    yield "size-8-eib", archive(entry("x", size=binary(EIGHT_EIB, 12)))
    yield "size-not-octal", archive(entry("x", size=b"00000000009\0"))
    yield "mode-not-a-number", archive(entry("x", mode=b"0x1ff\0  "))
    yield "device-out-of-range", archive(entry("x", kind=b"4", device=(0o10000, 0)))
    yield "checksum", archive(entry("x", b"evil", checksum=b"000001\0 "))
    yield "checksum-is-text", archive(entry("x", b"evil", checksum=b"checksum"))
    yield "type-unknown", archive(entry("x", kind=b"Z"))
    yield "type-multi-volume", archive(entry("x", kind=b"M"))
    yield "sparse-gnu-8-eib", archive(sparse("x", EIGHT_EIB, []))
    yield "sparse-gnu-out-of-order", archive(sparse("x", 4096, [(512, 512), (0, 512)], bytes(1024)))
    yield "sparse-gnu-beyond-its-size", archive(sparse("x", 512, [(512, 512)], bytes(512)))
    yield "sparse-gnu-more-than-there-is", archive(sparse("x", 4096, [(0, 1024)], bytes(512)))
    yield (
        "sparse-pax-1.0-endless-map",
        archive(
            pax(("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "9")),
            entry("x", b"99999999\n" + b"0\n" * 3000),
        ),
    )
    yield (
        "sparse-pax-0.1-not-numbers",
        archive(pax(("GNU.sparse.map", "0,x"), ("GNU.sparse.size", "9")), entry("x", b"a")),
    )
    yield (
        "sparse-pax-1.0",
        archive(
            pax(("GNU.sparse.major", "1"), ("GNU.sparse.realsize", str(EIGHT_EIB))),
            entry("x", b"1\n0\n"),
        ),
    )
    yield "sparse-pax-0.1", archive(pax(("GNU.sparse.map", "0,1")), entry("x", b"a"))


def _extensions(decoy: str) -> Iterator[tuple[str, bytes]]:
    yield "pax-path-dotdot", archive(pax(("path", f"{UP}{decoy}/secret")), entry("x", b"evil"))
    yield (
        "pax-link-dotdot",
        archive(pax(("linkpath", f"{UP}{decoy}/secret")), entry("x", kind=b"1", link="harmless")),
    )
    yield "pax-size-8-eib", archive(pax(("size", str(EIGHT_EIB))), entry("x", b"evil"))
    yield "pax-size-negative", archive(pax(("size", "-512")), entry("x", b"evil"))
    yield "pax-size-huge-digits", archive(pax(("size", "9" * 5000)), entry("x", b"evil"))
    yield "pax-size-underscore", archive(pax(("size", "1_0")), entry("x", b"evil"))
    yield "pax-uid", archive(pax(("uid", "4294967296")), entry("x", b"evil"))
    yield "pax-uid-text", archive(pax(("uid", "1e3")), entry("x", b"evil"))
    yield "pax-mtime-text", archive(pax(("mtime", "nan")), entry("x", b"evil"))
    yield "pax-empty-path", archive(pax(("path", "")), entry("x", b"evil"))
    yield "pax-length-too-long", archive(raw_pax(b"999 path=x\n"), entry("x", b"evil"))
    yield "pax-length-zero", archive(raw_pax(b"0 path=x\n"), entry("x", b"evil"))
    yield "pax-length-text", archive(raw_pax(b"aa path=x\n"), entry("x", b"evil"))
    yield "pax-no-newline", archive(raw_pax(b"10 path=xx"), entry("x", b"evil"))
    yield "pax-no-equals", archive(raw_pax(b"9 pathxx\n"), entry("x", b"evil"))
    yield "pax-for-nothing", archive(pax(("path", "x")))
    yield "pax-too-large", archive(pax(("comment", "x" * (1 << 20))), entry("x", b"evil"))
    yield "gnu-long-name-1-mib", archive(long_name(b"a" * (1 << 20)), entry("x", b"evil"))
    yield (
        "gnu-long-name-dotdot",
        archive(long_name(f"{UP}{decoy}/secret".encode()), entry("x", b"evil")),
    )
    yield (
        "gnu-long-link-dotdot",
        archive(long_name(f"{UP}{decoy}/secret".encode(), b"K"), hard_link("x", "harmless")),
    )
    yield (
        "pax-many",
        archive(
            *(pax((f"comment{index}", "x" * 500_000)) for index in range(5)), entry("x", b"evil")
        ),
    )
    yield (
        "nul-in-an-attributes-name",
        archive(pax((b"SCHILY.xattr.user.a\0b", "x")), entry("x", b"a")),
    )
    yield (
        "nul-in-a-long-link",
        archive(long_name(b"a\0" + b"b" * 200, kind=b"K"), symlink("x", "short")),
    )
    attributes = [(f"SCHILY.xattr.user.a{index}", "x" * 60_000) for index in range(2)]
    yield "xattrs-too-large", archive(pax(*attributes), entry("x", b"a"))
    yield (
        "capability-is-garbage",
        archive(pax(("SCHILY.xattr.security.capability", "garbage")), entry("x", b"a")),
    )


def _streams() -> Iterator[tuple[str, bytes]]:
    good = archive(entry("x", b"harmless" * 1000))
    yield "empty", b""
    yield "text", b"This is not a tar archive.\n" * 100
    yield "half-a-header", good[:300]
    yield "half-a-file", good[: 2 * BLOCK]
    yield "no-end-mark", good[: -2 * BLOCK]
    yield "gzip-truncated", gzip.compress(good)[:-20]
    yield "gzip-garbage-behind", gzip.compress(good) + b"garbage"
    yield "gzip-bad-checksum", _flip(gzip.compress(good), -6)
    yield "gzip-of-text", gzip.compress(b"not a tar archive" * 100)
    yield "gzip-head-only", gzip.compress(good)[:4]
    yield "xz-truncated", lzma.compress(good)[:-20]
    yield "bzip2-truncated", bz2.compress(good)[:-5]
    yield "zstd-of-nothing", b"\x28\xb5\x2f\xfd" + bytes(50)


def _too_much() -> Iterator[tuple[str, bytes]]:
    yield "entries", archive(*(entry(f"f{index}") for index in range(ENTRIES + 1)))
    yield "headers-without-entry", archive(*(pax(("comment", "x")) for _ in range(ENTRIES + 1)))
    big = archive(entry("x", bytes(BYTES + 1)))
    yield "plain-too-large", big
    yield "gzip-bomb", gzip.compress(big)
    yield "gzip-bomb-behind-the-end", gzip.compress(archive(entry("x")) + bytes(BYTES))
    yield "bzip2-bomb", bz2.compress(big)
    yield "xz-bomb", lzma.compress(big)


def confined(decoy: str) -> Iterator[tuple[str, bytes]]:
    """(name, archive) of what is odd, but does no harm where it is."""
    yield "absolute", archive(entry("/abs", b"inside"))
    yield "doubled-slashes", archive(entry(".//a///b", b"inside"))
    yield "symlink-out", archive(symlink("l", f"{decoy}/secret"))
    yield "symlink-then-directory", archive(symlink("d", decoy), directory("d", 0o777))
    yield (
        "symlink-then-file",
        archive(symlink("f", f"{decoy}/secret"), entry("f", b"inside", mode=0o777)),
    )
    yield (
        "symlink-file-symlink-file",
        archive(*[symlink("f", f"{decoy}/secret"), entry("f", b"inside")] * 3),
    )
    yield "symlink-to-the-root", archive(symlink("d", "/"), entry("d/x", b"inside"))
    yield "symlink-dotdot-chain", archive(symlink("d", UP), entry("d/x", b"inside"))
    yield (
        "hard-link-to-symlink",
        archive(symlink("s", f"{decoy}/secret"), hard_link("h", "s"), entry("h", b"inside")),
    )
    yield (
        "write-through-hard-link",
        archive(entry("a", b"kept"), hard_link("b", "a"), entry("b", b"other")),
    )
    yield (
        "attributes-through-symlink",
        archive(
            symlink("l", f"{decoy}/secret"),
            pax(("SCHILY.xattr.user.evil", "1")),
            symlink("l", decoy),
        ),
    )
    yield "fifo", archive(entry("p", kind=b"6", mode=0o666))
    yield (
        "devices",
        archive(
            entry("null", kind=b"3", device=(1, 3), mode=0o666),
            entry("disk", kind=b"4", device=(8, 0)),
        ),
    )
    yield "setuid", archive(entry("su", b"#!/bin/sh\n", mode=0o6755))
    yield (
        "newline-and-bytes",
        archive(entry(b"new\nline", b"a"), entry(b"\xff\xfe\x80", b"b"), entry(b"\x1b[31m", b"c")),
    )
    yield (
        "times",
        archive(
            entry("old", mtime=binary(-(1 << 62), 12)), entry("new", mtime=binary(1 << 62, 12))
        ),
    )
    yield "global-header-path", archive(pax(("path", "../x"), kind=b"g"), entry("y", b"inside"))
    yield "whiteout-then-content", archive(entry(".wh.d"), entry("d/x", b"inside"))
    yield "whiteout-of-own-file", archive(entry("f", b"inside"), entry(".wh.f"))
    yield "aufs-files", archive(entry(".wh..wh.plnk"), entry(".wh..wh.aufs"))
    yield "tar-garbage-behind-the-end", archive(entry("x", b"inside")) + b"garbage" * 200
    yield "one-zero-block", entry("x", b"inside") + bytes(BLOCK)
    yield "no-entries", archive()
    for name in ("opaque", "redirect", "metacopy", "origin"):
        records = (
            (b"SCHILY.xattr." + TRUSTED + name.encode(), "y"),
            (b"SCHILY.xattr.user.overlay." + name.encode(), "y"),
            ("SCHILY.xattr.security.selinux", "system_u:object_r:shadow_t:s0"),
            ("SCHILY.xattr.trusted.evil", "1"),
        )
        yield (
            f"overlay-{name}",
            archive(pax(*records), directory("d"), pax(*records), entry("d/f", b"inside")),
        )


def _flip(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 0xFF
    return bytes(changed)
