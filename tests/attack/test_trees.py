"""What a container does to the trees that sysbox works on: names that change their meaning, endless depth."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest
from containers import Containers, systemctl
from lane import Sysbox

from sysbox.base import paths
from sysbox.base.errors import SysboxError
from sysbox.base.files import remove_at
from sysbox.fs import rootfs
from sysbox.fs.ops import Tree
from sysbox.linux import mount
from sysbox.units import serviceplan

LIBC = ctypes.CDLL(None, use_errno=True)
NODE = rootfs.Node(target="/volume/made", kind="c", major=1, minor=3, mode=0o666, uid=9, gid=9)
OURS = ("posix", "sysbox.linux._sys")
PROCFS = mount.open_procfs()


class Attacked:
    """Calls `attack` right after the system call number `moment` (from 0) that is made meanwhile."""

    def __init__(self, attack: Callable[[], object], moment: int) -> None:
        self._attack = attack
        self._moment = moment
        self.seen = 0

    def __enter__(self) -> Self:
        sys.setprofile(self._look)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _look(self, _frame: object, event: str, function: object) -> None:
        if (
            event not in ("c_return", "c_exception")
            or getattr(function, "__module__", "") not in OURS
        ):
            return
        if self.seen == self._moment:
            sys.setprofile(None)
            self._attack()
            sys.setprofile(self._look)
        self.seen += 1


def at_each_moment(
    prepare: Callable[[], object], act: Callable[[], object], attack: Callable[[], object]
) -> int:
    """Do `act` again and again, with `attack` after its first system call, after its second, and so on.

    How often it was done. What a racing container would hit once in a thousand starts is hit for certain.
    """
    moment = 0
    while True:
        prepare()
        with Attacked(attack, moment) as done:
            try:
                act()
            except (OSError, SysboxError):
                pass  # what it says of a name that is something else by now
        if done.seen <= moment:
            return moment
        moment += 1


def exchange(one: Path, other: Path) -> None:
    """RENAME_EXCHANGE, if both are there."""
    LIBC.renameat2(-100, bytes(one), -100, bytes(other), 2)


@pytest.mark.parametrize("kind", ["directory", "file", "node"])
def test_a_mount_target_that_becomes_a_link_while_it_is_made(tmp_path: Path, kind: str) -> None:
    """Mode and owner of a file of the host's stay: nothing is set by name while its root is there."""
    secret = tmp_path / "shadow"
    secret.touch(0o600)
    os.chown(secret, 7, 7)
    volume = tmp_path / "root" / "volume"
    volume.mkdir(parents=True)
    made, link = volume / "made", volume / "link"
    link.symlink_to(secret)
    root = os.open(tmp_path / "root", os.O_PATH | os.O_DIRECTORY)

    def prepare() -> None:
        if made.is_symlink():
            exchange(made, link)
        if made.is_dir():
            made.rmdir()
        made.unlink(missing_ok=True)

    def act() -> None:
        tree = Tree(root, {}, PROCFS)
        if kind == "node":
            tree.node(NODE)
        else:
            os.close(getattr(tree, kind)("/volume/made"))

    moments = at_each_moment(prepare, act, lambda: exchange(made, link))
    os.close(root)
    assert moments > 3
    status = secret.stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o600, 7, 7)


def test_nothing_is_made_behind_a_link_that_appears_meanwhile(tmp_path: Path) -> None:
    """A mount target below it is made in the container or not at all."""
    outside, volume = tmp_path / "outside", tmp_path / "root" / "volume"
    outside.mkdir()
    volume.mkdir(parents=True)
    made, link = volume / "made", volume / "link"
    link.symlink_to(outside)
    root = os.open(tmp_path / "root", os.O_PATH | os.O_DIRECTORY)

    def prepare() -> None:
        if made.is_symlink():
            exchange(made, link)
        shutil.rmtree(made, ignore_errors=True)

    def act() -> None:
        os.close(Tree(root, {}, PROCFS).directory("/volume/made/below/it"))

    moments = at_each_moment(prepare, act, lambda: exchange(made, link))
    os.close(root)
    assert moments > 3
    assert list(outside.iterdir()) == []


DEEP = """
import os
for top in ("/", "/named", "/unnamed"):
    os.chdir(top)
    for _ in range(3000):
        os.mkdir("directory")
        os.chdir("directory")
"""


def test_trees_without_end(containers: Containers, sysbox: Sysbox, tmp_path: Path) -> None:
    """Deeper than any path may be long: each verb goes on, or says so in one line; nothing stays."""
    sysbox("volume", "create", "deep", check=True)
    flags = ("-v", "deep:/named", "-v", "/unnamed", "--network", "none")
    made = containers(*flags, image="host", command=("python3", "-c", DEEP))
    sysbox("wait", made.id, check=True)
    other = containers(*flags, image="host", command=("true",))
    anonymous = json.loads(made("inspect", "-f", "{{json .Mounts}}"))
    for words in (
        ("diff", made.id),
        ("commit", made.id, "deep:1"),
        ("export", "-o", str(tmp_path / "deep.tar"), made.id),
        ("cp", f"{made.id}:/directory", str(tmp_path / "copy")),
        ("cp", f"{made.id}:/directory", "-"),
        ("cp", f"{made.id}:/named", f"{other.id}:/copy"),
        ("cp", str(paths.VOLUMES) + "/deep/_data", f"{other.id}:/again"),
    ):
        done = sysbox(*words)
        assert done.returncode in (1, 125), words
        assert re.search(r"^sysbox: \S* more than \d+ directories deep\n\Z", done.stderr, re.M), (
            done.stderr
        )
    assert sysbox("image", "inspect", "deep:1").returncode == 1
    sysbox("volume", "inspect", "deep", check=True)
    sysbox("gc", check=True)
    sysbox("rm", other.id, check=True)
    sysbox("container", "prune", "-f", check=True)
    sysbox("volume", "rm", "deep", check=True)
    sysbox("volume", "prune", "-f", check=True)
    left = {one["Name"] for one in anonymous} & set(os.listdir(paths.VOLUMES))
    assert not left
    remove_at(os.open(tmp_path, os.O_RDONLY), "copy")


def test_one_that_cannot_be_removed_keeps_none_down(
    containers: Containers, sysbox: Sysbox, tmp_path: Path
) -> None:
    """Each step of gc stands alone, so that the host's boot brings back what should be up."""
    bad = Path(paths.CONTAINERS) / ".new-bad"
    (bad / "mounted").mkdir(parents=True)
    (tmp_path / "kept").touch()
    subprocess.run(["mount", "--bind", tmp_path, bad / "mounted"], check=True)
    name = Path(paths.NAMES) / "stale"
    up = containers("--restart", "always", "--stop-signal", "KILL")
    try:
        name.symlink_to("0" * 64)
        done = sysbox("gc")
        assert done.returncode == 1
        assert "not cleaned up: what was half made or removed: remove" in done.stderr
        assert "freed the name stale" in done.stdout
        systemctl("stop", f"sysbox-{up.id}.service")  # as at shutdown
        (Path(serviceplan.WANTS) / f"sysbox-{up.id}.service").unlink()
        (Path(serviceplan.DIRECTORY) / f"sysbox-{up.id}.service").unlink()
        assert "what was half made or removed" in sysbox("_boot", check=True).stderr
        up.await_state("running")
    finally:
        subprocess.run(["umount", bad / "mounted"], check=True)
    assert (tmp_path / "kept").exists()
    sysbox("gc", check=True)
    assert not bad.exists()
