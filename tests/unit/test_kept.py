"""What a copy keeps is the same on every way: cp, a new volume's first content, commit and export.

Trees are made at random, from numbers that stay the same, with all that a file system can hold.
"""

from __future__ import annotations

import io
import os
import random
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import needs_root

from sysbox.base.tree import TreeEntry
from sysbox.content import copy as copying
from sysbox.content.copy import Side
from sysbox.content.extract import Extractor
from sysbox.fs import copyup
from sysbox.fs.treecopy import Rules
from sysbox.image import layer
from sysbox.image.source import MappedSource, Source
from sysbox.image.tar import LayerLimits
from sysbox.image.tarwriter import Archive

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
PLENTY = 1 << 40
HOLE = 1 << 20


@pytest.fixture(autouse=True)
def root() -> None:
    needs_root()


def acl(chance: random.Random) -> bytes:
    """An access control list (acl(5), linux/posix_acl_xattr.h)."""
    users = sorted(chance.sample(range(1, 70000), chance.randint(1, 3)))
    none = 0xFFFFFFFF
    entries = [(1, 6, none), *((2, chance.randrange(8), user) for user in users)]
    entries += [(4, 5, none), (0x10, chance.randrange(8), none), (0x20, 1, none)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *one) for one in entries)


def make_file(path: Path, chance: random.Random) -> None:
    with path.open("wb") as file:
        for _ in range(chance.randrange(4)):
            file.seek(chance.choice((0, 0, 5, HOLE)), os.SEEK_CUR)
            file.write(chance.randbytes(chance.choice((1, 511, 70_000))))
        file.truncate(file.tell() + chance.choice((0, 0, 3 * HOLE)))
    if chance.random() < 0.3:
        os.setxattr(path, "user.note", chance.randbytes(20))


def make_entry(path: Path, chance: random.Random, others: list[Path]) -> None:
    kind = chance.choice(("file", "file", "link", "fifo", "device", "again", "again", "bytes"))
    if kind == "again" and others:
        os.link(chance.choice(others), path, follow_symlinks=False)
        return
    if kind == "link":
        path.symlink_to(chance.choice(("/etc/shadow", "../..", "x/" * 150)))
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        os.mknod(path, chance.choice((stat.S_IFCHR, stat.S_IFBLK)), os.makedev(1, 3))
    else:
        make_file(path, chance)
    others.append(path)


def give(path: Path, chance: random.Random) -> None:
    """Owner, mode, capabilities, lists and time, in the order that keeps them."""
    status = path.lstat()
    os.lchown(path, chance.choice((0, 1000, 4_000_000_000)), chance.choice((0, 5, 3_000_000)))
    if not stat.S_ISLNK(status.st_mode):
        path.chmod(chance.choice((0o644, 0o4755, 0o2711, 0o1777, 0o000, 0o640)))
        if chance.random() < 0.3:
            os.setxattr(path, "system.posix_acl_access", acl(chance))
        if path.is_dir() and chance.random() < 0.5:
            os.setxattr(path, "system.posix_acl_default", acl(chance))
    if stat.S_ISREG(status.st_mode) and chance.random() < 0.3:
        os.setxattr(path, "security.capability", CAPABILITY)
    moment = chance.choice((0, 1, 1_600_000_000_123_456_789, 9_000_000_000_000_000_001))
    os.utime(path, ns=(moment + 5, moment), follow_symlinks=False)


def make_tree(top: Path, seed: int) -> None:
    chance = random.Random(seed)
    directories, others = [top], list[Path]()
    top.mkdir()
    for number in range(chance.randint(1, 40)):
        path = chance.choice(directories) / f"{number}{'é' * chance.choice((0, 60))}"
        if chance.random() < 0.3:
            path.mkdir()
            directories.append(path)
        else:
            make_entry(path, chance, others)
    for path in [*others, *reversed(directories)]:
        give(path, chance)


def described(top: Path) -> dict[str, object]:
    """Everything about every entry, and which are the same file."""
    found: dict[str, object] = {}
    inodes: dict[int, str] = {}
    for path in [top, *sorted(top.rglob("*"))]:
        status = path.lstat()
        name = str(path.relative_to(top))
        attributes, data = {}, b""
        if stat.S_ISLNK(status.st_mode):
            data = os.fsencode(os.readlink(path))
        else:
            attributes = {one: os.getxattr(path, one) for one in os.listxattr(path)}
            attributes.pop("security.selinux", None)
        if stat.S_ISREG(status.st_mode):
            data = path.read_bytes()
        found[name] = (
            oct(status.st_mode), status.st_uid, status.st_gid, status.st_rdev, status.st_mtime_ns,
            inodes.setdefault(status.st_ino, name), attributes, data,
        )  # fmt: skip
    return found


def allocated(top: Path) -> dict[str, int]:
    """Bytes on disk, of each entry."""
    return {str(one.relative_to(top)): one.lstat().st_blocks * 512 for one in top.rglob("*")}


def by_cp(top: Path, copy: Path) -> None:
    copying.copy(Side(path=str(top)), Side(path=str(copy)), Rules())


def by_first_mount(top: Path, copy: Path) -> None:
    mark = copy.with_suffix(".mark")
    mark.write_bytes(copyup.NEW)
    copy.mkdir()
    image, volume = (os.open(one, os.O_PATH) for one in (top, copy))
    copyup.first_mount(str(mark), image, volume)
    assert mark.read_bytes() == b""
    os.close(image)
    os.close(volume)


def packed(top: Path) -> bytes:
    out = io.BytesIO()
    found = TreeEntry(".", os.open(top, os.O_PATH))
    archive = Archive(out.write)
    archive.tree(found, ".")
    archive.finish()
    found.close()
    return out.getvalue()


def by_layer(top: Path, copy: Path) -> None:
    """As commit does, and export with import."""
    data = packed(top)
    fd = os.memfd_create("layer")
    os.write(fd, data)
    copy.mkdir()
    target = os.open(copy, os.O_RDONLY)
    source = MappedSource(fd, len(data), "the layer", PLENTY, "sha256:mapped")
    layer.unpack(source, target, LayerLimits())
    source.close()
    os.close(fd)
    os.close(target)


def by_stream(top: Path, copy: Path) -> None:
    """As `cp C:PATH - | cp - C:PATH` does."""
    copy.mkdir()
    root = os.open(copy, os.O_PATH)
    data = io.BytesIO(packed(top))
    Extractor(root, "/").run(Source(data.read, "the stream", PLENTY))
    os.close(root)


WAYS = (by_cp, by_first_mount, by_layer, by_stream)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", range(8))
def test_all_is_kept(tmp_path: Path, way: Callable[[Path, Path], None], seed: int) -> None:
    top, copy = tmp_path / "top", tmp_path / "copy"
    make_tree(top, seed)
    atimes = {one.name: one.lstat().st_atime_ns for one in top.rglob("*") if one.is_fifo()}
    way(top, copy)
    if way in (by_cp, by_first_mount):
        copied = {one.name: one.lstat().st_atime_ns for one in copy.rglob("*") if one.is_fifo()}
        assert copied == atimes
    # the root of a stream is the directory that is there already
    before, after = described(top), described(copy)
    if way is by_stream:
        before.pop(".")
        after.pop(".")
    assert after == before
    sizes = allocated(copy)
    for name, size in allocated(top).items():
        # the hole of a mebibyte is one still, if not to the byte
        assert sizes[name] <= size + HOLE // 2, f"{name}: a hole was filled"
