"""A tree with all that an image must keep, and the trees of images, entry by entry."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lane import run_sysbox
from sampletree import described, everything

# user::rw- user:42:rwx group::r-- mask::rwx other::r--
ACL = bytes.fromhex(
    "02000000" "01000600ffffffff" "020007002a000000" "04000400ffffffff" "10000700ffffffff"
    "20000400ffffffff"
)  # fmt: skip

CAPABILITY = "security.capability"

Tree = dict[str, tuple[Any, ...]]


def make_tree(base: Path) -> Path:
    """One of everything: types, owners, times, links, attributes, holes, names; and what may be hidden."""
    top = everything(base)
    (top / "sparse").unlink()
    with (top / "sparse").open("wb") as file:
        file.truncate(3 << 20)
    for name in ("old", "replaced"):
        (top / name).mkdir()
        (top / name / "file").write_text("hidden")
    (top / "capable").write_text("alone")
    os.setxattr(top / "capable", CAPABILITY, os.getxattr(top / "su", CAPABILITY))
    (top / "owned").write_text("by a user of a user namespace")
    os.chown(top / "owned", (1 << 32) - 2, (1 << 32) - 2)
    os.mknod(top / "disk", stat.S_IFBLK | 0o660, os.makedev(259, 1 << 19))
    os.setxattr(top / "owned", "system.posix_acl_access", ACL)
    os.setxattr(top / "sticky", "system.posix_acl_default", ACL)
    long = top
    for _ in range(15):
        long /= "n" * 250
        long.mkdir()
    for path in sorted(top.rglob("*"), reverse=True):
        os.utime(path, ns=(1, 1_600_000_000_123_456_789), follow_symlinks=False)
    return top


def shown(name: str, template: str) -> str:
    """What a template prints of an image."""
    return run_sysbox("image", "inspect", "-f", template, name, check=True).stdout.strip()


@contextmanager
def mounted(name: str) -> Iterator[Path]:
    """The root file system of an image of sysbox's."""
    data = json.loads(shown(name, "{{json .GraphDriver.Data}}"))
    lower = ":".join([data["UpperDir"], *filter(None, [data.get("LowerDir", "")])])
    with overlay(lower) as path:
        yield path


@contextmanager
def overlay(lower: str) -> Iterator[Path]:
    """Directories with ":" between, the highest first, as one."""
    path = Path("/run") / f"image-tree-{os.getpid()}"
    path.mkdir()
    try:
        if ":" in lower:
            options = ["-t", "overlay", "-o", f"lowerdir={lower}", "overlay"]
        else:
            options = ["--bind", lower]
        subprocess.run(["mount", *options, path], check=True)
        try:
            yield path
        finally:
            subprocess.run(["umount", path], check=True)
    finally:
        path.rmdir()


def tree_of(name: str) -> Tree:
    """The entries of an image."""
    with mounted(name) as path:
        return described(path)


def same(ours: Tree, theirs: Tree) -> None:
    """The trees are equal; else the test names the entries."""
    wrong = [
        f"{name}: {ours.get(name)} {theirs.get(name)}"
        for name in sorted({*ours, *theirs})
        if name != "." and ours.get(name) != theirs.get(name)
    ]
    assert not wrong, "\n".join(wrong)
