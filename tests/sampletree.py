"""A tree with one of everything that a file system can hold, and what can be said of it."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def everything(base: Path) -> Path:
    """A tree with one of everything that can be copied."""
    top = base / "tree"
    top.mkdir()
    (top / "su").write_bytes(b"x" * 5000)
    os.chown(top / "su", 1234, 5678)
    (top / "su").chmod(0o4751)
    os.link(top / "su", top / "su2")
    (top / "deep").mkdir()
    os.link(top / "su", top / "deep" / "su3")
    os.setxattr(top / "deep", "user.note", b"on a directory\0\n")
    os.setxattr(top / "su", "user.note", b"text")
    os.setxattr(
        top / "su", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000")
    )
    (top / "link").symlink_to("/nowhere")
    os.chown(top / "link", 7, 8, follow_symlinks=False)
    os.mkfifo(top / "fifo", 0o620)
    os.mknod(top / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (top / ("long" * 60)).write_text("long")
    os.close(os.open(os.fsencode(top) + b"/\xff\xfe", os.O_CREAT, 0o600))
    with (top / "sparse").open("wb") as file:
        file.seek(1 << 30)
        file.write(b"end")
        file.truncate((1 << 30) + (1 << 20))
    (top / "sticky").mkdir()
    (top / "sticky").chmod(0o1777)
    for path in sorted(top.rglob("*"), reverse=True):
        os.utime(path, ns=(1, 1_600_000_000_123_456_789), follow_symlinks=False)
    return top


def described(base: Path, *, content: bool = True) -> dict[str, object]:
    """Everything about every entry but SELinux's label, and which are the same file."""
    found: dict[str, object] = {}
    inodes: dict[int, str] = {}
    for path in [base, *sorted(base.rglob("*"))]:
        status = path.lstat()
        name = str(path.relative_to(base))
        first = inodes.setdefault(status.st_ino, name)
        regular = stat.S_ISREG(status.st_mode)
        attributes = {}
        if regular or path.is_dir():
            # a label depends on the place
            names = (one for one in os.listxattr(path) if one != "security.selinux")
            attributes = {one: os.getxattr(path, one) for one in names}
        size = status.st_size if regular else 0
        small = regular and content and size < 1 << 20
        data = path.read_bytes() if small else os.readlink(path) if path.is_symlink() else b""
        found[name] = (
            oct(status.st_mode), status.st_uid, status.st_gid, status.st_rdev, size,
            status.st_mtime_ns if path != base else 0, first, attributes, data,
        )  # fmt: skip
    return found
