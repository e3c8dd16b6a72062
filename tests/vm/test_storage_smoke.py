"""The guest's kernel and tools have what storage drivers need: btrfs, xfs, thin pools of the device mapper.

Nothing of sysbox is under test, but the machine on which its drivers are.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.v2_only("about the guest, whose second disk is to be overwritten")

DISK = "/dev/vdb"
SECTORS = 1 << 20  # of 512 bytes, that a part has
MIB = 1 << 20


def run(*words: str | Path) -> str:
    """A program's output; it must succeed."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, words))}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """Where a test mounts something, which is taken away after it."""
    point = tmp_path / "mounted"
    point.mkdir()
    yield point
    run("umount", point)


@pytest.fixture
def mapped() -> Iterator[list[str]]:
    """The names of mapped devices that a test has made, to be removed in the opposite order."""
    names: list[str] = []
    yield names
    for name in reversed(names):
        run("dmsetup", "remove", "--retry", name)


def test_btrfs(mounted: Path) -> None:
    """Subvolumes, their snapshots, and a quota that bites."""
    run("mkfs.btrfs", "-q", "-f", DISK)
    run("mount", "-t", "btrfs", DISK, mounted)
    one, two = mounted / "one", mounted / "two"
    run("btrfs", "subvolume", "create", one)
    (one / "file").write_text("first", encoding="ascii")
    run("btrfs", "subvolume", "snapshot", one, two)
    (two / "file").write_text("second", encoding="ascii")
    assert (one / "file").read_text(encoding="ascii") == "first"
    run("btrfs", "quota", "enable", mounted)
    run("btrfs", "qgroup", "limit", "8M", two)
    assert "quota exceeded" in fill(two / "large", 16)


def test_xfs(mounted: Path) -> None:
    """Copies that share their blocks, and a project quota that bites."""
    run("mkfs.xfs", "-q", "-f", DISK)
    run("mount", "-t", "xfs", "-o", "prjquota", DISK, mounted)
    (mounted / "file").write_bytes(b"x" * MIB)
    run("cp", "--reflink=always", mounted / "file", mounted / "copy")
    tree = mounted / "tree"
    tree.mkdir()
    run("xfs_quota", "-x", "-c", f"project -s -p {tree} 7", mounted)
    run("xfs_quota", "-x", "-c", "limit -p bhard=8m 7", mounted)
    assert "No space left" in fill(tree / "large", 16)


def test_thin_pool(mapped: list[str], mounted: Path) -> None:
    """A thin volume, and a snapshot of it that goes its own way."""
    parts = {"metadata": 16384, "data": SECTORS}
    start = 0
    for name, sectors in parts.items():
        make(mapped, f"test-{name}", f"0 {sectors} linear {DISK} {start}")
        start += sectors
    run("dd", "if=/dev/zero", "of=/dev/mapper/test-metadata", "bs=4k", "count=1")
    pool = "/dev/mapper/test-metadata /dev/mapper/test-data 128 0"
    make(mapped, "test-pool", f"0 {SECTORS} thin-pool {pool}")
    run("dmsetup", "message", "test-pool", "0", "create_thin 0")
    make(mapped, "test-one", f"0 {SECTORS} thin /dev/mapper/test-pool 0")
    run("mkfs.ext4", "-q", "-E", "nodiscard", "/dev/mapper/test-one")
    run("dmsetup", "suspend", "test-one")
    run("dmsetup", "message", "test-pool", "0", "create_snap 1 0")
    run("dmsetup", "resume", "test-one")
    make(mapped, "test-two", f"0 {SECTORS} thin /dev/mapper/test-pool 1")
    run("mount", "/dev/mapper/test-two", mounted)
    (mounted / "file").write_bytes(b"x" * MIB)
    run("e2fsck", "-f", "-n", "/dev/mapper/test-one")
    assert "thin-pool" in run("dmsetup", "status", "test-pool")


def make(mapped: list[str], name: str, table: str) -> None:
    """Map a device, to be removed when the test is over."""
    run("dmsetup", "create", name, "--table", table)
    mapped.append(name)


def fill(path: Path, mebibytes: int) -> str:
    """Write as much to a file; what dd says when it cannot."""
    words = ["dd", "if=/dev/zero", f"of={path}", "bs=1M", f"count={mebibytes}", "conv=fsync"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode != 0, "all of it was written"
    return done.stderr.lower() if "quota" in done.stderr.lower() else done.stderr
