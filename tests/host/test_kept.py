"""What `import`, `export` and `commit` keep of a file system: all of it, entry by entry."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from image_trees import ACL, CAPABILITY, Tree, mounted, same, tree_of
from lane import SYSBOX, TIMEOUT, Sysbox, run_sysbox
from sampletree import described

NAME = "kept-test"


@pytest.mark.parametrize("flags", ["--acls", "--xattrs --xattrs-include=*"])
def test_archives_with_less(sysbox: Sysbox, sample: Path, tmp_path: Path, flags: str) -> None:
    """Access control lists as text, and as attributes."""
    words = [
        "tar",
        "--numeric-owner",
        *flags.split(),
        "-C",
        sample,
        "-cf",
        tmp_path / "a.tar",
        "owned",
        "sticky",
    ]
    subprocess.run(words, check=True, timeout=TIMEOUT)
    sysbox("import", tmp_path / "a.tar", f"{NAME}:less", check=True)
    found = tree_of(f"{NAME}:less")
    sysbox("rmi", f"{NAME}:less", check=True)
    lists = [found["owned"][-2], found["sticky"][-2]]
    assert lists == [{"system.posix_acl_access": ACL}, {"system.posix_acl_default": ACL}]


@pytest.fixture(scope="module")
def image(sample: Path) -> Iterator[str]:
    """The tree with what a container needs, as an image that GNU tar has packed."""
    shutil.copy2("/bin/busybox", sample / "busybox")
    os.utime(sample / "busybox", (1, 1))
    packed = sample.parent / "tree.tar"
    words = (
        "tar",
        "--acls",
        "--xattrs",
        "--xattrs-include=*",
        "--sparse",
        "--format=pax",
        "-C",
        sample,
    )
    subprocess.run([*words, "-cf", packed, "."], check=True, timeout=TIMEOUT)
    run_sysbox("import", packed, f"{NAME}:tree", check=True)
    yield f"{NAME}:tree"
    run_sysbox("rmi", "-f", f"{NAME}:tree")


def below(found: Tree, directory: str) -> Tree:
    """The entries of a directory, by their names in it."""
    start = f"{directory}/"
    return {
        name.removeprefix(start): tuple(
            one.removeprefix(start) if isinstance(one, str) and one.startswith(start) else one
            for one in entry
        )
        for name, entry in found.items()
        if name.startswith(start)
    }


def test_an_archive_of_gnu_tar(image: str, sample: Path) -> None:
    """ACLs come as SCHILY.acl records too, in words; all of it is there."""
    same(tree_of(image), described(sample))
    with mounted(image) as path:
        holes = (path / "sparse").stat()
    assert holes.st_blocks * 512 < holes.st_size // 10


def test_export_and_import(sysbox: Sysbox, image: str, sample: Path) -> None:
    sysbox("create", "--name", "kept-c", "--network", "none", image, "/busybox", "true", check=True)
    try:
        script = f"{SYSBOX} export kept-c | {SYSBOX} import - {NAME}:again"
        subprocess.run(["sh", "-ec", script], check=True, capture_output=True, timeout=TIMEOUT)
        found = tree_of(f"{NAME}:again")
        same(
            {name: entry for name, entry in found.items() if name in described(sample)},
            described(sample),
        )
        with mounted(f"{NAME}:again") as path:
            holes = (path / "sparse").stat()
        assert holes.st_blocks * 512 < holes.st_size // 10
    finally:
        sysbox("rm", "-f", "kept-c", check=True)
        sysbox("rmi", "-f", f"{NAME}:again")


def test_commit(sysbox: Sysbox, image: str, sample: Path) -> None:
    """New files with everything, whiteouts, an opaque directory, and changes of attributes alone."""
    script = """
        /busybox rm -r /old /fifo
        /busybox rm -r /replaced && /busybox mkdir /replaced && /busybox touch /replaced/new
        /busybox rm /link && /busybox mkdir -m 0751 /link
        /busybox chmod 0700 /deep && /busybox chown 4294967294:5 /capable
    """
    words = (
        "create",
        "--name",
        "kept-c",
        "--network",
        "none",
        "--userns",
        "host",  # where every id exists
        image,
        "/busybox",
        "sh",
        "-ec",
        script,
    )
    sysbox(*words, check=True)
    try:
        sysbox("start", "-a", "kept-c", check=True)
        sysbox("cp", "-a", f"{sample}/.", "kept-c:/copy", check=True)
        sysbox("commit", "kept-c", f"{NAME}:new", check=True)
        found = tree_of(f"{NAME}:new")
        same(below(found, "copy"), {k: v for k, v in described(sample).items() if k != "."})
        assert not {"old", "old/file", "fifo", "replaced/file"} & set(found)
        assert found["replaced/new"][4] == 0
        assert found["link"][0] == "0o40751"
        assert found["deep"][0] == "0o40700"
        assert found["deep"][-2] == {"user.note": b"on a directory\0\n"}
        assert found["capable"][1:3] == ((1 << 32) - 2, 5)
        assert found["owned"][-2] == {"system.posix_acl_access": ACL}
        assert found["sticky"][-2] == {"system.posix_acl_default": ACL}
        assert CAPABILITY in found["su"][-2]
        with mounted(f"{NAME}:new") as path:
            holes = (path / "copy" / "sparse").stat()
        assert holes.st_blocks * 512 < holes.st_size // 10
    finally:
        sysbox("rm", "-f", "kept-c", check=True)
        sysbox("rmi", "-f", f"{NAME}:new")
